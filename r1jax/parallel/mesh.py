"""The device mesh: axes data, fsdp, expert, tensor, context, in that order.

The last axes are the innermost: their devices are the nearest neighbours, as
tensor parallelism, which communicates most, wants them.
"""

from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
import numpy as np

from r1jax import config
from r1jax import config_fields

AXES = config_fields.MESH_AXES
BATCH = ('data', 'fsdp')  # the axes over which a batch is split


def make(
    sizes: Mapping[str, int],
    devices: Sequence[jax.Device] | None = None,
) -> jax.sharding.Mesh:
  """A mesh of all `devices`; an axis left out has size 1, one may be -1.

  Raises `ConfigError` naming `config.mesh.<axis>` where the sizes do not make
  up the devices.
  """
  everything = devices is None
  devices = jax.devices() if everything else list(devices)
  shape = tuple(config.mesh_sizes(sizes, len(devices)).values())
  if everything:  # ordered by the machine's own topology
    grid = mesh_utils.create_device_mesh(shape, devices)
  else:
    grid = np.asarray(devices).reshape(shape)
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(grid, AXES, axis_types=auto)


def shards(mesh: jax.sharding.Mesh) -> int:
  """Into how many parts a batch is split."""
  return int(np.prod([mesh.shape[axis] for axis in BATCH]))
