"""Sums and means over part of an array: the one vocabulary for masks.

A mask is bool, true where a value counts, and broadcasts against its array.
What stands at a masked place never matters, be it NaN or infinite, neither
for a result nor for its gradient; a result over nothing is 0 with gradient 0.

One thing no function here can do: `total(f(x), mask)` sends a zero gradient
into f at masked places, which f turns into 0 * inf = NaN where its slope is
not finite. If x may be arbitrary there, replace it first:
`total(f(select(x, mask)), mask)`.

Results are float32 (float64 for float64 arrays), whatever was summed.
"""

import jax.numpy as jnp


def select(x, mask, fill=0):
  """x where the mask is true, elsewhere `fill`, in x's dtype."""
  return jnp.where(mask, x, jnp.asarray(fill, jnp.result_type(x)))


def divide(numerator, denominator):
  """numerator / denominator, and 0 where the denominator is 0 or less.

  Closes a mean whose sum and denominator travelled apart through micro-batches
  or shards. Unlike a division by max(denominator, 1) it is right for
  denominators between 0 and 1, which sums of weights may be.
  """
  some = ~(denominator <= 0)  # NaN is not nothing: it must show
  return select(numerator, some) / select(denominator, some, 1)


def count(x, mask, axis=None, keepdims=False):
  """How many values of x count: i32, exact beyond float32's 2**24."""
  shape = jnp.broadcast_shapes(jnp.shape(x), jnp.shape(mask))
  mask = jnp.broadcast_to(mask, shape)
  return jnp.sum(mask, axis, dtype=jnp.int32, keepdims=keepdims)


def total(x, mask, axis=None, keepdims=False):
  """Sum of the values that count."""
  dtype = jnp.result_type(x, jnp.float32)
  return jnp.sum(select(x, mask), axis, dtype=dtype, keepdims=keepdims)


def mean(x, mask, axis=None, keepdims=False):
  """Mean of the values that count."""
  return divide(
      total(x, mask, axis, keepdims), count(x, mask, axis, keepdims))


def variance(x, mask, axis=None, ddof=0):
  """Variance of the values that count, over their number minus `ddof`."""
  deviation = select(x, mask) - mean(x, mask, axis, keepdims=True)
  return divide(
      total(jnp.square(deviation), mask, axis), count(x, mask, axis) - ddof)
