"""Checkpoints of a TrainState: saved in the background, verified when read.

A checkpoint is a directory `<step>` of Orbax items: `params`, `ref` if there is
one, and `rest` (every other leaf), each a flat dictionary from a leaf's path to
its array; `manifest`, which says what must be found in them; and `run`, which
says what the run's files were (history.py). Orbax commits them together, so
that what a kill leaves of a save is never taken for one. Its files are put on
disk before that, and again before an older checkpoint is removed: a power cut
loses a step, never the run. By then the later one is in the run's bucket, too.

Damage is a missing, truncated or unreadable file, any array whose bits are not
those that were saved, one flipped bit included, and another step than the
directory's name.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import pathlib
import re
import shutil
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from r1jax import errors
from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import roll_call
from r1jax.training import digest
from r1jax.training import files
from r1jax.training import mirror
from r1jax.training import orbax_errors

Leaves = digest.Leaves


class Damaged(errors.RunError):
  """A checkpoint that cannot be read back as it was saved."""


class Checkpointer:
  """The checkpoints in a directory, of which the `keep` latest stay.

  Attributes:
    last: the step saved or restored last; None before.
    record: what was saved beside the state that was restored or saved last;
      None of an earlier version, or if nothing was.
  """

  def __init__(self, directory, *, keep: int):
    self._directory = pathlib.Path(directory)
    if not self._directory.is_absolute():
      raise ValueError(
          f'checkpoint directory: expected an absolute path, received '
          f'{directory}; give an absolute --workdir')
    orbax_errors.hold_back_noise()
    self.last: int | None = None
    self.record: dict[str, Any] | None = None
    self._keep = keep
    self._saving: _Saving | None = None
    with errors.faults(self._directory):
      if distributed.is_main():
        files.make_folder(self._directory)
      place = mirror.of_orbax(self._directory)
      self._manager = ocp.CheckpointManager(
          place, options=ocp.CheckpointManagerOptions(
              create=True, cleanup_tmp_directories=True,
              async_options=ocp.options.AsyncOptions(
                  post_finalization_callback=self._sync_written)))

  def save(self, step: int, state: types.TrainState,
           record: Mapping[str, Any] | None = None, *,
           replace: bool = True, then: Callable[[], None] | None = None):
    """Starts to save `state`, unless this step was saved or restored last.

    The arrays are copied before this returns, so that the next step may donate
    them; they are written while training continues.

    Args:
      step: that of the state.
      state: to be saved.
      record: plain data to be kept beside it.
      replace: whether older checkpoints go, all but those that are to be kept.
      then: is called when this one is on disk.

    Raises:
      RunError: this save, or the one before, could not be written.
    """
    if step == self.last:
      return
    self.wait()
    memory.give_back()  # what the save before this one took
    leaves = digest.leaves_by_path(state)
    items = {item: ocp.args.StandardSave(part)
             for item, part in _split(leaves).items()}
    items['manifest'] = ocp.args.JsonSave(digest.describe(leaves))
    if record is not None:
      items['run'] = ocp.args.JsonSave(digest.seal('run', record))
    self._saving = _Saving(step, replace, then)
    distributed.in_main(mirror.precede)
    with roll_call.alone(), self._writing():
      self._manager.save(step, force=True, args=ocp.args.Composite(**items))
    self.last, self.record = step, record

  def restore_latest(
      self, abstract: types.TrainState
  ) -> tuple[types.TrainState, int] | None:
    """The latest good state and its step; None if none was ever saved.

    `abstract` is a TrainState of jax.ShapeDtypeStruct with shardings, which
    the arrays are restored onto. Damaged checkpoints are passed over with a
    warning and set aside as `damaged-<step>`, so that the run can save that
    step again.

    Raises:
      RunError: checkpoints are there and all are damaged.
      ConfigError: a checkpoint holds other leaves, shapes or dtypes than
        `abstract`.
    """
    self.wait()
    wanted = {'ref': {}} | _split(digest.leaves_by_path(abstract))
    damaged = {}
    steps = distributed.in_main(lambda: files.saved_steps(self._directory))
    for step in reversed(steps):
      path = self._directory / str(step)
      try:
        leaves = _read(self._manager, path, step, wanted, partial=False)
        self.record = _read_record(self._manager, path, step)
      except Damaged as error:
        logging.warning(
            'Checkpoint %s is damaged and is passed over: %s', path, error)
        damaged[step] = error
        continue
      self.last = step
      self._set_aside(damaged)
      return _unflatten(leaves, abstract), step
    if damaged:
      raise errors.RunError(
          f'every checkpoint in {self._directory} is damaged (steps '
          f'{[*damaged]}; of the last: {next(iter(damaged.values()))}). Bring '
          'one back from a copy, or move the directory away to start this '
          'stage from its beginning')
    return None

  @roll_call.alone()
  def poll(self):
    """Ends a save that has come to its end; raises its error at once."""
    mirror.follow()
    if self._saving is None or self._manager.is_saving_in_progress():
      return
    self._put_on_disk()
    if not mirror.is_behind():
      self.wait()

  @roll_call.alone()
  def wait(self):
    """Blocks until a save is on disk, and in a bucket; removes what is too old.

    Raises:
      RunError: it could not be written, or an old one not be removed.
    """
    if self._saving is None:
      return
    self._put_on_disk()
    mirror.wait()
    done, self._saving = self._saving, None
    if done.replace and distributed.is_main():
      for step in files.saved_steps(self._directory)[:-self._keep]:
        with errors.faults(self._directory / str(step)):
          shutil.rmtree(self._directory / str(step))

  def _put_on_disk(self):
    """Blocks until a save is on disk; then a bucket begins to follow."""
    if self._saving.on_disk:
      return
    with self._writing():
      self._manager.wait_until_finished()
      if distributed.is_main():
        mirror.take_up(self._directory / str(self._saving.step))
        # Whole, and under its name, before another one goes.
        files.sync(self._directory / str(self._saving.step))
        files.sync(self._directory, within=False)
    if self._saving.then is not None:
      self._saving.then()
    self._saving = self._saving._replace(on_disk=True)
    mirror.begin()

  def close(self):
    with contextlib.closing(self._manager):
      self.wait()

  def _sync_written(self):
    """Puts on disk what Orbax has written, before it names the directory."""
    for path in self._directory.glob('[0-9]*.*'):
      files.sync(path)

  @contextlib.contextmanager
  def _writing(self):
    """Turns what the system refused to write into one line, once."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      saving, self._saving = self._saving, None
      number = orbax_errors.errno_of(error)
      if number is None and not isinstance(error, OSError):
        raise  # memory that the device lacks, or a mistake in the code
      good = files.saved_steps(self._directory)[-1:]
      stays = f'that of step {good[0]} stays' if good else 'none before it'
      path = self._directory / str(saving.step)
      raise errors.of_system(
          number, str(error).strip().partition('\n')[0][:200],
          f'checkpoint {path} could not be written ({stays})') from error

  def _set_aside(self, steps: Iterable[int]):
    if not steps:
      return
    def all_of_them():
      for step in steps:
        set_aside(self._directory / str(step))
        mirror.remove(self._directory / str(step))
    distributed.in_main(all_of_them)
    self._manager.reload()


