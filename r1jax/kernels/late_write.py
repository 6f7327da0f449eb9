"""Writes one new token of each row into a cache, on TPUs, in all layers.

Each row has its own place for it. Of a scatter XLA makes a loop over rows, of
some thousand cycles each, and one in every layer where the layers write. Here
the tokens of all layers are written together, after the layers: of each row the
tokens that lie together in memory are read and written again, those of one row
while those of others are on their way. These are 128 where tokens lie next to
each other, or 16 where a head fills lines of memory by itself.
"""

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp

from r1jax.types import Array

_LANES = 128  # numbers in a line of memory
_LINES = 16  # that lie together, of two bytes a number
_BYTES = 2 ** 20  # of a block


def fills_lines(size: int) -> bool:
  """Whether heads of this size fill lines of memory, and tokens need not."""
  return size % _LANES == 0


def write(past: Array, new: Array, filled: Array, *, token: int,
          interpret: bool) -> Array:
  """The past with each row's new token at its place.

  Args:
    past: [L, S, K, h, R], S rows with room for R tokens; or [L, S, K, R, h].
    new: [L, S, K, h].
    filled: i32[S], the place of each, less than R.
    token: the axis of tokens, -1 or -2; with -2, h `fills_lines`.
    interpret: run the kernel step by step, on any device.
  """
  layers, rows, heads, *sizes = past.shape
  size, together = (sizes[0], _LANES) if token == -1 else (sizes[1], _LINES)
  one = past.dtype.itemsize * heads * size * together  # bytes of a layer
  some = min(layers, max(_BYTES // one, 1))
  if token == -1:
    # Rows lie as the tokens do, so that a rotation brings one to its place.
    new = jnp.pad(
        jnp.moveaxis(new, 1, -1), [(0, 0)] * 3 + [(0, -rows % _LANES)])
    given = pl.BlockSpec((some, heads, size, _LANES),
                         lambda i, s, _: (i, 0, 0, lax.div(s, _LANES)))
    block = pl.BlockSpec((some, None, heads, size, _LANES),
                         lambda i, s, at: (i, s, 0, 0, lax.div(at[s], _LANES)))
  else:
    new = new[:, :, :, None]
    given = pl.BlockSpec((some, None, heads, 1, size),
                         lambda i, s, _: (i, s, 0, 0, 0))
    block = pl.BlockSpec((some, None, heads, _LINES, size),
                         lambda i, s, at: (i, s, 0, lax.div(at[s], _LINES), 0))
  return pl.pallas_call(
      _replace if token == -1 else _replace_line, interpret=interpret,
      out_shape=jax.ShapeDtypeStruct(past.shape, past.dtype),
      input_output_aliases={2: 0}, grid_spec=pltpu.PrefetchScalarGridSpec(
          num_scalar_prefetch=1, grid=(pl.cdiv(layers, some), rows),
          in_specs=[given, block], out_specs=block),
      cost_estimate=pl.CostEstimate(
          flops=0, transcendentals=0,
          bytes_accessed=new.nbytes + 2 * layers * rows * one),
  )(filled, new, past)


def _replace(filled_S, new, old, written):
  """Writes a block of a row: the new token at its place, the others again."""
  row = pl.program_id(1)
  place = lax.rem(filled_S[row], _LANES)
  turns = lax.rem(place - lax.rem(row, _LANES) + _LANES, _LANES)
  # Only 32 bits can be rotated.
  turned = pltpu.roll(new[...].astype(jnp.float32), turns, new.ndim - 1)
  lane = lax.broadcasted_iota(jnp.int32, old.shape, old.ndim - 1)
  written[...] = jnp.where(lane == place, turned.astype(old.dtype), old[...])


def _replace_line(filled_S, new, old, written):
  """As `_replace`, where the new token is a line."""
  place = lax.rem(filled_S[pl.program_id(1)], _LINES)
  line = lax.broadcasted_iota(jnp.int32, old.shape, old.ndim - 2)
  written[...] = jnp.where(line == place, new[...], old[...])
