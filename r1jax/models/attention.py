"""Grouped-query attention: projections, rotations, and whom a token sees.

A row of tokens is one sequence, with a past and a prompt in a cache or
without; or a prompt and all its responses, one behind the other. Weights and
products know nothing of that, only the attention between tokens does.
"""

import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.kernels import attention as kernel
from r1jax.models import layers
from r1jax.models import masks
from r1jax.models import rotary
from r1jax.models import shape
from r1jax.types import Array


_SPANS = 4


class Layer(NamedTuple):
  """What one layer has that the next has not."""
  index: Array | None  # i32[], into a past of all layers; None: its own
  local: Array  # bool[]
  prompt: tuple[Array, Array] | None  # keys and values


def append(past, new, filled: Array, index: Array | None):
  """Writes new keys and values behind the past.

  Returns the past, and all that this layer has of it. What is read is what
  was written, so that XLA can write in place.
  """
  begin = () if index is None else (index,)

  def put(x, y, axis):
    start = [0] * y.ndim
    start[axis] = filled
    y = y.reshape((1,) * len(begin) + y.shape)
    return jax.lax.dynamic_update_slice(x, y, (*begin, *start))

  k, v = past
  past = put(k, new[0], -1), None if v is None else put(v, new[1], -2)
  own = past if index is None else jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), past)
  return past, own


def attend(config: shape.Config, look: masks.Look, layer: Layer, q_BTHh, k, v):
  """Attention of all new tokens, `attention_chunk` queries at a time.

  The scores of one chunk exist at once, in the backward pass too, which makes
  them again: memory grows with T * chunk, not with T squared. The chunks are
  gone through in spans, and keys behind a span are left out: four need 5/8 of
  the products.
  """
  length = q_BTHh.shape[1]
  chunk = config.attention_chunk or max(length, 1)
  chunks = max(-(-length // chunk), 1)
  spans = min(_SPANS, chunks)
  edges = [min(chunk * (chunks * n // spans), length) for n in range(spans + 1)]
  outs = [
      _span(config, look, layer, q_BTHh[:, begin:end], begin,
            *((k, v) if look.filled is not None else
              (k[..., :end], v[:, :, :end])))
      for begin, end in zip(edges, edges[1:])]
  return jnp.concatenate(outs, 1)


def _span(config: shape.Config, look: masks.Look, layer: Layer, q_BTHh,
          begin: int, k, v):
  """Attention of the queries from column `begin` on, in chunks."""
  def one(query, q):
    parts = masks.parts(
        config, look, begin + query, layer.local, layer.prompt, k, v)
    return kernel.attend(q, parts, softcap=config.softcap_attention)

  length, chunk = q_BTHh.shape[1], config.attention_chunk
  if chunk is None or length <= chunk:
    return one(jnp.arange(length), q_BTHh)
  # The last chunk is filled up with repetitions of the last query.
  query = jnp.minimum(jnp.arange(length + -length % chunk), length - 1)
  out = jax.lax.map(
      jax.checkpoint(lambda query: one(query, q_BTHh[:, query])),
      query.reshape(-1, chunk))
  return out.swapaxes(0, 1).reshape(out.shape[1], -1, *out.shape[3:])[
      :, :length]


def keys(k_BTKh, v_BTKh):
  """In the layouts of kernels/attention.py."""
  return k_BTKh.transpose(0, 2, 3, 1), v_BTKh.transpose(0, 2, 1, 3)


def _attend_in_groups(config: shape.Config, look: masks.Look, layer: Layer,
                      q, k, v):
  """Attention in rows of a prompt and, behind it, its responses."""
  (q, q_NTHh), (k, k_NTKh), (v, v_NTKh) = (
      masks.apart(look, x) for x in (q, k, v))
  prompt = keys(k, v)
  out = attend(config, look, layer, q, *prompt)
  out_NTHh = attend(config, look.responses, layer._replace(prompt=prompt),
                    q_NTHh, *keys(k_NTKh, v_NTKh))
  return jnp.concatenate(
      [out, out_NTHh.reshape(out.shape[0], -1, *out.shape[2:])], 1)


def attend_in_rows(config: shape.Config, look: masks.Look, layer: Layer,
                   q, k, v):
  """Attention without a past: [B, T, H, h] queries, [B, T, K, h] keys."""
  if look.responses is not None:
    return _attend_in_groups(config, look, layer, q, k, v)
  return attend(config, look, layer, q, *keys(k, v))


class Attention(nn.Module):
  """Grouped-query attention over the prompt, the past and the new tokens."""
  config: shape.Config

  @nn.compact
  def __call__(self, x_BTD, past, look, layer):
    c = self.config
    width, heads, kv_heads, size = c.width, c.heads, c.kv_heads, c.head_size
    weight = functools.partial(layers.param, self)
    wq = weight('q', ('embed', 'heads', 'head_size'), (width, heads, size),
                layers.linear(width))
    wk, wv = (weight(name, ('embed', 'kv_heads', 'head_size'),
                     (width, kv_heads, size), layers.linear(width))
              for name in ('k', 'v'))
    wo = weight('o', ('heads', 'head_size', 'embed'), (heads, size, width),
                layers.linear(heads * size, (2 * c.layers) ** -0.5))
    q, k, v = (layers.dense(x_BTD, w) for w in (wq, wk, wv))
    if c.qkv_bias:
      bias = lambda name, axis, n: weight(
          name, (axis, 'head_size'), (n, size), nn.initializers.zeros)
      q += bias('q_bias', 'heads', heads)
      k += bias('k_bias', 'kv_heads', kv_heads)
      v += bias('v_bias', 'kv_heads', kv_heads)
    if c.qk_norm:
      q = layers.RMSNorm(c, name='q_norm')(q)
      k = layers.RMSNorm(c, name='k_norm')(k)
    table = look.table
    if look.local_table is not None:
      table = jnp.where(layer.local, look.local_table, table)
    q, k = rotary.rotate(q, table), rotary.rotate(k, table)
    q = q * jnp.asarray(rotary.score_scale(c), q.dtype)
    new = keys(k, v)
    if past is None:
      out = attend_in_rows(c, look, layer, q, k, v)
    else:
      past, own = append(past, new, look.filled, layer.index)
      out = attend(c, look, layer, q, *own)
    return layers.dense(out, wo, contract=2), past, new