class _Saving(NamedTuple):
  """A save on its way; the arguments of `Checkpointer.save`, and how far."""
  step: int
  replace: bool
  then: Callable[[], None] | None
  on_disk: bool = False


def set_aside(path: pathlib.Path) -> None:
  """Keeps a damaged checkpoint, if it is there, from being taken for one."""
  target = path.with_name(f'damaged-{path.name}')
  with errors.faults(path):
    if path.exists():
      files.remove(target)  # of an earlier resume
      path.rename(target)


def restore_params(path, abstract_params: types.Params, *,
                   partial: bool = False) -> types.Params:
  """Only the parameters of the latest checkpoint under `path`. As `restore`."""
  abstract = types.TrainState(None, abstract_params, None, None, None)
  return restore(path, abstract, partial=partial).params


def restore(path, abstract: types.TrainState, *,
            partial: bool = False) -> types.TrainState:
  """The `params` and `ref` of the latest checkpoint under `path`.

  `path` is a stage's workdir (which keeps its checkpoints in `checkpoints`), a
  directory of checkpoints, or one checkpoint. Nothing there is changed. What is
  None in `abstract` is skipped; with `partial`, saved arrays that it lacks are
  ignored instead of refused.

  Raises:
    FileNotFoundError: there is no checkpoint.
    Damaged: none before it takes its place, since that would be another model
      than was asked for.
    ConfigError: it is of another model.
  """
  path = pathlib.Path(path).resolve()
  one = path.name.isdigit() and not (path / 'checkpoints').is_dir()
  directory = path.parent if one else path
  if (path / 'checkpoints').is_dir():
    directory = path / 'checkpoints'
  if not path.is_dir():
    raise FileNotFoundError(f'no checkpoint: {path} is not a directory')
  orbax_errors.hold_back_noise()
  options = ocp.CheckpointManagerOptions(
      create=False, cleanup_tmp_directories=False)
  with contextlib.closing(
      ocp.CheckpointManager(directory, options=options)) as manager:
    steps = [int(path.name)] if one else files.saved_steps(directory)
    if not steps:
      raise FileNotFoundError(
          f'no checkpoint in {directory}; expected the workdir of a stage that '
          'has saved one')
    latest = directory / str(steps[-1])
    try:
      leaves = _read(manager, latest, steps[-1],
                     _split(digest.leaves_by_path(abstract)), partial)
    except Damaged as error:
      others = [step for step in files.saved_steps(directory)
                if step != steps[-1]]
      instead = f', or name {directory / str(others[-1])}' if others else ''
      raise Damaged(
          f'checkpoint {latest} is damaged: {error}. Remove it and start its '
          f'stage again, which then saves it anew{instead}') from error
  return _unflatten(leaves, abstract)


