"""Grouped-query attention: projections, rotary positions, masks.

A row of tokens is either one sequence, alone or after the prompt and past of a
cache, or a prompt followed by all its responses. Projections treat all tokens
of a row alike; the parts of a row, and which keys a query sees, matter only
between the projections, where kernels/attention.py computes the products.
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

KeysValues = tuple[Array, Array | None]  # of a cache: values None if latent
_SPANS = 4


class Layout(NamedTuple):
  """The tokens in the rows of a forward pass; the same for all layers."""
  position: Array  # i32[B, T], of the queries
  segment: Array | None = None  # i32[B, T]; None: a row is one document
  parent: Array | None = None  # i32[B, T], a segment that a token sees as well
  prompt_length: Array | None = None  # i32[prompts], of separate prompts
  filled: Array | None = None  # i32[], tokens in the past, with a cache
  table: Array | None = None  # rotary.table of whole rows
  local_table: Array | None = None  # that of local layers
  responses: 'Layout | None' = None  # of the responses after a row's prompt


class LayerInputs(NamedTuple):
  """The inputs of one layer that differ between layers."""
  index: Array | None  # i32[], into the past of all layers; None: its own past
  local: Array  # bool[], attends within the window only
  prompt: KeysValues | None  # of separate prompts that the queries attend to
  experts: Array | None = None  # [B, T, K], of each token, to be replayed


def split_responses(layout: Layout, x_BT: Array) -> tuple[Array, Array]:
  """Rows of a prompt and its responses -> [B, P, ...] and [N, T, ...]."""
  length = layout.position.shape[1]
  return x_BT[:, :length], x_BT[:, length:].reshape(
      *layout.responses.position.shape, *x_BT.shape[2:])


def _in_window(config: architecture.Config, position: Array,
               key_position: Array, local: Array) -> Array | bool:
  """Whether a key is near enough for a query, bool[B, T, S] or True."""
  if config.window is None:
    return True
  return ~local | (position[:, :, None] - key_position < config.window)


def visible_parts(config: architecture.Config, layout: Layout,
                  layer: LayerInputs, query: Array, k: Array, v: Array
                  ) -> list[attention.Part]:
  """The sets of keys of some queries, with masks: prompt, then own tokens.

  Args:
    config: of the model.
    layout: of the forward pass.
    layer: the inputs of the layer.
    query: i32[Q], the queries' columns in `layout`.
    k, v: of the past and of all T new tokens after it.
  """
  position, prompt = layout.position[:, query], layer.prompt
  rows, length = position.shape
  index = jnp.arange(k.shape[-1])
  if layout.filled is None:
    first, key_position = 0, layout.position[:, None, :index.size]
  else:
    first = layout.filled
    start = jnp.repeat(
        layout.prompt_length, rows // layout.prompt_length.size)
    key_position = (start[:, None] + index)[:, None]
  visible = (index <= first + query[:, None])[None]
  if layout.segment is not None:
    key_segment = layout.segment[:, None, :index.size]
    same = layout.segment[:, query, None] == key_segment
    if layout.parent is not None:
      same |= layout.parent[:, query, None] == key_segment
    visible &= same
  visible &= _in_window(config, position, key_position, layer.local)
  tokens = attention.Part(k, v, visible[:, None])
  if prompt is None:
    return [tokens]
  prompts, index = prompt[0].shape[0], jnp.arange(prompt[0].shape[-1])
  visible = (index < layout.prompt_length[:, None])[:, None, None]
  near = _in_window(config, position, index, layer.local)
  if near is not True:
    near = near.reshape(prompts, rows // prompts, length, -1)
  return [attention.Part(*prompt, visible & near), tokens]


def append_to_past(past: KeysValues, new: KeysValues, filled: Array,
                   index: Array | None) -> tuple[KeysValues, KeysValues]:
  """Writes the keys and values of new tokens after those of the past.

  Args:
    past: of this layer; or of all layers, stacked.
    new: of the new tokens, in this layer.
    filled: the number of tokens in the past.
    index: of the layer in `past`; None: the past is this layer's alone.

  Returns:
    The past with the new tokens, and the part of it that is this layer's. The
    second is read from the first, so that XLA can write in place.
  """
  begin = () if index is None else (index,)

  def put(x, y, axis):
    start = [0] * y.ndim
    start[axis] = filled
    y = y.reshape((1,) * len(begin) + y.shape)
    return jax.lax.dynamic_update_slice(x, y, (*begin, *start))

  k, v = past
  past = put(k, new[0], -1), None if v is None else put(v, new[1], -2)
  of_layer = past if index is None else jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), past)
  return past, of_layer


def attend(config: architecture.Config, layout: Layout, layer: LayerInputs,
           q_BTHh: Array, k: Array, v: Array) -> Array:
  """Attention of all new tokens, `attention_chunk` queries at a time.

  Only the scores of one chunk are in memory, in the backward pass too, which
  recomputes them: memory grows with T * chunk, not with T squared. Chunks are
  grouped into four spans. Without a past, the products of a span leave out the
  keys after it, which saves 3/8 of the work.

  Args:
    config, layout, layer: as of `visible_parts`.
    q_BTHh: queries, scaled.
    k, v: of the past and of all new tokens, in the layouts of `to_parts`.
  """
  length = q_BTHh.shape[1]
  chunk = config.attention_chunk or max(length, 1)
  chunks = max(-(-length // chunk), 1)
  spans = min(_SPANS, chunks)
  edges = [min(chunk * (chunks * n // spans), length) for n in range(spans + 1)]
  outs = [
      _attend_span(config, layout, layer, q_BTHh[:, begin:end], begin,
                   *((k, v) if layout.filled is not None else
                     (k[..., :end], v[:, :, :end])))
      for begin, end in zip(edges, edges[1:])]
  return jnp.concatenate(outs, 1)


def _attend_span(config: architecture.Config, layout: Layout,
                 layer: LayerInputs, q_BTHh: Array, begin: int, k: Array,
                 v: Array) -> Array:
  """Attention of the queries from column `begin` on, in chunks."""
  def attend_chunk(query, q):
    parts = visible_parts(config, layout, layer, begin + query, k, v)
    return attention.attend(q, parts, softcap=config.softcap_attention)

  length, chunk = q_BTHh.shape[1], config.attention_chunk
  if chunk is None or length <= chunk:
    return attend_chunk(jnp.arange(length), q_BTHh)
  # The last chunk is padded with copies of the last query.
  query = jnp.minimum(jnp.arange(length + -length % chunk), length - 1)
  out = jax.lax.map(
      jax.checkpoint(lambda query: attend_chunk(query, q_BTHh[:, query])),
      query.reshape(-1, chunk))
  return out.swapaxes(0, 1).reshape(out.shape[1], -1, *out.shape[3:])[
      :, :length]


def to_parts(k_BTKh: Array, v_BTKh: Array) -> tuple[Array, Array]:
  """Keys and values in the layouts of `kernels.attention.Part`."""
  return k_BTKh.transpose(0, 2, 3, 1), v_BTKh.transpose(0, 2, 1, 3)


def _attend_in_groups(config: architecture.Config, layout: Layout,
                      layer: LayerInputs, q: Array, k: Array, v: Array
                      ) -> Array:
  """Attention in rows of a prompt followed by its responses."""
  (q, q_NTHh), (k, k_NTKh), (v, v_NTKh) = (
      split_responses(layout, x) for x in (q, k, v))
  prompt = to_parts(k, v)
  out = attend(config, layout, layer, q, *prompt)
  out_NTHh = attend(config, layout.responses, layer._replace(prompt=prompt),
                    q_NTHh, *to_parts(k_NTKh, v_NTKh))
  return jnp.concatenate(
      [out, out_NTHh.reshape(out.shape[0], -1, *out.shape[2:])], 1)


def attend_in_rows(config: architecture.Config, layout: Layout,
                   layer: LayerInputs, q: Array, k: Array, v: Array) -> Array:
  """Attention without a past: [B, T, H, h] queries, [B, T, K, h] keys."""
  if layout.responses is not None:
    return _attend_in_groups(config, layout, layer, q, k, v)
  return attend(config, layout, layer, q, *to_parts(k, v))


class Attention(nn.Module):
  """Grouped-query attention over the prompt, the past and the new tokens.

  Returns the output [B, T, D], the past with the new tokens appended (None if
  there is none), and the keys and values of the new tokens.
  """
  config: architecture.Config

  @nn.compact
  def __call__(self, x_BTD: Array, past: KeysValues | None, layout: Layout,
               layer: LayerInputs
               ) -> tuple[Array, KeysValues | None, KeysValues]:
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
    table = layout.table
    if layout.local_table is not None:
      table = jnp.where(layer.local, layout.local_table, table)
    q, k = rotary.rotate(q, table), rotary.rotate(k, table)
    q = q * jnp.asarray(rotary.score_scale(c), q.dtype)
    new = to_parts(k, v)
    if past is None:
      out = attend_in_rows(c, layout, layer, q, k, v)
    else:
      past, of_layer = append_to_past(past, new, layout.filled, layer.index)
      out = attend(c, layout, layer, q, *of_layer)
    return layers.dense(out, wo, contract=2), past, new
