"""A workdir in a bucket: a run works in a folder here, the bucket follows it.

The folder (the spool) is a workdir as any other. In passes, in the background,
every half a minute and when a checkpoint is on disk, the bucket becomes what
the folder is (remote.py). The trainer removes a checkpoint from the folder only
when the later one is in the bucket (checkpoint.py), so that a slow bucket slows
the run.

Of several processes none has a whole checkpoint: Orbax writes the part of each
to the bucket and commits it there, after the files that its record names. The
spool, of the main process, has only what is read of one apart from its arrays.
"""

from collections.abc import Callable, Iterator
import concurrent.futures
import contextlib
import os
import pathlib
import time
from typing import Any

import jax

from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax import terminal
from r1jax.parallel import distributed
from r1jax.training import lease
from r1jax.training import lock
from r1jax.training import remote as remote_lib

_EVERY_SECONDS = 30.

_active: list['Mirror'] = []  # at most one


@contextlib.contextmanager
def mirrored(workdir: str | None, *, of_stages: bool = False
            ) -> Iterator[str | None]:
  """The folder to work in, which `workdir` follows if it is in a bucket.

  A path of a file system is that folder itself. Of several processes the main
  one has the folder.

  Args:
    workdir: a path or a URL; None for a run that leaves nothing.
    of_stages: whether it has a folder for each, which read each other.

  Raises:
    ConfigError: another run works there, or the run has several processes and
      Orbax cannot write to such a bucket.
    RunError: the bucket cannot be read or written.
  """
  if workdir is None or not objects.is_bucket(workdir):
    yield workdir
    return
  several = jax.process_count() > 1
  if several and (of_stages or not workdir.startswith('gs://')):
    raise errors.ConfigError(
        '--workdir', f'{workdir}: one stage of several processes can work in '
        'gs://; a pipeline, or a run in s3://, needs a directory that all of '
        'them see: mount the bucket (gcsfuse, mountpoint-s3) or give a network '
        'file system')
  if several:  # Orbax asks TensorFlow otherwise, where that is installed
    os.environ.setdefault('EPATH_USE_TF', '0')
  spool = buckets.place('parts' if several else 'runs', workdir)
  with lock.held(_beside(spool)), contextlib.ExitStack() as held:
    distributed.in_main(lambda: held.enter_context(
        _followed(workdir, spool, several)))
    yield str(spool)


@contextlib.contextmanager
def _followed(workdir: str, spool: pathlib.Path, several: bool
             ) -> Iterator[None]:
  """Inside, the bucket follows the folder."""
  folder = objects.Folder(workdir)
  remote = remote_lib.Remote(
      folder, spool, _beside(spool) / 'sent.json', several)
  with contextlib.ExitStack() as held:
    with explained(spool):
      held.enter_context(lease.held(folder))
    held.enter_context(Mirror(workdir, spool, remote))
    if not several:  # else the spool has no model
      held.enter_context(buckets.worked_on(workdir, spool))
    yield


def _beside(spool: pathlib.Path) -> pathlib.Path:
  """The folder of what is known of a spool."""
  return spool.with_name(f'{spool.name}.mirror')


def of_orbax(checkpoints: pathlib.Path) -> str:
  """Where Orbax has the checkpoints that a folder is of."""
  if jax.process_count() > 1:
    return buckets.named(checkpoints)
  return str(checkpoints)


def follow() -> None:
  """Begins a pass if one is due; raises what the last one met."""
  for mirror in _active:
    if not mirror.is_behind():
      mirror.wait()
      if time.monotonic() - mirror.begun > _EVERY_SECONDS:
        mirror.begin()


def begin() -> None:
  """Begins a pass, after the one that runs."""
  for mirror in _active:
    mirror.begin()


def is_behind() -> bool:
  """Whether a pass that was begun has not ended."""
  return any(mirror.is_behind() for mirror in _active)


def wait() -> None:
  """Blocks until it has ended."""
  for mirror in _active:
    mirror.wait()


def settle() -> None:
  """Blocks until the bucket is as the folder now is."""
  begin()
  wait()


def precede() -> None:
  """Blocks until the files are there that a record of now names.

  Where Orbax commits a checkpoint in the bucket; else a pass does, after them.
  """
  if any(mirror.remote.several for mirror in _active):
    settle()


def take_up(checkpoint: pathlib.Path) -> None:
  """Copies what is read here of one that Orbax has written to the bucket."""
  for mirror in _active:
    mirror.do(mirror.remote.take_up, checkpoint)
  wait()


def remove(checkpoint: pathlib.Path) -> None:
  """Removes one that Orbax has written to the bucket."""
  for mirror in _active:
    mirror.do(mirror.remote.remove, checkpoint)
  wait()


class Mirror:
  """A worker that alone uses a bucket, inside a `with` block.

  Attributes:
    remote: what it works on.
    begun: when the last pass did, in seconds of time.monotonic.
  """

  def __init__(self, url: str, spool: pathlib.Path, remote: remote_lib.Remote):
    self._url, self._spool, self.remote = url, spool, remote
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._last: concurrent.futures.Future | None = None  # of what it does
    self.begun = 0.

  def __enter__(self) -> None:
    self.do(self.remote.open)
    self.begin()
    self.wait()
    _active.append(self)

  def __exit__(self, kind, error, trace) -> None:
    _active.remove(self)
    try:
      self.begin()
      self.wait()
      if self.remote.close():
        terminal.say(f'{self._url} has what is in {self._spool}')
    except errors.RunError as problem:
      if kind is None:
        raise
      if problem is not error:
        terminal.say(f'warning: {problem}')
    finally:
      self._worker.shutdown()

  def begin(self) -> None:
    self.begun = time.monotonic()
    self.do(self.remote.send)

  def do(self, work: Callable[..., None], *args: Any) -> None:
    """Lets the worker do it; what it meets ends all that follows."""
    self._last = self._worker.submit(self._after, self._last, work, *args)

  def is_behind(self) -> bool:
    return not self._last.done()

  def wait(self) -> None:
    self._last.result()

  def _after(self, before: concurrent.futures.Future | None,
             work: Callable[..., None], *args: Any) -> None:
    if before is not None:
      before.result()
    with explained(self._spool), errors.faults(self._spool):
      work(*args)


@contextlib.contextmanager
def explained(spool: pathlib.Path) -> Iterator[None]:
  """Says of a bucket that is out of reach where the run is kept."""
  try:
    yield
  except objects.Unreachable as problem:
    kept = (f'; the run is kept in {spool}: start the same command again when '
            f'the bucket is back, or go on with --workdir={spool}'
            if spool.exists() else '')
    raise errors.RunError(f'--workdir: {problem}{kept}') from problem
