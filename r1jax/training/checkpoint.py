"""Checkpoints of a TrainState: saved in the background, verified when read.

A checkpoint is a directory `<step>` of three Orbax items: `params` and `rest`
(every other leaf), each a flat dictionary from a leaf's path to its array, and
`manifest`, the shape, dtype and digest of every leaf. Orbax commits the three
together, so what a kill leaves behind of a save is never taken for one.

What is detected as damage: an uncommitted, missing, truncated or unreadable
file, and any array whose bits are not those that were saved, one flipped bit
included. The digest of a leaf with bits b_i (as u32) is the sum over i of
b_i (2i + 1) modulo 2^32: the odd weights make every single change count, and
since integer addition has no order, the devices compute it where the shards
lie and it is the same under any sharding.
"""

from collections.abc import Mapping
import json
from typing import Any
import zlib

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from r1jax import types

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}

Leaves = dict[str, Any]  # path of a leaf -> array or ShapeDtypeStruct


class Damaged(Exception):
  """A checkpoint that cannot be read back as it was saved."""


class Checkpointer:
  """Saves to and restores from `directory`, keeping the `keep` latest."""

  def __init__(self, directory, *, keep: int, every_steps: int):
    self._directory = epath.Path(directory)
    if not self._directory.is_absolute():
      raise ValueError(
          f'checkpoint directory: expected an absolute path, received '
          f'{directory}; give an absolute --workdir')
    self._every_steps = every_steps
    self._last = None  # the step saved or restored last
    self._manager = _manager(self._directory, keep=keep)

  def save(self, step: int, state: types.TrainState, *, force=False) -> bool:
    """Starts saving `state` if it is due; says whether it was.

    Due are the multiples of `every_steps`, and with `force` every step; a step
    that is already saved is not saved again. The arrays are copied before this
    returns, so that the next step may donate them; they are written while
    training goes on. An error of the previous save is raised here.
    """
    if step == self._last or not (force or step % self._every_steps == 0):
      return False
    params, rest = _split(_named(state))
    self._manager.save(step, force=True, args=ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        rest=ocp.args.StandardSave(rest),
        manifest=ocp.args.JsonSave(_manifest({**params, **rest}))))
    self._last = step
    return True

  def restore_latest(
      self, abstract: types.TrainState
  ) -> tuple[types.TrainState, int] | None:
    """Returns the latest good state and its step; None if none was ever saved.

    `abstract` is a TrainState of jax.ShapeDtypeStruct with shardings, which
    the arrays are restored onto. Damaged checkpoints are passed over with a
    warning and set aside as `damaged-<step>`, so that the run can save that
    step anew.

    Raises:
      RuntimeError: checkpoints are there and all are damaged.
      ValueError: a checkpoint holds other leaves, shapes or dtypes than
        `abstract`.
    """
    names = _named(abstract)
    params, rest = _split(names)
    found = _latest_good(self._manager, self._directory,
                         {'params': params, 'rest': rest})
    if found is None:
      return None
    leaves, step, damaged = found
    self._set_aside(damaged)
    self._last = step
    state = jax.tree.unflatten(
        jax.tree.structure(abstract), [leaves[name] for name in names])
    return state, step

  def wait(self):
    """Blocks until what was saved is on disk, and raises its errors."""
    self._manager.wait_until_finished()

  def close(self):
    self._manager.close()

  def _set_aside(self, steps: list[int]):
    if steps and jax.process_index() == 0:
      for step in steps:
        target = self._directory / f'damaged-{step}'
        if target.exists():
          target.rmtree()
        (self._directory / str(step)).rename(target)
    if steps and jax.process_count() > 1:
      multihost_utils.sync_global_devices('damaged checkpoints set aside')
    if steps:
      self._manager.reload()


def restore_params(path, abstract_params: types.Params) -> types.Params:
  """Reads only the parameters of the latest good checkpoint under `path`.

  `path` is a stage's workdir (which keeps its checkpoints in `checkpoints`), a
  directory of checkpoints, or one checkpoint. Nothing there is changed.

  Raises:
    FileNotFoundError: there is no checkpoint.
    RuntimeError, ValueError: as `Checkpointer.restore_latest`.
  """
  path = epath.Path(path).resolve()
  only = int(path.name) if path.name.isdigit() else None
  directory = path.parent if only is not None else path
  if (path / 'checkpoints').is_dir():
    directory = path / 'checkpoints'
  if not directory.is_dir():
    raise FileNotFoundError(f'no checkpoint: {path} is not a directory')
  names = _named(types.TrainState(None, abstract_params, None, None, None))
  manager = _manager(directory, read_only=True)
  found = _latest_good(manager, directory, {'params': names}, only=only)
  manager.close()
  if found is None:
    raise FileNotFoundError(
        f'no checkpoint in {directory}; expected the workdir of a stage that '
        'has saved one')
  leaves = found[0]
  return jax.tree.unflatten(
      jax.tree.structure(abstract_params), [leaves[name] for name in names])