def _read(manager, path, step, abstract: Mapping[str, Leaves],
          partial: bool) -> Leaves:
  """The items named in `abstract`; Damaged if they are not as saved."""
  with _Reading(path, 'its manifest: '):
    items = manager.restore(
        step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
    entries = digest.check_manifest(items.manifest)
  abstract = {item: _as_saved(leaves, entries)
              for item, leaves in abstract.items()}
  # The digest of a whole number is that number.
  found = entries.get('step', {}).get('digest', step)
  if found != step:
    raise Damaged(f'it is of step {found}')
  wanted = {name: leaf for leaves in abstract.values()
            for name, leaf in leaves.items()}
  saved = {name: entry for name, entry in entries.items()
           if _item(name) in abstract and (name in wanted or not partial)}
  digest.check_same_leaves(path, saved, wanted)
  with _Reading(path):
    items = manager.restore(step, args=ocp.args.Composite(
        **{item: _restore_args(leaves, partial)
           for item, leaves in abstract.items() if leaves}))
    leaves = {name: items[_item(name)][name] for name in wanted}
  for name, leaf_digest in digest.leaf_digests(leaves).items():
    if leaf_digest != saved[name]['digest']:
      raise Damaged(f'{name} is not what was saved (its digest differs)')
  return leaves


def _read_record(manager, path, step) -> dict[str, Any] | None:
  """The item `run`; Damaged if it is not as saved, None if there is none."""
  if not (manager.directory / str(step) / 'run').is_dir():
    return None  # saved by an earlier version
  with _Reading(path, 'its record: '):
    items = manager.restore(
        step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
    return digest.unseal('run', items.run)


def _restore_args(leaves: Leaves, partial: bool):
  if not partial:
    return ocp.args.StandardRestore(leaves)
  return ocp.args.PyTreeRestore(
      leaves, ocp.checkpoint_utils.construct_restore_args(leaves),
      partial_restore=True)


class _Reading(contextlib.AbstractContextManager):
  """A context that turns what an unreadable file raises into `Damaged`.

  Not what the machine refuses, as when no more files may be open: nothing is
  known of the checkpoint then. Orbax wraps what it met inside an array's data
  into a bare `Exception`, whose cause then tells a file's fault from a
  device's.
  """

  def __init__(self, path: pathlib.Path, what: str = ''):
    self._path, self._what = path, what

  def __exit__(self, kind, error, trace):
    inner = error.__cause__ if kind is Exception else error
    if not isinstance(inner, orbax_errors.UNREADABLE):
      return
    line = str(inner).strip().partition('\n')[0][:200]
    if (number := orbax_errors.errno_of(error)) in errors.REMEDIES:
      raise errors.of_system(
          number, line, f'checkpoint {self._path} cannot be read') from error
    raise Damaged(f'{self._what}{type(inner).__name__}: {line}') from error


def _item(name: str) -> str:
  """The Orbax item that a leaf is in."""
  part = name.partition('.')[0]
  return part if part in ('params', 'ref') else 'rest'


def _as_saved(leaves: Leaves, entries: Mapping[str, Mapping]) -> Leaves:
  """`leaves`, but moments in bfloat16 where an earlier version kept them so."""
  return {
      name: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16,
                                 sharding=leaf.sharding)
      if (re.search(r'(^|\.)opt_state\.', name) and leaf.dtype == jnp.float32
          and entries.get(name, {}).get('dtype') == 'bfloat16') else leaf
      for name, leaf in leaves.items()}


def _split(leaves: Leaves) -> dict[str, Leaves]:
  """The leaves of each Orbax item."""
  items = {}
  for name, leaf in leaves.items():
    items.setdefault(_item(name), {})[name] = leaf
  return items


def _unflatten(leaves: Leaves, abstract: Any) -> Any:
  """The tree of the structure and dtypes of `abstract` with these leaves."""
  return jax.tree.unflatten(
      jax.tree.structure(abstract),
      [leaves[name].astype(leaf.dtype)
       for name, leaf in digest.leaves_by_path(abstract).items()])
