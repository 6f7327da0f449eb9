"""The mesh of devices, and which part of an array lies on each of them.

A parameter is declared with logical names, e.g. ('embed', 'mlp'); rules such
as (('embed', 'fsdp'), ('mlp', 'tensor'), ('norm', None)) say which axis of the
mesh, axes or none each name is split over. A dimension that does not divide
over its mesh axes is an error, never a silent copy on every device. A batch is
split over `data`, `fsdp` and `expert`, row by row; while responses are sampled
rules may split it over more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
from jax.experimental import mesh_utils
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from r1jax import config as config_lib
from r1jax import errors
from r1jax.types import Prompts

Axes = tuple[str | None, ...]  # logical names of one array's dimensions
Rules = Sequence[tuple[str, str | Sequence[str] | None]]
BATCH_AXES = config_lib.BATCH_AXES


def make_mesh(
    sizes: Mapping[str, int],
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """A mesh of all `devices`; an axis left out has size 1, one may be -1.

  Raises `ConfigError` naming `config.mesh.<axis>` where the product of the
  sizes is not the number of devices.
  """
  given, devices = devices, list(jax.devices() if devices is None else devices)
  # Neighbours in the machine are so in the mesh.
  by_topology = given is None or devices[0].platform == 'tpu'
  shape = tuple(config_lib.mesh_sizes(sizes, len(devices)).values())
  if by_topology:
    # Axes of the torus are split where the mesh has other sizes.
    grid = mesh_utils.create_device_mesh(
        shape, devices, allow_split_physical_axes=True)
  else:
    grid = np.asarray(devices).reshape(shape)
  auto = (jax.sharding.AxisType.Auto,) * len(config_lib.MESH_AXES)
  return Mesh(grid, config_lib.MESH_AXES, axis_types=auto)


def batch_shards(mesh: Mesh) -> int:
  """The number of parts that a batch is split into, but while sampling."""
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
  given: Rules | None = None  # of parameters, if they come placed otherwise

  @property
  def batch_shards(self) -> int:
    """The number of parts that a batch divides into, by these rules or none."""
    batch, = self.partition_spec(('batch',))
    return self.size({*BATCH_AXES, *config_lib.axis_names(batch)})

  def partition_spec(self, axes: Axes) -> PartitionSpec:
    return partition_spec(axes, self.rules, self.mesh)

  def constrain(self, x: jax.Array, axes: Axes) -> jax.Array:
    """Inside jit: constrains `x` to the sharding of its logical axes.

    Raises `ConfigError` where it does not divide: XLA would fill it up, and has
    been seen to return wrong gradients then. Inside shard_map: over the mesh
    axes that it leaves to the compiler.
    """
    manual = jax.sharding.get_abstract_mesh().manual_axes
    entries = [
        None if size == 1 else tuple(
            axis for axis in config_lib.axis_names(entry) if axis not in manual)
        for size, entry in zip(x.shape, self.partition_spec(axes))]
    partition = PartitionSpec(*(entry or None for entry in entries))
    _check_divisible('activations', x.shape, axes, partition, self.mesh)
    return jax.lax.with_sharding_constraint(
        x, partition if manual else NamedSharding(self.mesh, partition))

  def whole(self, x: jax.Array, axes: Axes) -> jax.Array:
    """Inside jit: `x`, whole over the mesh axes that split a batch."""
    batch = {name for entry in self.partition_spec(('batch',))
             for name in config_lib.axis_names(entry)}
    entries = (
        tuple(x for x in config_lib.axis_names(entry) if x not in batch)
        for entry in self.partition_spec(axes))
    return jax.lax.with_sharding_constraint(x, NamedSharding(
        self.mesh, PartitionSpec(*(entry or None for entry in entries))))

  def take(self, params: Any, axes_tree: Any) -> Any:
    """Inside jit: parameters as `given` rules place them, placed by `rules`.

    First each part is cut as finely as it will be, then it is gathered. At once
    XLA may have every device gather an array whole, to cut it then.
    """
    new = shardings(axes_tree, params, self.mesh, self.rules)
    if self.given is not None:
      old = shardings(axes_tree, params, self.mesh, self.given)
      params = jax.lax.with_sharding_constraint(params, jax.tree.map(
          lambda old, new: NamedSharding(self.mesh, finer(old.spec, new.spec)),
          old, new))
    return jax.lax.with_sharding_constraint(params, new)

  def split(self, tree: Any) -> Any:
    """Inside jit: constrains the rows of a batch to their devices."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(
        self.mesh, self.partition_spec(('batch',))))

  def row_parts(self, rows: int, columns: int = 0) -> 'RowParts | None':
    """How rows of tokens lie on the mesh; None where every device has all."""
    batch, length = self.partition_spec(('batch', 'length'))
    if rows % self.size(batch):
      batch = None  # few prompts may not divide: each device then has all
    if columns % self.size(length):
      length = None  # as the one token of a decoding step
    parts = RowParts(self.mesh, batch, length, self.size(length))
    return parts if batch or length else None

  def size(self, entry: str | Iterable[str] | None) -> int:
    """The number of parts along an entry of a PartitionSpec."""
    return math.prod(self.mesh.shape[axis]
                     for axis in config_lib.axis_names(entry))


