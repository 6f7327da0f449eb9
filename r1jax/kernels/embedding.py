"""The rows of a table for some tokens, and the sum of their gradients."""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.types import Array


def look_up(table_VD: Array, tokens_BT: Array, dtype: str) -> Array:
  """The tokens' rows of a table, [B, T, D], in a dtype.

  The gradients of equal tokens are summed in float32.
  """
  (vocab, width), kept = table_VD.shape, table_VD.dtype

  @jax.custom_vjp
  def rows(table_VD, tokens_BT):
    return table_VD[tokens_BT].astype(dtype)

  def backward(tokens_BT, d_rows):
    summed_VD = lax.platform_dependent(
        tokens_BT.reshape(-1), d_rows.reshape(-1, width),
        tpu=functools.partial(_multiplied, vocab),
        default=functools.partial(_scattered, vocab))
    return summed_VD.astype(kept), None

  rows.defvjp(lambda table, tokens: (rows(table, tokens), tokens), backward)
  return rows(table_VD, tokens_BT)


def _scattered(vocab: int, tokens_T: Array, x_TD: Array) -> Array:
  """The sum of the rows of each token, f32[V, D]."""
  zeros_VD = jnp.zeros_like(x_TD, jnp.float32, (vocab, x_TD.shape[1]))
  return zeros_VD.at[tokens_T].add(x_TD.astype(jnp.float32))


def _multiplied(vocab: int, tokens_T: Array, x_TD: Array) -> Array:
  """`_scattered` as a product with the tokens as one-hot vectors.

  XLA for TPUs computes the vectors within the product and does not write them.
  It adds few rows one after the other, and more than about 4,096 in the order
  of a sort whose program grows with their number.
  """
  is_token_VT = jnp.arange(vocab)[:, None] == tokens_T
  return jnp.matmul(is_token_VT.astype(x_TD.dtype), x_TD,
                    precision=lax.Precision.HIGHEST,
                    preferred_element_type=jnp.float32)
