"""Sums and means over part of an array: the functions that all masks use.

A mask is bool, true where a value counts, and broadcasts against its array.
A masked value, even NaN or infinite, affects neither a result nor its
gradient; a result over no values is 0 with gradient 0.

One case these functions cannot cover: `total(f(x), mask)` sends a zero
gradient into f at masked places, which f turns into 0 * inf = NaN where its
derivative is not finite. If x may be arbitrary there, replace it first:
`total(f(select(x, mask)), mask)`.

Results are float32 (float64 for float64 arrays), whatever was summed. `axis`
and `keepdims` are those of `jnp.sum`.
"""

import jax
import jax.numpy as jnp

from r1jax.types import Array

Axis = int | tuple[int, ...] | None


def select(x: Array, mask: Array, fill: float = 0) -> Array:
  """x where the mask is true, elsewhere `fill`, in x's dtype."""
  return jnp.where(mask, x, jnp.asarray(fill, jnp.result_type(x)))


def divide(numerator: Array, denominator: Array) -> Array:
  """numerator / denominator, and 0 where the denominator is 0 or less.

  The last step of a mean whose sum and denominator were added up over
  micro-batches or shards. Unlike a division by max(denominator, 1), it is
  right for denominators between 0 and 1, as sums of weights may be.
  """
  positive = ~(denominator <= 0)  # true for NaN, which must show
  return select(numerator, positive) / select(denominator, positive, 1)


def count(x: Array, mask: Array, axis: Axis = None, keepdims: bool = False
          ) -> Array:
  """The number of values that count: i32, exact beyond float32's 2**24."""
  shape = jnp.broadcast_shapes(jnp.shape(x), jnp.shape(mask))
  mask = jnp.broadcast_to(mask, shape)
  return jnp.sum(mask, axis, dtype=jnp.int32, keepdims=keepdims)


def total(x: Array, mask: Array, axis: Axis = None, keepdims: bool = False
          ) -> Array:
  """The sum of the values that count."""
  dtype = jnp.result_type(x, jnp.float32)
  return jnp.sum(select(x, mask), axis, dtype=dtype, keepdims=keepdims)


def own_total(x_NR: Array, mask_NR: Array, segment_NR: Array | None = None
              ) -> Array:
  """The total of each value's own segment of a row, f32[N, R].

  `segment_NR` are numbers of at most R; None: a row is one segment, of which
  there is one total, f32[N, 1]. Values 1, 2, 4 in segments 1, 1, 2 give 3, 3,
  4.
  """
  if segment_NR is None:
    return total(x_NR, mask_NR, axis=1, keepdims=True)
  dtype = jnp.result_type(x_NR, jnp.float32)
  of_row = lambda x_R, segment_R: jax.ops.segment_sum(
      x_R, segment_R, len(segment_R) + 1)[segment_R]
  return jax.vmap(of_row)(select(x_NR, mask_NR).astype(dtype), segment_NR)


def mean(x: Array, mask: Array, axis: Axis = None, keepdims: bool = False
         ) -> Array:
  """The mean of the values that count."""
  return divide(
      total(x, mask, axis, keepdims), count(x, mask, axis, keepdims))


def variance(x: Array, mask: Array, axis: Axis = None, keepdims: bool = False,
             ddof: int = 0) -> Array:
  """The variance of the values that count, over their number less `ddof`."""
  deviation = select(x, mask) - mean(x, mask, axis, keepdims=True)
  return divide(total(jnp.square(deviation), mask, axis, keepdims),
                count(x, mask, axis, keepdims) - ddof)
