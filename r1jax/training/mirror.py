"""A workdir in a bucket: a run works in a folder here, the bucket follows it.

The folder (the spool) is a workdir as any other. In passes, in the background,
every half a minute and when a checkpoint is on disk, the bucket becomes what
the folder is, in an order that leaves it at any moment as a kill could leave a
folder:

1. files that are gone are removed, but those that have another name now;
2. files are written that have changed, in the order in which they changed: the
   rows that the record of a checkpoint names are there before it is;
3. checkpoints are written, each followed by the object that commits it;
4. what has another name is removed, and a checkpoint that is gone, if a later
   one of its run is committed.

The trainer removes a checkpoint from the folder only when the later one is in
the bucket (checkpoint.py), so that a slow bucket slows the run. A run goes on
elsewhere as in a folder: what is committed is copied, and what follows its last
checkpoint is cut (history.py).

The object mirror.json names the spool that wrote last: that one has all of the
bucket and more, and is gone on from as it is, unless someone changed either.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import concurrent.futures
import contextlib
import hashlib
import json
import pathlib
import socket
import time
import uuid

import jax

from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax import terminal
from r1jax.training import files
from r1jax.training import lease
from r1jax.training import lock
from r1jax.training import spool as spool_lib

_MIRROR = 'mirror.json'
_OURS = (lease.NAME, _MIRROR)  # objects that are no files of the run
_EVERY_SECONDS = 30.

_active: list['Mirror'] = []  # at most one


@contextlib.contextmanager
def mirrored(workdir: str | None) -> Iterator[str | None]:
  """The folder to work in, which `workdir` follows if it is in a bucket.

  A path of a file system is that folder itself.

  Raises:
    ConfigError: another process works there, or the run has several.
    RunError: the bucket cannot be read or written.
  """
  if workdir is None or not objects.is_bucket(workdir):
    yield workdir
    return
  if jax.process_count() > 1:
    raise errors.ConfigError(
        '--workdir', f'{workdir}: a run of several processes works in a '
        'directory that all of them see; mount the bucket (gcsfuse, '
        'mountpoint-s3) or give a network file system')
  spool = buckets.place('runs', workdir)
  beside = spool.with_name(f'{spool.name}.mirror')
  with contextlib.ExitStack() as held:
    held.enter_context(lock.held(beside))
    folder = objects.Folder(workdir)
    mirror = Mirror(folder, spool, beside / 'sent.json')
    with mirror.explained():
      held.enter_context(lease.held(folder))
    held.enter_context(mirror)
    held.enter_context(buckets.worked_on(workdir, spool))
    yield str(spool)


def follow() -> None:
  """Begins a pass if one is due; raises what the last one met."""
  for mirror in _active:
    mirror.follow()


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


class Mirror:
  """A bucket that follows a folder, inside a `with` block."""

  def __init__(self, folder: objects.Folder, spool: pathlib.Path,
               state: pathlib.Path):
    self._folder, self._spool, self._state = folder, spool, state
    found = files.read_json(state, {'id': str, 'sent': dict}) or {
        'id': uuid.uuid4().hex, 'sent': {}}
    self._id = found['id']  # of the folder, among those of all machines
    self._sent = {name: spool_lib.Sent(*sent)
                  for name, sent in found['sent'].items()}
    self._worker = concurrent.futures.ThreadPoolExecutor(1)
    self._last: concurrent.futures.Future | None = None  # pass
    self._begun = 0.

  def __enter__(self) -> None:
    with self.explained(), errors.faults(self._spool):
      self._open()
    self.begin()
    self.wait()
    _active.append(self)

  def __exit__(self, kind, error, trace) -> None:
    _active.remove(self)
    try:
      self.begin()
      self.wait()
      if self._sent:
        terminal.say(f'{self._folder.url} has what is in {self._spool}')
      else:  # it was refused before it began
        self._folder.remove(_MIRROR)
    except errors.RunError as problem:
      if kind is None:
        raise
      if problem is not error:
        terminal.say(f'warning: {problem}')

  def follow(self) -> None:
    if not self.is_behind():
      self.wait()
      if time.monotonic() - self._begun > _EVERY_SECONDS:
        self.begin()

  def begin(self) -> None:
    before, self._begun = self._last, time.monotonic()
    self._last = self._worker.submit(self._follow_once, before)

  def is_behind(self) -> bool:
    return not self._last.done()

  def wait(self) -> None:
    self._last.result()

  def _follow_once(self, before: concurrent.futures.Future | None) -> None:
    if before is not None:
      before.result()  # what it met ends all
    with self.explained(), errors.faults(self._spool):
      self._send()

  @contextlib.contextmanager
  def explained(self) -> Iterator[None]:
    """Says of a bucket that is out of reach where the run is kept."""
    try:
      yield
    except objects.Unreachable as problem:
      kept = (f'; the run is kept in {self._spool}: start the same command '
              'again when the bucket is back, or go on with '
              f'--workdir={self._spool}' if self._spool.exists() else '')
      raise errors.RunError(f'--workdir: {problem}{kept}') from problem

  ##############################################################################
  # From the bucket
  ##############################################################################

  def _open(self) -> None:
    """Makes the spool the run that the bucket holds, and its own."""
    listed = {name: found for name, found in self._folder.list().items()
              if name and name not in _OURS}
    if self._is_mine() and self._is_whole(listed):
      terminal.say(f'{self._folder.url} is worked on in {self._spool}, which '
                   'is as new')
    else:
      self._pull(listed)
    self._sent = spool_lib.known(self._sent, listed)
    self._note()
    self._folder.write(_MIRROR, json.dumps({
        'id': self._id, 'host': socket.gethostname(),
        'folder': str(self._spool)}).encode())

  def _is_mine(self) -> bool:
    """Whether this spool has written last to the bucket."""
    content = self._folder.read(_MIRROR)
    with contextlib.suppress(ValueError, TypeError):
      return content is not None and json.loads(content)['id'] == self._id
    return False

  def _is_whole(self, listed: Mapping[str, objects.Object]) -> bool:
    """Whether nobody has removed what was sent, from the bucket or the spool.

    A checkpoint may have made place for a later one.
    """
    there = spool_lib.of_checkpoints(self._spool)
    return self._spool.is_dir() and all(
        listed.keys() >= set(sent.names(name)) and (
            unit in there or _followed(unit, there)
            if (unit := objects.unit_of(name)) else
            (self._spool / name).is_file())
        for name, sent in self._sent.items() if sent.stat)

  def _pull(self, listed: Mapping[str, objects.Object]) -> None:
    """Makes the spool of what the bucket has."""
    part = self._spool.with_name(f'{self._spool.name}.part')
    files.remove(part)  # of a kill
    part.mkdir(parents=True)
    found = objects.whole(listed)
    size = sum(listed[block].size for name in found.values() for block in name)
    terminal.say(f'{self._folder.url} is worked on in {self._spool}'
                 + (f'; copying {size / 1e6:.0f} MB' if found else ''))
    objects.together(lambda name: objects.get_file(
        self._folder, found[name], part / name), found)
    self._set_aside()
    part.rename(self._spool)
    self._sent = {name: spool_lib.as_sent(self._spool / name)
                  for name in found}
    self._sent |= {name: spool_lib.Sent() for name in listed
                   if objects.is_commit(name) and name not in found}

  def _set_aside(self) -> None:
    """Makes place for a copy; what the bucket has not got of the spool stays.
    """
    if not self._spool.exists():
      return
    if not self._changed(spool_lib.of_files(self._spool)) and all(
        self._has(*unit)
        for unit in spool_lib.of_checkpoints(self._spool).items()):
      files.remove(self._spool)
      return
    number = 1
    while (target := self._spool.with_name(
        f'{self._spool.name}.old{number}')).exists():
      number += 1
    self._spool.rename(target)
    terminal.say(f'warning: {self._folder.url} was changed since by another '
                 'machine or a person; what this machine had not written there '
                 f'is in {target}')

  ##############################################################################
  # To the bucket
  ##############################################################################

  def _send(self) -> None:
    """A pass; see the module's docstring."""
    units = spool_lib.of_checkpoints(self._spool)
    there = spool_lib.of_files(self._spool)
    if not self._is_mine():
      raise errors.RunError(
          f'--workdir: {self._folder.url} was taken over by another process, '
          f'or its {_MIRROR} removed; what this one has is in {self._spool}')
    gone = {name for name in self._sent
            if name not in there and not objects.unit_of(name)}
    renamed = {name for name in gone if self._sent[name].stat in there.values()}
    self._remove(gone - renamed)
    changed = self._changed(there)
    for name in sorted(changed, key=lambda name: there[name][1]):
      self._send_file(name)
    for unit, names in units.items():
      self._send_unit(unit, names)
    self._remove(renamed)
    self._remove_units(units)
    if changed:
      self._note()

  def _changed(self, there: Mapping[str, spool_lib.Stat]) -> list[str]:
    """The files that the bucket has not as they now are."""
    return [name for name, stat in there.items()
            if self._sent.get(name, spool_lib.Sent()).stat != stat]

  def _has(self, unit: str, there: Mapping[str, spool_lib.Stat]) -> bool:
    """Whether the bucket has a checkpoint of these files."""
    return not self._changed(there) and self._names(unit) == there.keys() | {
        objects.commit_of(unit)}

  def _names(self, unit: str) -> set[str]:
    """The objects of a checkpoint."""
    return {name for name in self._sent if objects.unit_of(name) == unit}

  def _send_unit(self, unit: str, there: Mapping[str, spool_lib.Stat]) -> None:
    """Writes a checkpoint and commits it, unless it is there."""
    if self._has(unit, there):
      return
    commit = objects.commit_of(unit)
    self._remove([commit])  # of another one of this step
    objects.together(self._send_file, self._changed(there))
    self._remove(self._names(unit).difference(there))
    if spool_lib.of_checkpoints(self._spool).get(unit) == there:
      if (self._spool / commit).exists():
        self._send_file(commit)
      else:
        self._folder.write(commit, b'')
        self._sent[commit] = spool_lib.Sent()
      self._note()

  def _remove_units(self, there: Collection[str]) -> None:
    """Removes checkpoints that are gone, but none that a run goes on from."""
    units = {unit for name in self._sent if (unit := objects.unit_of(name))}
    committed = {unit for unit in units
                 if objects.commit_of(unit) in self._sent}
    for unit in units.difference(there):
      stage = (self._spool / unit).parents[1]
      if unit not in committed or _followed(unit, committed) or (
          not stage.exists()):
        self._remove([objects.commit_of(unit)])
        self._remove(self._names(unit))

  def _remove(self, names: Iterable[str]) -> None:
    """Removes objects; first that they are there is no longer noted."""
    blocks = [block for name in sorted(names) if name in self._sent
              for block in reversed(self._sent.pop(name).names(name))]
    if blocks:
      self._note()
    for block in blocks:
      self._folder.remove(block)

  def _send_file(self, name: str) -> None:
    """Writes a file; one that is gone by now is passed over."""
    path = self._spool / name
    try:
      if name.endswith('.jsonl'):
        self._send_rows(name, path)
      else:
        stat = spool_lib.stat(path)
        self._folder.put(path, name)
        self._sent[name] = spool_lib.Sent(stat)
    except (FileNotFoundError, objects.Unreachable):
      if path.exists():
        raise

  def _send_rows(self, name: str, path: pathlib.Path) -> None:
    """Writes the blocks of a file that are new, after those that are cut."""
    stat, old = spool_lib.stat(path), self._sent.get(name, spool_lib.Sent())
    blocks = spool_lib.blocks(stat[0])
    kept = old.blocks[:len(blocks)]
    self._sent[name] = spool_lib.Sent(None, kept)
    if kept != old.blocks:
      self._note()
    for number in reversed(range(len(blocks), len(old.blocks))):
      self._folder.remove(objects.block_name(name, number))
    first = len(kept) - 1 if spool_lib.has_grown(path, old) else 0
    now = kept[:first]
    for number in range(first, len(blocks)):
      content = spool_lib.content(path, *blocks[number])
      now.append(hashlib.sha256(content).hexdigest())
      if now[-1:] != kept[number:number + 1]:
        self._folder.write(objects.block_name(name, number), content)
    self._sent[name] = spool_lib.Sent(stat, now)

  def _note(self) -> None:
    files.write_json(self._state, {'id': self._id, 'sent': self._sent})


def _followed(unit: str, units: Iterable[str]) -> bool:
  """Whether a later checkpoint of its run is among others."""
  folder, _, step = unit.rpartition('/')
  return any(other.rpartition('/')[0] == folder
             and int(other.rpartition('/')[2]) > int(step) for other in units)
