"""What floating-point numbers may become: rounded, infinite, or none."""

from typing import Any

import jax
import jax.numpy as jnp

from r1jax.types import Array


def is_finite(tree: Any) -> Array:
  """bool[]: no number of a tree is NaN or infinite.

  A reduction, which fuses with what makes the numbers.
  """
  return jnp.all(jnp.stack([
      jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def rounded(x: Array, dtype: jnp.dtype) -> Array:
  """x as `dtype` has it, but in its own dtype.

  XLA may leave out a conversion there and back, which it does on accelerators;
  this it never leaves out.
  """
  if x.dtype == dtype:
    return x
  kind = jnp.finfo(dtype)
  return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
