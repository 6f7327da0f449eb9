"""Checkpoints of a TrainState: saved in the background, verified when read.

A checkpoint is a directory `<step>` of Orbax items: `params`, `ref` if there is
one, and `rest` (every other leaf), each a flat dictionary from a leaf's path to
its array, and `manifest`, which says what must be found in them. Orbax commits
them together, so that what a kill leaves of a save is never taken for one.

Damage is a missing, truncated or unreadable file, and any array whose bits are
not those that were saved, one flipped bit included.
"""

from collections.abc import Mapping
import contextlib
import pathlib
import shutil
from typing import Any

from absl import logging
import jax
import orbax.checkpoint as ocp

from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.training import digest

# What Orbax, TensorStore, JSON and UTF-8 raise for files they cannot read.
_UNREADABLE = (OSError, ValueError, KeyError, AttributeError, TypeError)

Leaves = digest.Leaves


class Damaged(Exception):
  """A checkpoint that cannot be read back as it was saved."""


class Checkpointer:
  """The checkpoints in a directory, of which the `keep` latest stay."""

  def __init__(self, directory, *, keep: int):
    self._directory = pathlib.Path(directory)
    if not self._directory.is_absolute():
      raise ValueError(
          f'checkpoint directory: expected an absolute path, received '
          f'{directory}; give an absolute --workdir')
    self._last = None  # the step saved or restored last
    self._manager = ocp.CheckpointManager(
        self._directory, options=ocp.CheckpointManagerOptions(
            create=True, cleanup_tmp_directories=True,
            preservation_policy=ocp.checkpoint_managers.LatestN(keep)))

  def save(self, step: int, state: types.TrainState):
    """Starts to save `state`, unless this step was saved or restored last.

    The arrays are copied before this returns, so that the next step may donate
    them; they are written while training continues. An error of the previous
    save is raised here.
    """
    if step == self._last:
      return
    memory.give_back()  # what the save before this one took
    leaves = digest.leaves_by_path(state)
    items = {item: ocp.args.StandardSave(part)
             for item, part in _split(leaves).items()}
    self._manager.save(step, force=True, args=ocp.args.Composite(
        manifest=ocp.args.JsonSave(digest.describe(leaves)), **items))
    self._last = step

  def restore_latest(
      self, abstract: types.TrainState
  ) -> tuple[types.TrainState, int] | None:
    """The latest good state and its step; None if none was ever saved.

    `abstract` is a TrainState of jax.ShapeDtypeStruct with shardings, which
    the arrays are restored onto. Damaged checkpoints are passed over with a
    warning and set aside as `damaged-<step>`, so that the run can save that
    step again.

    Raises:
      RuntimeError: checkpoints are there and all are damaged.
      ConfigError: a checkpoint holds other leaves, shapes or dtypes than
        `abstract`.
    """
    latest = _latest_good(
        self._manager, self._directory, self._manager.all_steps(),
        {'ref': {}} | _split(digest.leaves_by_path(abstract)))
    if latest is None:
      return None
    leaves, self._last, damaged = latest
    self._set_aside(damaged)
    return _unflatten(leaves, abstract), self._last

  def wait(self):
    """Blocks until what was saved is on disk, and raises its errors."""
    self._manager.wait_until_finished()

  def close(self):
    self._manager.close()

  def _set_aside(self, steps: list[int]):
    if not steps:
      return
    if distributed.is_main():
      for step in steps:
        target = self._directory / f'damaged-{step}'
        shutil.rmtree(target, ignore_errors=True)  # of an earlier resume
        (self._directory / str(step)).rename(target)
    distributed.wait_for_all('damaged checkpoints set aside')
    self._manager.reload()


def restore_params(path, abstract_params: types.Params, *,
                   partial: bool = False) -> types.Params:
  """Only the parameters of the latest good checkpoint under `path`.

  As `restore`.
  """
  abstract = types.TrainState(None, abstract_params, None, None, None)
  return restore(path, abstract, partial=partial).params


