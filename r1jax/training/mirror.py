"""A workdir in a bucket: a run works in a folder here, the bucket follows it.

The folder (the spool) is a workdir as any other. A thread makes the bucket what
it is, every half a minute and when a checkpoint is on disk, in such an order
that what the bucket holds at any moment is what a kill could have left in a
folder:

1. which checkpoints are whole is listed;
2. what is gone from the folder is removed, and files that have changed are
   written, in the order in which they were changed;
3. the checkpoints of that list are written, each followed by the object that
   commits it; the rows that its record names are there by then;
4. checkpoints that are gone from the folder are removed.

So a run goes on elsewhere as it would have gone on in a folder: what the bucket
has is copied, and what follows its last checkpoint is cut (history.py). The
object mirror.json names the spool that wrote last: that one is at least as new
as the bucket, and is gone on from as it is. A save waits until the checkpoint
before it is in the bucket.

Rows grow: a .jsonl file is kept in blocks (objects.block_name).
"""

from collections.abc import Iterable, Iterator
import contextlib
import hashlib
import json
import pathlib
import socket
import threading
import uuid

import jax

from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax import terminal
from r1jax.training import files
from r1jax.training import lease
from r1jax.training import lock
from r1jax.training import spools

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
  with lock.held(beside):
    folder = objects.Folder(workdir)
    mirror = Mirror(folder, spool, beside / 'state.json')
    with contextlib.ExitStack() as held:
      with mirror.explained():
        held.enter_context(lease.held(folder, mirror.id))
        held.enter_context(mirror)
      with buckets.worked_on(workdir, spool):
        yield str(spool)


def check() -> None:
  """Raises what kept the bucket from following, if anything has."""
  for mirror in _active:
    mirror.check()


def wake() -> None:
  """Lets the bucket follow now, in the background."""
  for mirror in _active:
    mirror.awake.set()


def settle() -> None:
  """Blocks until the bucket is as the folder."""
  for mirror in _active:
    mirror.settle()


