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

from r1jax.kernels import attention
from r1jax.models import architecture
from r1jax.models import layers
from r1jax.models import rotary
from r1jax.types import Array

class Look(NamedTuple):
  """Where the queries of one forward pass stand, the same for all layers."""
  position: Array  # i32[B, T]
  segment: Array | None = None  # i32[B, T]; None: one document a row
  parent: Array | None = None  # i32[B, T], a segment seen besides one's own
  prompt_length: Array | None = None  # i32[prompts], with prompts
  filled: Array | None = None  # i32[], with a past
  table: Array | None = None  # rotary cos, sin of whole rows
  local_table: Array | None = None  # those of local layers
  responses: 'Look | None' = None  # of those behind each prompt in its row


def split_responses(look: Look, x_BT: Array) -> tuple[Array, Array]:
  """Rows of a prompt and its responses -> [B, P, ...] and [N, T, ...]."""
  length = look.position.shape[1]
  return x_BT[:, :length], x_BT[:, length:].reshape(
      *look.responses.position.shape, *x_BT.shape[2:])


def _window(config: architecture.Config, position: Array, key_position: Array,
            local: Array):
  """bool[B, T, S]: which keys a layer's window lets a query see."""
  if config.window is None:
    return True
  return ~local | (position[:, :, None] - key_position < config.window)


def visible_parts(config: architecture.Config, look: Look, query: Array, local, prompt, k, v):
  """The prompt and the responses' own tokens, as some queries see them.

  Args:
    config, look: of the forward pass.
    query: i32[Q], columns of `look`.
    local: whether the layer is a local one.
    prompt: keys and values of the prompts, or None.
    k, v: those of the past and of all T new tokens after it.
  """
  position = look.position[:, query]
  rows, length = position.shape
  index = jnp.arange(k.shape[-1])
  if look.filled is None:
    first, key_position = 0, look.position[:, None, :index.size]
  else:
    first = look.filled
    start = jnp.repeat(look.prompt_length, rows // look.prompt_length.size)
    key_position = (start[:, None] + index)[:, None]
  seen = (index <= first + query[:, None])[None]
  if look.segment is not None:
    key_segment = look.segment[:, None, :index.size]
    same = look.segment[:, query, None] == key_segment
    if look.parent is not None:
      same |= look.parent[:, query, None] == key_segment
    seen &= same
  seen &= _window(config, position, key_position, local)
  own = attention.Part(k, v, seen[:, None])
  if prompt is None:
    return [own]
  prompts, index = prompt[0].shape[0], jnp.arange(prompt[0].shape[-1])
  seen = (index < look.prompt_length[:, None])[:, None, None]
  near = _window(config, position, index, local)
  if near is not True:
    near = near.reshape(prompts, rows // prompts, length, -1)
  return [attention.Part(*prompt, seen & near), own]


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


def attend(config: architecture.Config, look: Look, layer: Layer, q_BTHh, k, v):
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


def _span(config: architecture.Config, look: Look, layer: Layer, q_BTHh,
          begin: int, k, v):
  """Attention of the queries from column `begin` on, in chunks."""
  def one(query, q):
    parts = visible_parts(
        config, look, begin + query, layer.local, layer.prompt, k, v)
    return attention.attend(q, parts, softcap=config.softcap_attention)

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


def _attend_in_groups(config: architecture.Config, look: Look, layer: Layer,
                      q, k, v):
  """Attention in rows of a prompt and, behind it, its responses."""
  (q, q_NTHh), (k, k_NTKh), (v, v_NTKh) = (
      split_responses(look, x) for x in (q, k, v))
  prompt = keys(k, v)
  out = attend(config, look, layer, q, *prompt)
  out_NTHh = attend(config, look.responses, layer._replace(prompt=prompt),
                    q_NTHh, *keys(k_NTKh, v_NTKh))
  return jnp.concatenate(
      [out, out_NTHh.reshape(out.shape[0], -1, *out.shape[2:])], 1)


def attend_in_rows(config: architecture.Config, look: Look, layer: Layer,
                   q, k, v):
  """Attention without a past: [B, T, H, h] queries, [B, T, K, h] keys."""
  if look.responses is not None:
    return _attend_in_groups(config, look, layer, q, k, v)
  return attend(config, look, layer, q, *keys(k, v))


class Attention(nn.Module):
  """Grouped-query attention over the prompt, the past and the new tokens."""
  config: architecture.Config

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