def device(place: Placement | None) -> jax.Device:
  """One of those that will compute; they need not be this machine's."""
  return jax.devices()[0] if place is None else place.mesh.devices.flat[0]


class RowParts(NamedTuple):
  """The split of arrays [B, T, ...] of tokens over devices."""
  mesh: Mesh
  batch: str | tuple[str, ...] | None  # mesh axes of B
  over: str | tuple[str, ...] | None  # mesh axes of T
  length: int  # parts of T

  def on_each(self, function: Callable[[Any, Any], Any]
              ) -> Callable[[Any, Any], Any]:
    """`function` of (parameters, rows), on each device's part of the rows.

    Parameters are whole along the axes of the rows; along others the compiler
    splits them.
    """
    rows = PartitionSpec(self.batch, self.over)
    axes = config_lib.axis_names(self.batch) + config_lib.axis_names(self.over)
    return jax.shard_map(
        function, mesh=self.mesh, axis_names={*axes},
        in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)


def _check_divisible(name: str, shape: Sequence[int], axes: Axes,
                     partition: PartitionSpec, mesh: Mesh) -> None:
  """Raises `ConfigError` where a dimension does not divide over the mesh."""
  for size, logical, entry in zip(shape, axes, partition):
    mesh_axes = config_lib.axis_names(entry)
    parts = math.prod(mesh.shape[axis] for axis in mesh_axes)
    if size % parts:
      raise errors.expected(
          f'mesh.{mesh_axes[-1]}', f"a divisor of the {size} of axis "
          f"'{logical}' ({name}), or a rule that leaves it whole", parts)


def finer(old: PartitionSpec, new: PartitionSpec) -> PartitionSpec:
  """`old`, with those axes of `new` that only cut its parts further.

  Example: ('expert', 'fsdp') and (('expert', 'context'), None) make
  (('expert', 'context'), 'fsdp').
  """
  names = config_lib.axis_names
  used = {axis for entry in old for axis in names(entry)}

  def one(old, new):
    old, new = names(old), names(new)
    cuts = new[:len(old)] == old and used.isdisjoint(new[len(old):])
    return (new if cuts else old) or None

  return PartitionSpec(*map(one, old, new))


def repeat(prompts: Prompts, responses: int, place: Placement | None,
           parts: int = 1) -> Prompts:
  """The prompts of the rows of a forward pass.

  A row is a prompt and some of the responses to it, in each row as many. There
  are as few rows as divide over the devices that split a batch, `parts` of them
  on each: as many as prompts, where these divide. Example: 2 prompts with 16
  responses each, on 8 devices, are 8 rows of 4 responses; each prompt is there,
  and is computed, 4 times.

  Args:
    prompts: B prompts.
    responses: N = B G to them, in the order of the prompts.
    place: the mesh, and the rule for 'batch'.
    parts: micro-batches, each with as many rows of every device.

  Raises:
    ValueError: the responses do not divide.
  """
  count = prompts.length.shape[0]
  shards = 1 if place is None else place.batch_shards
  times = shards * parts // math.gcd(shards * parts, count)
  if responses // count % times:
    raise ValueError(
        f'{count} prompts of {responses // count} responses each do not divide '
        f'into {parts} micro-batches over {shards} parts of the mesh, of the '
        "axes in the rule for 'batch'")
  repeated = jax.tree.map(lambda x: jnp.repeat(x, times, 0), prompts)
  return repeated if place is None else place.split(repeated)


def by_device(place: Placement | None, x: Any) -> Any:
  """[N, ...] -> [devices that split a batch, N / devices, ...]."""
  return x.reshape(
      1 if place is None else place.batch_shards, -1, *x.shape[1:])


def pick(place: Placement | None, tree: Any, index: jax.Array) -> Any:
  """Rows of a batch, i32[N] of them, each by its number on its device.

  Nothing travels between devices.
  """
  rows = by_device(place, index)
  each = jax.vmap(lambda x, i: x.at[i].get(mode='clip'))
  return jax.tree.map(lambda x: each(by_device(place, x), rows).reshape(
      -1, *x.shape[1:]), tree)


def filled(prompts: int, group: int, place: Placement) -> int:
  """The least number of prompts, `prompts` or more, whose groups divide."""
  shards = place.batch_shards
  least = shards // math.gcd(shards, group)
  return -(-prompts // least) * least


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
    _check_divisible(path_name(path), leaf.shape, axes, partition, mesh)
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


def prompt_sharding(mesh: Mesh, prompts: int) -> NamedSharding:
  """That of a batch; where prompts do not divide, every device has them all."""
  divide = prompts % batch_shards(mesh) == 0
  return batch_sharding(mesh) if divide else replicated(mesh)


def from_host(tree: Any, mesh: Mesh, uneven: bool = False) -> Any:
  """Puts a batch, which every process has whole, on the devices.

  Its rows are split over the batch axes. With `uneven` they need not divide:
  `prompt_sharding`. That is for prompts, which are small.
  """
  def place(x):
    x = np.asarray(x)
    where = prompt_sharding(mesh, len(x)) if uneven else batch_sharding(mesh)
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

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
