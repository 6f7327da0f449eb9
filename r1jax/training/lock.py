"""One process at a time in a workdir: `held` while a run works there.

The file `lock` names its owner. On this machine the system says whether that
process still lives, and a dead one's lock is taken over. An owner on another
machine renews the file every few seconds; one that no longer does is dead, as a
pod that was preempted and comes back under another name.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time

import jax

from r1jax import buckets
from r1jax import errors
from r1jax import interrupts
from r1jax import objects
from r1jax import terminal
from r1jax import workdir as workdir_lib
from r1jax.parallel import distributed
from r1jax.training import files
from r1jax.training import owners

NAME = 'lock'
_RENEW_SECONDS, _WATCH_SECONDS = 10., 25.
_SEEN_SECONDS = 10.  # in which a network file system shows the file elsewhere


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Inside, this run alone works in `workdir`, which is made if need be.

  All processes of the run must call this; the main one holds the lock, which
  the others must see.

  Raises:
    ConfigError: another process works there, or it cannot be written, or is
      not the same directory for all.
    RunError: its disk is full or broken.
  """
  path, new = workdir / NAME, not workdir.exists()
  owner = distributed.in_main(lambda: _take(path))
  ended = threading.Event()
  if distributed.is_main():
    threading.Thread(
        target=_renew, args=(path, owner, ended), daemon=True).start()
  try:
    # Of a run in a bucket the main process alone has a folder.
    if not objects.is_bucket(buckets.named(workdir)):
      distributed.together(lambda: _check_seen(path, owner))
    yield
  finally:
    ended.set()
    if distributed.is_main():
      _release(path, owner, new)


def _release(path: pathlib.Path, owner: owners.Owner, new: bool) -> None:
  """Removes the lock, and a `new` folder in which nothing was written."""
  if _read(path) == owner:
    path.unlink(missing_ok=True)
  if new:
    with contextlib.suppress(OSError):  # something was
      path.parent.rmdir()


def _check_seen(path: pathlib.Path, owner: owners.Owner) -> None:
  """Refuses a directory that is another one on this host."""
  until = time.monotonic() + _SEEN_SECONDS
  while _read(path) != owner:
    if time.monotonic() > until:
      raise errors.ConfigError(
          '--workdir', f'process {jax.process_index()} on '
          f'{socket.gethostname()} does not see {path}, which '
          f'{owners.name(owner)} has written; expected a directory of a file '
          'system that all hosts mount, or gs://BUCKET/NAME')
    time.sleep(.5)


def _take(path: pathlib.Path) -> owners.Owner:
  """Makes this process the owner; returns what the file says of it."""
  mine = owners.identity()
  try:
    files.make_folder(path.parent)
    files.check_plain(path.parent, '--workdir')
    while True:
      with _alone(path.parent):
        if _create(path, mine):
          return mine
        owner, renewed = _read(path), _renewed(path)
        lives = owners.lives(owner)
        if lives is False:
          path.unlink(missing_ok=True)
          continue
      if lives or _is_renewed(path, owner, renewed):
        raise owners.refused(path.parent, owner)
      with _alone(path.parent):
        if (_read(path), _renewed(path)) == (owner, renewed):
          path.unlink(missing_ok=True)
  except OSError as error:
    raise workdir_lib.unusable(path.parent, error) from error


def _create(path: pathlib.Path, owner: owners.Owner) -> bool:
  """Writes the file, unless it is there."""
  try:
    with open(path, 'x', encoding='utf-8') as file:
      file.write(json.dumps(owner) + '\n')
  except FileExistsError:
    return False
  except OSError:  # the disk is full: an empty lock would be nobody's
    path.unlink(missing_ok=True)
    raise
  return True


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Inside, no other process changes the lock, if the system can do that."""
  number = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):
      fcntl.flock(number, fcntl.LOCK_EX)
    yield
  finally:
    os.close(number)


def _is_renewed(path: pathlib.Path, owner: owners.Owner, renewed: float
               ) -> bool:
  """Watches a lock for a while: whether its owner, elsewhere, still lives."""
  terminal.say(f'{path} is of {owners.name(owner)}: looking for '
               f'{_WATCH_SECONDS:.0f} s whether it still runs')
  until = time.monotonic() + _WATCH_SECONDS
  while time.monotonic() < until:
    time.sleep(.5)
    interrupts.check()
    if (_read(path), _renewed(path)) != (owner, renewed):
      return path.exists()
  return False


def _renew(path: pathlib.Path, owner: owners.Owner, ended: threading.Event
          ) -> None:
  """Shows others that this process lives; ends it if they took it for dead."""
  while not ended.wait(_RENEW_SECONDS):
    try:
      if (other := _read(path)) not in (owner, {}):
        owners.end_as_dead(path, other)
      os.utime(path)
    except OSError:
      pass  # removed, or a file system that is away for a while


def _read(path: pathlib.Path) -> owners.Owner:
  try:
    return owners.read(path.read_bytes())
  except OSError:
    return {}


def _renewed(path: pathlib.Path) -> int | None:
  """When the lock was renewed; opened, since network file systems keep old
  answers for a while otherwise.
  """
  try:
    with open(path, 'rb') as file:
      return os.fstat(file.fileno()).st_mtime_ns
  except OSError:
    return None
