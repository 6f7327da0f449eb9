"""Attention over several sets of keys, with the softmax of their union.

A response attends to its prompt, which its whole group shares, and to its own
tokens. Each set of keys (a `Part`) is attended to separately, the shared one
by the whole group in one matrix product (bifurcated attention, Athiwaratkun et
al., arXiv 2403.08845); the softmax statistics then join the parts exactly.
Sampling, log-probabilities and the update all use this one form.

The backward pass recomputes the attention weights from those statistics (as
FlashAttention does, Dao et al., arXiv 2205.14135), so of the arrays of size
[T, S] only masks are stored.

Keys are stored as [X, K, h, S] and values as [X, K, S, h]: in these layouts
the products of one query run along contiguous memory. (With keys laid out as
values are, XLA for CPUs takes 1.3 to 6 times as long for the scores.)
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.types import Array

# The score of a masked key: finite, so that nothing is inf - inf, and so far
# below the least maximum that its weight is exactly 0, in a fully masked part
# too.
_MASKED, _LEAST = -1e30, -1e20

BLOCK = 1024  # keys of a cache that are read together


class Part(NamedTuple):
  """One set of keys and values; each of its X rows serves N / X query rows."""
  k: Array  # [X, K, h, S]
  v: Array  # [X, K, S, h], h not necessarily that of the keys
  mask: Array  # bool, broadcasts to [X, N / X, T, S]


def attend(q_NTHh: Array, parts: list[Part], *,
           softcap: float | None = None) -> Array:
  """Softmax attention of every query over the keys of all parts.

  Args:
    q_NTHh: queries, already scaled.
    parts: the sets of keys; a query whose output is used must see at least
      one key.
    softcap: scores become softcap * tanh(score / softcap) (Gemma 2).

  Returns:
    out_NTHh in the queries' dtype, with the values' head size; statistics and
    sums are float32.
  """
  return _attend(softcap, q_NTHh, parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(softcap: float | None, q_NTHh: Array, parts: list[Part]) -> Array:
  return _forward(softcap, q_NTHh, parts)[0]


def _forward(softcap: float | None, q_NTHh: Array, parts: list[Part]
             ) -> tuple[Array, tuple]:
  """The output, and the residuals of the backward pass."""
  q = _by_key_head(q_NTHh, parts[0])
  outs, maxima, sums = zip(*(_statistics(q, part, softcap) for part in parts))
  largest = functools.reduce(jnp.maximum, maxima)
  scales = [jnp.exp(m - largest) for m in maxima]
  total = sum(s * c for s, c in zip(sums, scales))
  total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
  out = sum(o * (c / total)[..., None] for o, c in zip(outs, scales))
  out = out.astype(q.dtype).reshape(*q_NTHh.shape[:3], out.shape[-1])
  return out, (q_NTHh, parts, out, largest + jnp.log(total))


class _Statistics(NamedTuple):
  """Of a softmax over some keys, [N, T, K, M, ...], float32."""
  out: Array  # sum of exp(score - largest) * value
  largest: Array  # score
  total: Array  # sum of exp(score - largest)


def _statistics(q: Array, part: Part, softcap: float | None) -> _Statistics:
  """The statistics of the keys of one part."""
  score, _ = _scores(_group(q, part), part, q.shape, softcap)
  largest = score.max(-1, initial=_LEAST)
  weight = jnp.exp(score - largest[..., None])
  out = _product('xkqs,xksh->xkqh', weight.astype(part.v.dtype), part.v)
  return _Statistics(*(
      _ungroup(x, q.shape) for x in (out, largest, weight.sum(-1))))


def attend_blocks(q_NTHh: Array, first: Part, block: Callable[[Array], Part],
                  count: Array, *, softcap: float | None = None) -> Array:
  """`attend` over `first` and block(0), ..., block(count - 1).

  `count` may be traced, so that a cache is read as far as it is filled. There
  is no backward pass.
  """
  q = _by_key_head(q_NTHh, first)

  def add(i, so_far):
    new = _statistics(q, block(i), softcap)
    largest = jnp.maximum(so_far.largest, new.largest)
    a, b = (jnp.exp(x.largest - largest) for x in (so_far, new))
    return _Statistics(
        a[..., None] * so_far.out + b[..., None] * new.out, largest,
        a * so_far.total + b * new.total)

  with jax.named_scope('cache_blocks'):  # plans know it by this
    found = jax.lax.fori_loop(0, count, add, _statistics(q, first, softcap))
  total = jnp.maximum(found.total, jnp.finfo(jnp.float32).tiny)
  out = (found.out / total[..., None]).astype(q.dtype)
  return out.reshape(*q_NTHh.shape[:3], out.shape[-1])


def _backward(softcap: float | None, residuals: tuple, d_out: Array
              ) -> tuple[Array, list[Part]]:
  """Gradients of the queries and of each part's keys and values."""
  q_NTHh, parts, out, norm = residuals
  q, out, d_out = (
      _by_key_head(x, parts[0]) for x in (q_NTHh, out, d_out))
  mean = jnp.sum(out.astype(jnp.float32) * d_out, -1)
  d_q, d_parts = 0., []
  for part in parts:
    q_x, d_o, norm_x, mean_x = (_group(y, part) for y in (q, d_out, norm, mean))
    score, slope = _scores(q_x, part, q.shape, softcap)
    weight = jnp.exp(score - norm_x[..., None])
    d_weight = _product('xkqh,xksh->xkqs', d_o, part.v)
    d_score = weight * (d_weight - mean_x[..., None])
    if slope is not None:
      d_score *= slope
    weight, d_score = weight.astype(part.v.dtype), d_score.astype(part.k.dtype)
    d_k = _product('xkqh,xkqs->xkhs', q_x, d_score)
    d_v = _product('xkqs,xkqh->xksh', weight, d_o)
    d_q += _ungroup(
        _product('xkqs,xkhs->xkqh', d_score, part.k), q.shape)
    d_parts.append(
        Part(d_k.astype(part.k.dtype), d_v.astype(part.v.dtype), None))
  return d_q.reshape(q_NTHh.shape).astype(q_NTHh.dtype), d_parts