def _manager(directory, *, keep=None, read_only=False):
  policy = None if keep is None else ocp.checkpoint_managers.LatestN(keep)
  return ocp.CheckpointManager(
      directory, options=ocp.CheckpointManagerOptions(
          preservation_policy=policy, read_only=read_only,
          create=not read_only, cleanup_tmp_directories=not read_only))


def _latest_good(manager, directory, abstract: Mapping[str, Leaves], only=None):
  """Returns (leaves, step, damaged later steps), or None without a step."""
  steps = sorted(manager.all_steps(), reverse=True)
  if only is not None:
    steps = [step for step in steps if step == only]
  damaged = []
  for step in steps:
    try:
      return _read(manager, directory / str(step), step, abstract), step, damaged
    except Damaged as error:
      logging.warning(
          'Checkpoint %s is damaged and is passed over: %s',
          directory / str(step), error)
      damaged.append(step)
  if damaged:
    raise RuntimeError(
        f'every checkpoint in {directory} is damaged (steps {damaged}, see the '
        'warnings above). Bring one back from a copy, or move the directory '
        'away to start this stage from its beginning')
  return None


def _read(manager, path, step, abstract: Mapping[str, Leaves]) -> Leaves:
  """Reads the items named in `abstract`; Damaged if they are not as saved."""
  try:
    manifest = manager.restore(
        step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
    manifest = _checked(manifest.manifest)
  except jax.errors.JaxRuntimeError:
    raise  # the device's fault, not the file's
  except Exception as error:  # Orbax raises all kinds, and a bare Exception
    raise Damaged(f'its manifest: {_brief(error)}') from error
  wanted = {name: leaf for item in abstract.values()
            for name, leaf in item.items()}
  saved = {name: entry for name, entry in manifest.items()
           if _item(name) in abstract}
  _check_same_leaves(path, saved, wanted)
  try:
    items = manager.restore(step, args=ocp.args.Composite(
        **{item: ocp.args.StandardRestore(leaves)
           for item, leaves in abstract.items()}))
  except jax.errors.JaxRuntimeError:
    raise
  except Exception as error:  # as above
    raise Damaged(_brief(error)) from error
  leaves = {name: leaf for item in abstract
            for name, leaf in items[item].items()}
  for name, digest in _digests(leaves).items():
    if digest != saved[name]['digest']:
      raise Damaged(f'{name} is not what was saved (its digest differs)')
  return leaves


def _check_same_leaves(path, saved: Leaves, wanted: Leaves):
  """Refuses a checkpoint of another model, naming the first leaf to differ."""
  def describe(leaves, name):
    if name not in leaves:
      return 'no such array'
    leaf = leaves[name]
    if isinstance(leaf, dict):
      return f'{leaf["dtype"]}{list(leaf["shape"])}'
    return f'{leaf.dtype.name}{list(leaf.shape)}'

  for name in [*wanted, *saved]:
    expected, received = describe(wanted, name), describe(saved, name)
    if expected != received:
      raise ValueError(
          f'checkpoint {path} is of another configuration: {name}: expected '
          f'{expected}, received {received}; set config.model (config.optim '
          'for opt_state, config.rl for ref) as when it was saved, or give '
          'another --workdir')


def _named(tree) -> Leaves:
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf
          for path, leaf in paths}


def _item(name: str) -> str:
  return 'params' if name.startswith('params.') else 'rest'


def _split(leaves: Leaves) -> tuple[Leaves, Leaves]:
  params = {k: v for k, v in leaves.items() if _item(k) == 'params'}
  return params, {k: v for k, v in leaves.items() if k not in params}


def _manifest(leaves: Leaves) -> dict[str, Any]:
  """Describes every leaf, with a checksum over the description itself."""
  digests = _digests(leaves)
  entries = {
      name: {'shape': list(leaf.shape), 'dtype': leaf.dtype.name,
             'digest': digests[name]} for name, leaf in leaves.items()}
  return {'leaves': entries, 'crc32': _crc32(entries)}


def _checked(manifest) -> dict[str, Any]:
  if manifest['crc32'] != _crc32(manifest['leaves']):
    raise ValueError('its checksum differs')
  return manifest['leaves']


def _crc32(entries) -> int:
  return zlib.crc32(json.dumps(entries, sort_keys=True).encode())


def _digests(leaves: Leaves) -> dict[str, int]:
  return dict(zip(leaves, np.asarray(_digest(list(leaves.values()))).tolist()))


@jax.jit
def _digest(leaves):
  """u32[n], one digest a leaf; see the module's docstring."""
  def fold(leaf):
    if leaf.dtype == jnp.bool_:
      leaf = leaf.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize])
    index, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):
      index += jax.lax.broadcasted_iota(
          jnp.uint32, bits.shape, axis) * jnp.uint32(stride % 2**32)
      stride *= bits.shape[axis]
    return jnp.sum(bits.astype(jnp.uint32) * (2 * index + 1), dtype=jnp.uint32)

  return jnp.stack([fold(leaf) for leaf in leaves])


def _brief(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}'
