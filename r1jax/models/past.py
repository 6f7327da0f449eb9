"""Writes the keys and values of new tokens into the past of a cache.

In each layer, before it is read; or, where each row has a place of its own for
its token and the device is a TPU, after all layers. Of a write in each layer
XLA makes a loop over rows there, and lays the cache out for it: one token
together, which is slow to read and, with few heads, filled up. So a layer reads
its new tokens as if they lay in the past (attention.attend_to_past), and
kernels/late_write.py then writes those of all layers.
"""

import functools

import jax
import jax.numpy as jnp

from r1jax.kernels import late_write
from r1jax.models import attention
from r1jax.parallel import sharding
from r1jax.types import Array

KeysValues = attention.KeysValues
Place = sharding.Placement | None


def writes_late(place: Place, layout: attention.Layout) -> bool:
  """Whether new tokens are written after all layers, and not in each."""
  return (layout.filled is not None and layout.filled.ndim > 0
          and sharding.device(place).platform == 'tpu')


def append(place: Place, layout: attention.Layout,
           layer: attention.LayerInputs, past: KeysValues, new: KeysValues
           ) -> tuple[KeysValues, KeysValues | None]:
  """The past with the new tokens after it, if they are not written late.

  Args:
    place, layout, layer: of the forward pass.
    past: of this layer; or of all layers, stacked.
    new: of the new tokens, in this layer.

  Returns:
    (the past that is read from, so that XLA can write in place; the new tokens
    that are to be read as if they lay in it, or None).
  """
  if writes_late(place, layout):
    return past, new
  filled = layout.filled
  begin = () if layer.index is None else (layer.index,)

  def put(x, y, axis):
    if filled.ndim:
      return _put_in_rows(x, y, axis, (*begin, filled))
    start = [0] * y.ndim
    start[axis] = filled
    y = y.reshape((1,) * len(begin) + y.shape)
    return jax.lax.dynamic_update_slice(x, y, (*begin, *start))

  k, v = past
  return (put(k, new[0], -1), None if v is None else put(v, new[1], -2)), None


def _put_in_rows(x: Array, y: Array, axis: int, at: tuple[Array, ...]) -> Array:
  """Writes one token at its row's own place: `at`, or at[0] the layer."""
  layer = tuple(range(len(at) - 1))
  # Rows are a batch of writes: on a mesh, each device writes its own.
  return jax.lax.scatter(
      x, jnp.stack([jnp.broadcast_to(i, at[-1].shape) for i in at], -1),
      y.squeeze(axis), jax.lax.ScatterDimensionNumbers(
          update_window_dims=(1, 2),
          inserted_window_dims=(*layer, x.ndim + axis),
          scatter_dims_to_operand_dims=(*layer, x.ndim + axis),
          operand_batching_dims=(len(layer),),
          scatter_indices_batching_dims=(0,)),
      indices_are_sorted=True, unique_indices=True, mode='promise_in_bounds')


def write_late(place: Place, past: KeysValues, new: KeysValues, filled: Array
               ) -> KeysValues:
  """The past with new tokens, one of each row.

  Args:
    place: of the model.
    past, new: of all layers.
    filled: i32[N], the number of tokens in the past of each row.
  """
  rows = heads = None
  if place is not None:
    rows, heads = place.partition_spec(('batch', 'kv_heads'))

  def put(x, y, token):
    # XLA lays out what is written with tokens last, but for heads that fill
    # whole lines of memory.
    at = token if token == -2 and late_write.fills_lines(x.shape[-1]) else -1
    # A model that does not scan its layers has an array for each.
    whole = lambda z, at: jnp.moveaxis(
        z.reshape(-1, *z.shape[-4:]), token, at)
    past_LNK, new_LNKh = whole(x, at), whole(y, -1)[..., 0]
    write = functools.partial(
        late_write.write, token=at,
        interpret=sharding.device(place).platform != 'tpu')
    if place is not None and place.mesh.size > 1:
      # A latent has one head, which is whole.
      spec = jax.sharding.PartitionSpec(
          None, rows, heads if past_LNK.shape[2] > 1 else None)
      write = jax.shard_map(
          write, mesh=place.mesh, check_vma=False,
          in_specs=(spec, spec, jax.sharding.PartitionSpec(rows)),
          out_specs=spec)
    return jnp.moveaxis(
        write(past_LNK, new_LNKh, filled), at, token).reshape(x.shape)

  return tuple(jax.tree.map(functools.partial(put, token=token), x, y)
               for x, y, token in zip(past, new, (-1, -2)))
