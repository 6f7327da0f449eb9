"""The lock of a workdir in a bucket: an object that its owner writes anew.

A store lets one of several create an object. Its owner writes it every few
seconds; one that no longer changes is of a process that is dead, and removed.
This is weaker than the lock of a folder (lock.py): an owner that was cut off
for longer than others wait is taken for dead while it still runs. It ends when
it sees that, and before that what it would write is refused (mirror.py).
"""

from collections.abc import Iterator
import contextlib
import json
import threading
import time

from r1jax import interrupts
from r1jax import objects
from r1jax import terminal
from r1jax.training import owners

NAME = 'lock'
_RENEW_SECONDS, _WATCH_SECONDS = 10., 35.
_SETTLE_SECONDS = 3.  # in which others that took the same lock over are seen


@contextlib.contextmanager
def held(folder: objects.Folder) -> Iterator[None]:
  """Inside, this process alone works on the objects of `folder`.

  Raises:
    ConfigError: another process works there.
    RunError: the bucket cannot be read or written.
  """
  owner = owners.identity()
  _take(folder, owner)
  ended = threading.Event()
  renewing = threading.Thread(
      target=_renew, args=(folder, owner, ended), daemon=True)
  renewing.start()
  try:
    yield
  finally:
    ended.set()
    renewing.join()
    with contextlib.suppress(objects.Unreachable):  # which has been said
      if _owner(folder.read(NAME)) == owner:
        folder.remove(NAME)


def _take(folder: objects.Folder, mine: owners.Owner) -> None:
  """Makes this process the owner."""
  taken_over = False
  while not folder.create(NAME, _content(mine)):
    content = folder.read(NAME)
    owner = _owner(content)
    lives = owners.lives(owner)
    if content is None:
      continue
    if lives or lives is None and _is_renewed(folder, content):
      raise owners.refused(folder.url, owner)
    if folder.read(NAME) == content:
      folder.remove(NAME)
      taken_over = True
  if taken_over:
    time.sleep(_SETTLE_SECONDS)
    if (owner := _owner(folder.read(NAME))) != mine:
      raise owners.refused(folder.url, owner)


def _is_renewed(folder: objects.Folder, content: bytes) -> bool:
  """Watches a lock for a while: whether its owner still lives."""
  terminal.say(
      f'{folder.url}/{NAME} is of {owners.name(_owner(content))}: looking for '
      f'{_WATCH_SECONDS:.0f} s whether it still runs')
  until = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < until:
    time.sleep(.5)
    interrupts.check()
    if (now := folder.read(NAME)) != content:
      return now is not None
  return False


def _renew(folder: objects.Folder, owner: owners.Owner, ended: threading.Event
          ) -> None:
  """Shows others that this process lives; ends it if they took it for dead."""
  while not ended.wait(_RENEW_SECONDS):
    with contextlib.suppress(objects.Unreachable):  # for a while
      if (other := _owner(folder.read(NAME))) not in (owner, {}):
        owners.end_as_dead(f'{folder.url}/{NAME}', other)
      folder.write(NAME, _content(owner))


def _content(owner: owners.Owner) -> bytes:
  """What is written, another each time."""
  return f'{json.dumps(owner)}\n{time.time()}\n'.encode()


def _owner(content: bytes | None) -> owners.Owner:
  return owners.read((content or b'').partition(b'\n')[0])
