"""The mesh of devices, and which part of an array lies on each of them.

A parameter is declared with logical names, e.g. ('embed', 'mlp'); rules such
as (('embed', 'fsdp'), ('mlp', 'tensor'), ('norm', None)) say which axis of the
mesh, axes or none each name is split over. A dimension that does not divide
over its mesh axes is an error, never a silent copy on every device. A batch is
split over `data`, `fsdp` and `expert`, row by row.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
from jax.experimental import mesh_utils
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from r1jax import config as config_lib
from r1jax import errors

Axes = tuple[str | None, ...]  # logical names of one array's dimensions
Rules = Sequence[tuple[str, str | Sequence[str] | None]]
BATCH_AXES = ('data', 'fsdp', 'expert')  # of the mesh, that split a batch


def make_mesh(
    sizes: Mapping[str, int],
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """A mesh of all `devices`; an axis left out has size 1, one may be -1.

  Raises `ConfigError` naming `config.mesh.<axis>` where the product of the
  sizes is not the number of devices.
  """
  by_topology = devices is None  # neighbours in the machine are so in the mesh
  devices = jax.devices() if by_topology else list(devices)
  shape = tuple(config_lib.mesh_sizes(sizes, len(devices)).values())
  if by_topology:
    grid = mesh_utils.create_device_mesh(shape, devices)
  else:
    grid = np.asarray(devices).reshape(shape)
  auto = (jax.sharding.AxisType.Auto,) * len(config_lib.MESH_AXES)
  return Mesh(grid, config_lib.MESH_AXES, axis_types=auto)


def batch_shards(mesh: Mesh) -> int:
  """The number of parts that a batch is split into."""
  return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def partition_spec(axes: Axes, rules: Rules, mesh: Mesh) -> PartitionSpec:
  """The mesh axes of an array with these logical axes; size-1 axes drop out.

  Raises `ConfigError` for a name without a rule, a rule with an unknown mesh
  axis, or two dimensions split over the same mesh axis.
  """
  by_name = dict(rules)
  entries, used = [], set()
  for name in axes:
    if name is not None and name not in by_name:
      raise errors.ConfigError('rules', f'no rule for the axis {name!r}'
                               + errors.nearest(name, by_name))
    mesh_axes = config_lib.axis_names(by_name.get(name))
    for axis in mesh_axes:
      if axis not in mesh.shape:
        raise errors.ConfigError('rules', f'{name!r} → {axis!r} is not a mesh '
                                 'axis' + errors.nearest(axis, mesh.shape))
    split = tuple(axis for axis in mesh_axes if mesh.shape[axis] > 1)
    if used & set(split):
      raise errors.ConfigError(
          'rules', f'an array with axes {axes} is split over '
          f'{sorted(used & set(split))} twice; expected distinct mesh axes')
    used |= set(split)
    entries.append(split[0] if len(split) == 1 else split or None)
  return PartitionSpec(*entries)


class Placement(NamedTuple):
  """A mesh and the rules that put logical axes on it; hashable."""
  mesh: Mesh
  rules: Rules  # tuples

  def partition_spec(self, axes: Axes) -> PartitionSpec:
    return partition_spec(axes, self.rules, self.mesh)

  def constrain(self, x: jax.Array, axes: Axes) -> jax.Array:
    """Inside jit: constrains `x` to the sharding of its logical axes."""
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(self.mesh, self.partition_spec(axes)))


def path_name(path) -> str:
  """The name of a leaf in a tree of parameters, e.g. 'blocks/mlp/down'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def shardings(axes_tree: Any, shapes: Any, mesh: Mesh, rules: Rules) -> Any:
  """A tree of `NamedSharding` for `shapes`, of arrays or their structs.

  `axes_tree` mirrors `shapes` with a tuple of logical names at each leaf.
  Raises `ConfigError` naming the mesh axis that a dimension does not divide
  over, and the array.
  """
  def one(path, axes, leaf):
    if len(axes) != len(leaf.shape):
      raise ValueError(f'{path_name(path)}: expected an axis name for each '
                       f'dimension of {leaf.shape}, received {axes}')
    partition = partition_spec(axes, rules, mesh)
    for size, logical, entry in zip(leaf.shape, axes, partition):
      mesh_axes = config_lib.axis_names(entry)
      parts = math.prod(mesh.shape[axis] for axis in mesh_axes)
      if size % parts:
        raise errors.expected(
            f'mesh.{mesh_axes[-1]}',
            f"a divisor of the {size} of axis '{logical}' "
            f'({path_name(path)}), or a rule that leaves it whole', parts)
    return NamedSharding(mesh, partition)

  return jax.tree_util.tree_map_with_path(
      one, axes_tree, shapes, is_leaf=lambda x: type(x) is tuple)


def abstract_arrays(shapes: Any, shardings_tree: Any) -> Any:
  """Shapes with shardings: what a checkpoint is restored into."""
  return jax.tree.map(
      lambda x, sharding: jax.ShapeDtypeStruct(
          x.shape, x.dtype, sharding=sharding),
      shapes, shardings_tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of an array that every device has whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: its rows over the batch axes, each row whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def from_host(tree: Any, mesh: Mesh) -> Any:
  """Puts a batch, which every process has whole, on the devices."""
  sharding = batch_sharding(mesh)

  def place(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(
        x.shape, sharding, lambda index: x[index])

  return jax.tree.map(place, tree)


def to_host(x: jax.Array) -> np.ndarray:
  """A batch from the devices, whole, on every process."""
  if x.is_fully_addressable:
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)


def own_rows(x: jax.Array) -> dict[int, np.ndarray]:
  """{row: its values}: the rows of a batch that belong to this process.

  A row belongs to one process only, even where several hold copies of it, as
  when an axis that does not split a batch spans hosts.
  """
  return {(shard.index[0].start or 0) + offset: row
          for shard in x.addressable_shards if shard.replica_id == 0
          for offset, row in enumerate(np.asarray(shard.data))}
