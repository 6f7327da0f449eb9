"""Attention over several sets of keys, joined as if they were one.

A response attends to its prompt, which its whole group shares, and to what it
has itself produced. Each set ("part") is attended to by itself, the shared one
with the whole group as one matrix product (bifurcated attention, Athiwaratkun
et al., arXiv 2403.08845), and the parts are joined exactly by their softmax
statistics. The form is the same for sampling, scoring and the update.

Keys are kept head size first, [X, K, h, S], values [X, K, S, h]: the layouts
in which one query's products run along contiguous memory.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.types import Array

# Finite, and far below the least maximum: what is masked weighs exactly 0, in
# a wholly masked part too, and nothing is ever inf - inf.
_MASKED, _LEAST = -1e30, -1e20


class Part(NamedTuple):
  """Keys and values some queries may see, shared by N / X rows each."""
  k: Array  # [X, K, h, S]
  v: Array  # [X, K, S, h]
  mask: Array  # bool, broadcasts to [X, N / X, T, S]


def _attend_part(q_NTHh: Array, part: Part, softcap: float | None):
  """Unnormalised output and softmax statistics of one part.

  Returns (o [N,T,K,M,h], m [N,T,K,M], l [N,T,K,M]) in float32: the weighted
  sum of values under exp(score - m), the largest score, and the sum of
  weights. M = H / K queries share a key/value head.
  """
  n, t, heads, size = q_NTHh.shape
  x, kv_heads, _, s = part.k.shape
  g, m = n // x, heads // kv_heads
  q = q_NTHh.reshape(x, g, t, kv_heads, m, size).transpose(0, 3, 1, 2, 4, 5)
  score = jnp.einsum('xkqh,xkhs->xkqs',
                     q.reshape(x, kv_heads, g * t * m, size), part.k,
                     preferred_element_type=jnp.float32)
  score = score.reshape(x, kv_heads, g, t, m, s)
  if softcap:
    score = softcap * jnp.tanh(score / softcap)
  score = jnp.where(part.mask[:, None, :, :, None], score, _MASKED)
  # The result does not depend on the maximum, so no gradient flows through it.
  largest = lax.stop_gradient(score.max(-1, initial=_LEAST))
  weight = jnp.exp(score - largest[..., None])
  out = jnp.einsum('xkqs,xksh->xkqh',
                   weight.reshape(x, kv_heads, g * t * m, s).astype(
                       part.v.dtype), part.v,
                   preferred_element_type=jnp.float32)

  def rows_first(y):  # [X, K, G, T, M, ...] -> [N, T, K, M, ...]
    y = y.reshape(x, kv_heads, g, t, m, *y.shape[5:])
    y = y.transpose(0, 2, 3, 1, 4, *range(5, y.ndim))
    return y.reshape(n, t, kv_heads, m, *y.shape[5:])

  return (rows_first(out.reshape(x, kv_heads, g, t, m, size)),
          rows_first(largest), rows_first(weight.sum(-1)))


def attend(q_NTHh: Array, parts: list[Part], *,
           softcap: float | None = None) -> Array:
  """Softmax attention of every query over all parts together.

  Args:
    q_NTHh: queries, already scaled.
    parts: where each query looks; at least one key must be visible to a query
      whose output is used.
    softcap: scores become softcap * tanh(score / softcap) (Gemma 2).

  Returns:
    out_NTHh in the queries' dtype; statistics and sums are float32.
  """
  outs, maxima, sums = zip(*(_attend_part(q_NTHh, p, softcap) for p in parts))
  largest = maxima[0]
  for m in maxima[1:]:
    largest = jnp.maximum(largest, m)
  scales = [jnp.exp(m - largest) for m in maxima]
  total = sum(l * c for l, c in zip(sums, scales))
  out = sum(o * c[..., None] for o, c in zip(outs, scales))
  out = out / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)[..., None]
  return out.reshape(q_NTHh.shape).astype(q_NTHh.dtype)
