"""Digests of arrays, and the manifest that a checkpoint has of its own.

The manifest, an item of every checkpoint (checkpoint.py), says of each array
the shape, dtype and digest that must be found in it.

The digest of an array with bits b_i (as u32) is the sum over i of b_i (2i + 1)
modulo 2^32. The odd weights make every single change count, and integer
addition has no order: the devices compute it where the shards lie, and it is
the same under any sharding.
"""

from collections.abc import Mapping
import json
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}

Leaves = dict[str, Any]  # path of a leaf -> array or ShapeDtypeStruct


def leaves_by_path(tree: Any) -> Leaves:
  """The leaves of a tree by their paths, such as `params.layers.w`."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf
          for path, leaf in paths}


def describe(leaves: Leaves) -> dict[str, Any]:
  """The manifest of these leaves, with a checksum over itself."""
  digests = leaf_digests(leaves)
  entries = {
      name: {'shape': list(leaf.shape), 'dtype': leaf.dtype.name,
             'digest': digests[name]} for name, leaf in leaves.items()}
  return seal('leaves', entries)


def check_manifest(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """{leaf: its entry}; ValueError or KeyError if the manifest is damaged."""
  return unseal('leaves', manifest)


def seal(name: str, value: Any) -> dict[str, Any]:
  """{name: value} with a checksum over the value, plain data."""
  return {name: value, 'crc32': _crc32(value)}


def unseal(name: str, sealed: Mapping[str, Any]) -> Any:
  """The value that was sealed; ValueError or KeyError if it is damaged."""
  if sealed['crc32'] != _crc32(sealed[name]):
    raise ValueError('its checksum differs')
  return sealed[name]


def check_same_leaves(path: Any, saved: Mapping[str, Mapping], wanted: Leaves):
  """Refuses arrays of another model, naming the first that differs.

  Args:
    path: of the checkpoint, for the message.
    saved: entries of its manifest.
    wanted: what it is to be restored into.
  """
  received = {name: f'{entry["dtype"]}{entry["shape"]}'
              for name, entry in saved.items()}
  expected = {name: f'{leaf.dtype.name}{list(leaf.shape)}'
              for name, leaf in wanted.items()}
  for name in [*wanted, *saved]:
    if expected.get(name) != received.get(name):
      raise errors.ConfigError(
          '', f'checkpoint {path} is of another configuration: {name}: '
          'expected '
          f'{expected.get(name, "no such array")}, received '
          f'{received.get(name, "no such array")}; set config.model '
          '(config.optim for opt_state, config.rl for ref) as when it was '
          'saved, or give another directory')


def leaf_digests(leaves: Leaves) -> dict[str, int]:
  """{leaf: digest} of arrays, u32; see the module's docstring.

  Arrays in the memory of hosts come to the devices one at a time.
  """
  offloaded = [name for name, leaf in leaves.items()
               if isinstance(leaf, jax.Array)
               and leaf.sharding.memory_kind == 'pinned_host']
  here = [name for name in leaves if name not in offloaded]
  return {name: digest for names in (here, *([name] for name in offloaded))
          for name, digest in zip(names, np.asarray(_digests(
              [leaves[name] for name in names])).tolist())}


def _crc32(value: Any) -> int:
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


@jax.jit
def _digests(leaves: list[jax.Array]) -> jax.Array:
  """u32[n], one digest a leaf."""
  def digest(leaf):
    leaf = jax.device_put(leaf, jax.memory.Space.Device)
    if leaf.dtype == jnp.bool_:
      leaf = leaf.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize])
    index, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):
      index += jax.lax.broadcasted_iota(
          jnp.uint32, bits.shape, axis) * jnp.uint32(stride % 2**32)
      stride *= bits.shape[axis]
    return jnp.sum(bits.astype(jnp.uint32) * (2 * index + 1), dtype=jnp.uint32)

  return jnp.stack([digest(leaf) for leaf in leaves])