_attend.defvjp(_forward, _backward)

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(q: Array, part: Part, shape: tuple[int, ...],
            softcap: float | None) -> tuple[Array, Array | None]:
  """Masked scores [X, K, G*T*M, S], and the derivative of the soft cap."""
  n, t, kv_heads, m, _ = shape
  x, _, _, s = part.k.shape
  score = _product('xkqh,xkhs->xkqs', q, part.k)
  slope = None
  if softcap:
    tanh = jnp.tanh(score / softcap)
    score, slope = softcap * tanh, 1 - tanh * tanh
  masked = score.reshape(x, kv_heads, n // x, t, m, s)
  masked = jnp.where(part.mask[:, None, :, :, None], masked, _MASKED)
  return masked.reshape(score.shape), slope


def _by_key_head(y_NTHh: Array, part: Part) -> Array:
  """[N, T, H, h] -> [N, T, K, M, h]; M queries share a key/value head."""
  n, t, heads, size = y_NTHh.shape
  kv_heads = part.k.shape[1]
  return y_NTHh.reshape(n, t, kv_heads, heads // kv_heads, size)


def _group(y: Array, part: Part) -> Array:
  """[N, T, K, M, ...] -> [X, K, G*T*M, ...]; G rows share the part's keys."""
  n, t, kv_heads, m, *rest = y.shape
  x = part.k.shape[0]
  y = y.reshape(x, n // x, t, kv_heads, m, *rest)
  y = y.transpose(0, 3, 1, 2, 4, *range(5, y.ndim))
  return y.reshape(x, kv_heads, n // x * t * m, *rest)


def _ungroup(y: Array, shape: tuple[int, ...]) -> Array:
  """[X, K, G*T*M, ...] -> [N, T, K, M, ...]; the inverse of `_group`."""
  n, t, kv_heads, m, _ = shape
  x, _, _, *rest = y.shape
  y = y.reshape(x, kv_heads, n // x, t, m, *rest)
  y = y.transpose(0, 2, 3, 1, 4, *range(5, y.ndim))
  return y.reshape(n, t, kv_heads, m, *rest)