class Mirror:
  """A bucket that follows a folder.

  Attributes:
    id: of the folder, among those of all machines.
    awake: set, the thread looks at the folder.
  """

  def __init__(self, folder: objects.Folder, spool: pathlib.Path,
               state: pathlib.Path):
    self._folder, self._spool, self._state = folder, spool, state
    found = files.read_json(state, {'id': str, 'sent': dict}) or {
        'id': uuid.uuid4().hex, 'sent': {}}
    self.id: str = found['id']
    self._sent = {name: spools.Sent(*sent)
                  for name, sent in found['sent'].items()}
    self._one = threading.Lock()  # of several threads one works on the bucket
    self._fault: errors.RunError | None = None
    self.awake, self._ended = threading.Event(), False

  def __enter__(self) -> None:
    """From now on the bucket follows; the lock of its workdir is held."""
    self._open()
    self._thread = threading.Thread(target=self._follow, daemon=True)
    self._thread.start()
    _active.append(self)

  def __exit__(self, kind, error, trace) -> None:
    _active.remove(self)
    self._ended = True
    self.awake.set()
    self._thread.join()
    try:
      self.settle()
      if self._sent:
        terminal.say(f'{self._folder.url} has what is in {self._spool}')
      else:  # it was refused before it began
        self._folder.remove(_MIRROR)
    except errors.RunError as problem:
      if kind is None:
        raise
      if problem is not error:
        terminal.say(f'warning: {problem}')

  def check(self) -> None:
    if self._fault is not None:
      raise self._fault

  def settle(self) -> None:
    self.check()
    with self._one, self.explained(), errors.faults(self._spool):
      self._send()

  def _follow(self) -> None:
    while not self._ended:
      self.awake.wait(_EVERY_SECONDS)
      self.awake.clear()
      try:
        if not self._ended:
          self.settle()
      except errors.RunError as problem:
        self._fault = problem
        return

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
    with errors.faults(self._spool):
      if self._is_mine() and self._is_whole():
        terminal.say(f'{self._folder.url} is worked on in {self._spool}, which '
                     'is as new')
      else:
        self._pull(listed)
    self._sent = spools.known(self._sent, listed)
    self._save()
    self._folder.write(_MIRROR, json.dumps({
        'id': self.id, 'host': socket.gethostname(),
        'folder': str(self._spool)}).encode())

  def _is_mine(self) -> bool:
    """Whether this spool has written last to the bucket."""
    content = self._folder.read(_MIRROR)
    with contextlib.suppress(ValueError, TypeError):
      return content is not None and json.loads(content)['id'] == self.id
    return False

  def _is_whole(self) -> bool:
    """Whether the spool has what the bucket had got of it, or what followed."""
    units = set(spools.units(self._spool))
    for name in [name for name, sent in self._sent.items() if sent.stat]:
      unit = objects.unit_of(name)
      if unit is None and not (self._spool / name).is_file():
        return False
      if unit is not None and not any(
          other.rpartition('/')[0] == unit.rpartition('/')[0]
          and spools.step(other) >= spools.step(unit) for other in units):
        return False
    return self._spool.is_dir()

  def _pull(self, listed: dict[str, objects.Object]) -> None:
    """Copies the run from the bucket."""
    part = self._spool.with_name(f'{self._spool.name}.part')
    files.remove(part)  # of a kill
    part.mkdir(parents=True)
    found = objects.whole(listed)
    size = sum(listed[block].size for name in found.values() for block in name)
    terminal.say(f'{self._folder.url} is worked on in {self._spool}'
                 + (f'; copying {size / 1e6:.0f} MB' if found else ''))
    objects.together(lambda name: objects.get_file(
        self._folder, found[name], part / name), found)
    if self._spool.exists():
      if self._has_more():
        self._set_aside()
      files.remove(self._spool)
    part.rename(self._spool)
    self._sent = {}
    for name, blocks in found.items():
      path = self._spool / name
      stat = spools.stat(path)
      self._sent[name] = spools.Sent(
          stat, [None] * len(blocks), spools.tail(path, stat[0])
          if name.endswith('.jsonl') else '')
      if unit := objects.unit_of(name):
        self._sent.setdefault(f'{unit}/{objects.COMMITTED}', spools.Sent())

  def _has_more(self) -> bool:
    """Whether the spool has what it has not sent."""
    return any(not self._is_sent(name) for name in spools.files(self._spool)
              ) or any(f'{unit}/{objects.COMMITTED}' not in self._sent
                       for unit in spools.units(self._spool))

  def _set_aside(self) -> None:
    """Keeps a spool with what the bucket has not got, as another run went on.
    """
    number = 1
    while (target := self._spool.with_name(
        f'{self._spool.name}.old{number}')).exists():
      number += 1
    self._spool.rename(target)
    terminal.say(f'warning: {self._folder.url} was worked on elsewhere since; '
                 f'what this machine had not written there is in {target}')

  ##############################################################################
  # To the bucket
  ##############################################################################

  def _send(self) -> None:
    """Makes the bucket what the spool is; see the module's docstring."""
    before = dict(self._sent)
    units = spools.units(self._spool)
    there = spools.files(self._spool)
    if not self._is_mine():
      raise errors.RunError(
          f'--workdir: {self._folder.url} was taken over by another process, '
          f'or its {_MIRROR} removed; what this one has is in {self._spool}')
    gone = [name for name in self._sent
            if name not in there and objects.unit_of(name) is None]
    kept = {stat[2] for stat in there.values()}  # under another name
    renamed = [name for name in gone
               if (stat := self._sent[name].stat) and stat[2] in kept]
    self._remove(set(gone).difference(renamed))
    for name in sorted(there, key=lambda name: there[name][1]):
      if not self._is_sent(name, there[name]):
        self._send_file(name)
    for unit in units:
      self._send_unit(unit)
    left = {unit for name in self._sent if (unit := objects.unit_of(name))}
    for unit in left.difference(units):
      if not (self._spool / unit).exists():
        self._remove_unit(unit)
    self._remove(renamed)
    if before != self._sent:
      self._save()

  def _is_sent(self, name: str, stat: list[int] | None = None) -> bool:
    sent = self._sent.get(name)
    with contextlib.suppress(FileNotFoundError):
      return sent is not None and sent.stat is not None and sent.stat == (
          stat or spools.stat(self._spool / name))
    return False

  def _send_unit(self, unit: str) -> None:
    """Writes a checkpoint and commits it, unless it is there."""
    commit = f'{unit}/{objects.COMMITTED}'
    there = {f'{unit}/{name}' for name in spools.files(self._spool / unit)}
    there.discard(commit)  # that of Orbax, if it has written one
    old = {name for name in self._sent if objects.unit_of(name) == unit}
    changed = [name for name in there if not self._is_sent(name)]
    if not changed and old == there | {commit}:
      return
    self._remove([commit])  # of another one of this step
    objects.together(self._send_file, changed)
    self._remove(old - there)
    if self._sent.keys() >= there and (self._spool / unit).exists():
      if (self._spool / commit).exists():
        self._send_file(commit)
      else:
        self._folder.write(commit, b'')
        self._sent[commit] = spools.Sent()
      self._save()

  def _remove_unit(self, unit: str) -> None:
    self._remove([f'{unit}/{objects.COMMITTED}'])
    self._remove([name for name in self._sent
                  if objects.unit_of(name) == unit])

  def _remove(self, names: Iterable[str]) -> None:
    for name in sorted(names):
      if name in self._sent:
        for block in reversed(self._sent[name].names(name)):
          self._folder.remove(block)
        del self._sent[name]

  def _send_file(self, name: str) -> None:
    """Writes a file; one that is gone by now is passed over."""
    path = self._spool / name
    try:
      stat = spools.stat(path)
      if name.endswith('.jsonl'):
        self._sent[name] = self._send_rows(name, path, stat)
      else:
        self._folder.put(path, name)
        self._sent[name] = spools.Sent(stat)
    except (FileNotFoundError, objects.Unreachable):
      if path.exists():
        raise

  def _send_rows(self, name: str, path: pathlib.Path, stat: list[int]
                ) -> spools.Sent:
    """Writes the blocks of a file that are new."""
    size, old = stat[0], self._sent.get(name, spools.Sent())
    count = max(1, -(-size // objects.BLOCK))
    blocks = [*old.blocks[:count], *[None] * (count - len(old.blocks))]
    for number in range(len(old.blocks) - 1, count - 1, -1):
      self._folder.remove(objects.block_name(name, number))
    grown = old.stat and old.stat[0] <= size and (
        spools.tail(path, old.stat[0]) == old.tail)
    first = old.stat[0] // objects.BLOCK if grown else 0
    with open(path, 'rb') as file:
      for number in range(first, count):
        file.seek(number * objects.BLOCK)
        content = file.read(min(objects.BLOCK, size - file.tell()))
        digest = hashlib.sha256(content).hexdigest()
        if digest != blocks[number]:
          self._folder.write(objects.block_name(name, number), content)
          blocks[number] = digest
    return spools.Sent(stat, blocks, spools.tail(path, size))

  def _save(self) -> None:
    files.write_json(self._state, {'id': self.id, 'sent': self._sent})