def restore(path, abstract: types.TrainState, *,
            partial: bool = False) -> types.TrainState:
  """The `params` and `ref` of the latest good checkpoint under `path`.

  `path` is a stage's workdir (which keeps its checkpoints in `checkpoints`), a
  directory of checkpoints, or one checkpoint. Nothing there is changed. What is
  None in `abstract` is skipped; with `partial`, saved arrays that it lacks are
  ignored instead of refused.

  Raises:
    FileNotFoundError: there is no checkpoint.
    RuntimeError, ConfigError: as `Checkpointer.restore_latest`.
  """
  path = pathlib.Path(path).resolve()
  one = path.name.isdigit() and not (path / 'checkpoints').is_dir()
  directory = path.parent if one else path
  if (path / 'checkpoints').is_dir():
    directory = path / 'checkpoints'
  if not path.is_dir():
    raise FileNotFoundError(f'no checkpoint: {path} is not a directory')
  options = ocp.CheckpointManagerOptions(
      create=False, cleanup_tmp_directories=False)
  with contextlib.closing(
      ocp.CheckpointManager(directory, options=options)) as manager:
    steps = [int(path.name)] if one else manager.all_steps()
    latest = _latest_good(manager, directory, steps,
                          _split(digest.leaves_by_path(abstract)), partial)
  if latest is None:
    raise FileNotFoundError(
        f'no checkpoint in {directory}; expected the workdir of a stage that '
        'has saved one')
  leaves, _, _ = latest
  return _unflatten(leaves, abstract)


def _latest_good(manager, directory, steps, abstract: Mapping[str, Leaves],
                 partial: bool = False):
  """(leaves, step, damaged later steps) of the latest; None without a step."""
  damaged = []
  for step in sorted(steps, reverse=True):
    try:
      leaves = _read(manager, directory / str(step), step, abstract, partial)
      return leaves, step, damaged
    except Damaged as error:
      logging.warning('Checkpoint %s is damaged and is passed over: %s',
                      directory / str(step), error)
      damaged.append(step)
  if damaged:
    raise RuntimeError(
        f'every checkpoint in {directory} is damaged (steps {damaged}, see the '
        'warnings above). Bring one back from a copy, or move the directory '
        'away to start this stage from its beginning')
  return None


def _read(manager, path, step, abstract: Mapping[str, Leaves],
          partial: bool) -> Leaves:
  """The items named in `abstract`; Damaged if they are not as saved."""
  with _Reading('its manifest: '):
    items = manager.restore(
        step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
    entries = digest.check_manifest(items.manifest)
  wanted = {name: leaf for leaves in abstract.values()
            for name, leaf in leaves.items()}
  saved = {name: entry for name, entry in entries.items()
           if _item(name) in abstract and (name in wanted or not partial)}
  digest.check_same_leaves(path, saved, wanted)
  with _Reading():
    items = manager.restore(step, args=ocp.args.Composite(
        **{item: _restore_args(leaves, partial)
           for item, leaves in abstract.items() if leaves}))
    leaves = {name: items[_item(name)][name] for name in wanted}
  for name, leaf_digest in digest.leaf_digests(leaves).items():
    if leaf_digest != saved[name]['digest']:
      raise Damaged(f'{name} is not what was saved (its digest differs)')
  return leaves


def _restore_args(leaves: Leaves, partial: bool):
  if not partial:
    return ocp.args.StandardRestore(leaves)
  return ocp.args.PyTreeRestore(
      leaves, ocp.checkpoint_utils.construct_restore_args(leaves),
      partial_restore=True)


class _Reading:
  """A context that turns what an unreadable file raises into `Damaged`.

  Orbax wraps what it met inside an array's data into a bare `Exception`, whose
  cause then tells a file's fault from a device's.
  """

  def __init__(self, what: str = ''):
    self._what = what

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    inner = error.__cause__ if kind is Exception else error
    if isinstance(inner, _UNREADABLE):
      line = str(inner).strip().partition('\n')[0]
      raise Damaged(
          f'{self._what}{type(inner).__name__}: {line[:200]}') from error


def _item(name: str) -> str:
  """The Orbax item that a leaf is in."""
  part = name.partition('.')[0]
  return part if part in ('params', 'ref') else 'rest'


def _split(leaves: Leaves) -> dict[str, Leaves]:
  """The leaves of each Orbax item."""
  items = {}
  for name, leaf in leaves.items():
    items.setdefault(_item(name), {})[name] = leaf
  return items


def _unflatten(leaves: Leaves, abstract: Any) -> Any:
  """The tree of the structure of `abstract` with these leaves."""
  names = digest.leaves_by_path(abstract)
  return jax.tree.unflatten(
      jax.tree.structure(abstract), [leaves[name] for name in names])
