"""What a bucket has of a run, and how it becomes what a folder has (mirror.py).

A pass (`Remote.send`) leaves the bucket at any moment as a kill could leave a
folder:

1. files that are gone are removed, but those that have another name now;
2. files are written that have changed, in the order in which they changed: the
   rows that the record of a checkpoint names are there before it is;
3. checkpoints are written, each followed by the object that commits it;
4. what has another name is removed, and a checkpoint that is gone, if a later
   one of its run is committed.

So a run goes on elsewhere as in a folder: what is committed is copied, and what
follows its last checkpoint is cut (history.py).

The object mirror.json names the spool that wrote last: that one has all of the
bucket and more, and is gone on from as it is, unless someone changed either.
"""

from collections.abc import Collection, Iterable, Mapping
import contextlib
import hashlib
import json
import pathlib
import socket
import uuid

from r1jax import errors
from r1jax import objects
from r1jax import terminal
from r1jax.training import files
from r1jax.training import lease
from r1jax.training import spool as spool_lib

_MIRROR = 'mirror.json'
_OURS = (lease.NAME, _MIRROR)  # objects that are no files of the run
_READ_HERE = ('manifest/metadata', 'run/metadata')  # by history.py, record.py


class Remote:
  """The objects of a run, and which of them are as the spool's files."""

  def __init__(self, folder: objects.Folder, spool: pathlib.Path,
               state: pathlib.Path, several: bool = False):
    """As the spool's last process has noted it.

    Args:
      folder: of the bucket.
      spool: the folder of this machine.
      state: the file that says what has been sent.
      several: whether the run has several processes, whose checkpoints Orbax
        writes to the bucket; the spool has what `_READ_HERE` names of them.
    """
    self._folder, self._spool, self._state = folder, spool, state
    self.several = several
    found = files.read_json(state, {'id': str, 'sent': dict}) or {
        'id': uuid.uuid4().hex, 'sent': {}}
    self._id = found['id']  # of the folder, among those of all machines
    self._sent = {name: spool_lib.Sent(*sent)
                  for name, sent in found['sent'].items()}

  def close(self) -> bool:
    """Whether the run has begun; where not, the bucket is left as it was."""
    if not self._sent:
      self._folder.remove(_MIRROR)
    return bool(self._sent)

  ##############################################################################
  # From the bucket
  ##############################################################################

  def open(self) -> None:
    """Makes the spool the run that the bucket holds, and its own."""
    listed = {name: found for name, found in self._folder.list().items()
              if _is_of_run(name)}
    if self.several:
      files.remove(self._spool / 'checkpoints')
    if self._is_mine() and self._is_whole(listed):
      terminal.say(f'{self._folder.url} is worked on in {self._spool}, which '
                   'is as new')
    else:
      self._pull(listed)
    self._sent = spool_lib.known(self._sent, listed)
    if self.several:
      for commit in filter(objects.is_commit, listed):
        self.take_up(self._spool / objects.unit_of(commit))
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
    found = {name: blocks for name, blocks in objects.whole(listed).items()
             if not self.several or not objects.unit_of(name)}
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
  # Checkpoints that Orbax writes to the bucket
  ##############################################################################

  def take_up(self, checkpoint: pathlib.Path) -> None:
    """Copies what is read here of one that is committed, and notes the rest."""
    if self.several:
      unit = checkpoint.relative_to(self._spool).as_posix()
      names = objects.Folder(f'{self._folder.url}/{unit}').list()
      self._sent |= {f'{unit}/{name}': spool_lib.Sent() for name in names}
      for name in names.keys() & set(_READ_HERE):
        self._folder.get(f'{unit}/{name}', checkpoint / name)

  def remove(self, checkpoint: pathlib.Path) -> None:
    if self.several:
      self._remove_unit(checkpoint.relative_to(self._spool).as_posix())

  ##############################################################################
  # To the bucket
  ##############################################################################

  def send(self) -> None:
    """A pass."""
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
    for unit, names in units.items() if not self.several else ():
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
        self._remove_unit(unit)

  def _remove_unit(self, unit: str) -> None:
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


def _is_of_run(name: str) -> bool:
  """Whether an object is a file of the run, or a block of one.

  What a person has put beside the checkpoints is none.
  """
  unit = objects.unit_of(name)
  return bool(name) and name not in _OURS and (
      unit.rpartition('/')[2].isdecimal() if unit else
      'checkpoints' not in name.split('/')[:-1])


def _followed(unit: str, units: Iterable[str]) -> bool:
  """Whether a later checkpoint of its run is among others."""
  folder, _, step = unit.rpartition('/')
  return any(other.rpartition('/')[0] == folder
             and int(other.rpartition('/')[2]) > int(step) for other in units)
