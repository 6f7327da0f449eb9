"""What floating-point numbers may become: rounded, infinite, or none."""

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.types import Array


def is_finite(tree: Any) -> Array:
  """bool[]: no number of a tree is NaN or infinite.

  One sum, which fuses with what makes the numbers: 0 x is 0, or else NaN.
  """
  return jnp.isfinite(sum(
      jnp.sum(0 * leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)))


def rounded(x: Array, dtype: jnp.dtype) -> Array:
  """x as `dtype` has it, but in its own dtype.

  XLA may leave out a conversion there and back, which it does on accelerators;
  this it never leaves out.
  """
  if x.dtype == dtype:
    return x
  kind = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
