"""Zeros after arrays of tokens, [B, T, ...], up to a length that divides."""

import jax.numpy as jnp

from r1jax.types import Array


def columns(x: Array, multiple: int) -> Array:
  """`x` with zeros after it along T, up to a multiple."""
  return jnp.pad(
      x, [(0, 0), (0, -x.shape[1] % multiple)] + [(0, 0)] * (x.ndim - 2))
