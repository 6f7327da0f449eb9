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
import os
import socket
import threading
import time
from typing import Any
import uuid

from r1jax import errors
from r1jax import interrupts
from r1jax import objects
from r1jax import terminal

NAME = 'lock'
_RENEW_SECONDS, _WATCH_SECONDS = 10., 35.
_SETTLE_SECONDS = 3.  # in which others that took the same lock over are seen

Owner = dict[str, Any]  # of the object, {} if it cannot be read


@contextlib.contextmanager
def held(folder: objects.Folder, spool: str) -> Iterator[None]:
  """Inside, this process alone works on the objects of `folder`.

  Args:
    folder: the workdir.
    spool: names the folder of this machine in which the run works. One process
      at a time has it (lock.py), so that its own lock is of a dead one.

  Raises:
    ConfigError: another process works there.
    RunError: the bucket cannot be read or written.
  """
  owner = {'id': uuid.uuid4().hex, 'spool': spool, 'pid': os.getpid(),
           'host': socket.gethostname(), 'since': round(time.time())}
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
      if _read(folder).get('id') == owner['id']:
        folder.remove(NAME)


def _take(folder: objects.Folder, mine: Owner) -> None:
  """Makes this process the owner."""
  taken_over = False
  while not folder.create(NAME, _content(mine)):
    content = folder.read(NAME)
    if content is None:
      continue
    owner = _owner(content)
    if owner.get('spool') != mine['spool'] and _is_renewed(folder, content):
      raise _refused(folder, owner)
    if folder.read(NAME) == content:
      folder.remove(NAME)
      taken_over = True
  if taken_over:
    time.sleep(_SETTLE_SECONDS)
    if (owner := _read(folder)).get('id') != mine['id']:
      raise _refused(folder, owner)


def _is_renewed(folder: objects.Folder, content: bytes) -> bool:
  """Watches a lock for a while: whether its owner still lives."""
  terminal.say(
      f'{folder.url}/{NAME} is of {_name(_owner(content))}: looking for '
      f'{_WATCH_SECONDS:.0f} s whether it still runs')
  until = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < until:
    time.sleep(.5)
    interrupts.check()
    if (now := folder.read(NAME)) != content:
      return now is not None
  return False


def _renew(folder: objects.Folder, owner: Owner, ended: threading.Event
          ) -> None:
  """Shows others that this process lives; ends it if they took it for dead."""
  while not ended.wait(_RENEW_SECONDS):
    with contextlib.suppress(objects.Unreachable):  # for a while
      other = _read(folder)
      if other and other['id'] != owner['id']:
        terminal.say(
            f'error: {folder.url}/{NAME} was taken over by {_name(other)}: '
            'this process ends, so that one alone works there')
        os._exit(1)
      folder.write(NAME, _content(owner))


def _refused(folder: objects.Folder, owner: Owner) -> errors.ConfigError:
  return errors.ConfigError(
      '--workdir', f'{folder.url} is in use by {_name(owner)}; wait for its '
      'end or stop it, or give another --workdir')


def _name(owner: Owner) -> str:
  if not owner:
    return 'a process that its lock does not name'
  began = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(owner['since']))
  return f'process {owner["pid"]} on {owner["host"]}, since {began}'


def _content(owner: Owner) -> bytes:
  """What is written, another each time."""
  return (json.dumps(owner | {'renewed': time.time()}) + '\n').encode()


def _read(folder: objects.Folder) -> Owner:
  return _owner(folder.read(NAME) or b'')


def _owner(content: bytes) -> Owner:
  with contextlib.suppress(ValueError):
    found = json.loads(content)
    if isinstance(found, dict) and {'id', 'spool', 'pid', 'host', 'since'} <= (
        found.keys()):
      return found
  return {}
