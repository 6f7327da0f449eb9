"""The tokens of a forward pass, and which keys each of them sees.

A row of tokens is either one sequence, alone or after the prompt and past of a
cache, or a prompt followed by all its responses. Projections treat all tokens
of a row alike; the parts of a row, and which keys a query sees, matter only
between the projections, where kernels/attention.py computes the products, or
for whole rows one of the kernels of row_attention.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.kernels import attention
from r1jax.models import architecture
from r1jax.types import Array

KeysValues = tuple[Array, Array | None]  # of a cache: values None if latent
_SPANS = 4


class Layout(NamedTuple):
  """The tokens in the rows of a forward pass; the same for all layers."""
  position: Array  # i32[B, T], of the queries
  segment: Array | None = None  # i32[B, T]; None: a row is one document
  parent: Array | None = None  # i32[B, T], a segment that a token sees as well
  prompt_length: Array | None = None  # i32[prompts], of separate prompts
  filled: Array | None = None  # i32[] or i32[B], tokens in the past of a cache
  owner: Array | None = None  # i32[B], as in types.Cache
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
  length, (rows, tokens) = layout.position.shape[1], (
      layout.responses.position.shape)
  end = length + rows * tokens // len(x_BT)  # columns after it are of no one
  return x_BT[:, :length], x_BT[:, length:end].reshape(
      rows, tokens, *x_BT.shape[2:])


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
  own = own_part(config, layout, layer, query, k, v)
  if layer.prompt is None:
    return [own]
  return [prompt_part(config, layout, layer, query), own]


def own_part(config: architecture.Config, layout: Layout, layer: LayerInputs,
             query: Array, k: Array, v: Array, begin: Array | int = 0
             ) -> attention.Part:
  """Some queries' own tokens, past and new; k and v from column `begin` on."""
  position = layout.position[:, query]
  rows = len(position)
  index = begin + jnp.arange(k.shape[-1])
  if layout.filled is None:
    first, key_position = 0, layout.position[:, None, :index.size]
  else:
    first = layout.filled
    start = jnp.repeat(
        layout.prompt_length, rows // layout.prompt_length.size)
    key_position = (start[:, None] + index)[:, None]
  visible = jnp.reshape(first, (-1, 1, 1)) + query[:, None] >= index
  if layout.segment is not None:
    key_segment = layout.segment[:, None, :index.size]
    same = layout.segment[:, query, None] == key_segment
    if layout.parent is not None:
      same |= layout.parent[:, query, None] == key_segment
    visible &= same
  visible &= _in_window(config, position, key_position, layer.local)
  return attention.Part(k, v, visible[:, None])


def prompt_part(config: architecture.Config, layout: Layout,
                layer: LayerInputs, query: Array) -> attention.Part:
  """The keys and values of separate prompts, for some queries."""
  position, prompt = layout.position[:, query], layer.prompt
  rows, length = position.shape
  prompts, index = prompt[0].shape[0], jnp.arange(prompt[0].shape[-1])
  visible = (index < layout.prompt_length[:, None])[:, None, None]
  near = _in_window(config, position, index, layer.local)
  if near is not True:
    near = near.reshape(prompts, rows // prompts, length, -1)
  return attention.Part(*prompt, visible & near)


def attend_to_past(config: architecture.Config, layout: Layout,
                   layer: LayerInputs, q_NTHh: Array, past: KeysValues,
                   values: Callable[[Array], Array] | None = None,
                   late: KeysValues | None = None) -> Array:
  """Attention of new tokens to their prompts, their past and themselves.

  A cache of more than `attention.BLOCK` tokens is read block by block, as far
  as it is filled.

  Args:
    config, layout, layer: as of `visible_parts`.
    q_NTHh: queries, scaled.
    past: of this layer or of all; with the new tokens, unless they are `late`.
    values: computed from keys, where the past holds none.
    late: the new tokens, where the past does not have them yet.
  """
  size, width = past[0].shape[-1], attention.BLOCK

  def columns(begin, count):
    def cut(x, axis):
      if layer.index is not None:
        start = [0] * x.ndim
        start[0], start[axis] = layer.index, begin
        shape = [1, *x.shape[1:]]
        shape[axis] = count
        return jax.lax.dynamic_slice(x, start, shape)[0]
      return jax.lax.dynamic_slice_in_dim(x, begin, count, axis)

    def read(part, axis):
      if past[part] is None:
        return values(k)
      x = cut(past[part], axis)
      if late is None:
        return x
      is_late = begin + jnp.arange(count) == layout.filled[:, None]
      shape = [len(is_late), 1, 1, 1]
      shape[axis] = count
      return jnp.where(is_late.reshape(shape), late[part], x)

    k = read(0, -1)
    return k, read(1, -2)

  if size <= width:
    return attend(config, layout, layer, q_NTHh, *columns(0, size))
  query = jnp.arange(q_NTHh.shape[1])

  def block(i):
    begin = jnp.minimum(i * width, size - width)  # the last may overlap
    part = own_part(
        config, layout, layer, query, *columns(begin, width), begin)
    is_new = begin + jnp.arange(width) >= i * width
    return part._replace(mask=part.mask & is_new)

  count = -(-(jnp.max(layout.filled) + query.size) // width)
  return attention.attend_blocks(
      q_NTHh, prompt_part(config, layout, layer, query), block, count,
      softcap=config.softcap_attention)


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
      attend_span(config, layout, layer, q_BTHh[:, begin:end], begin,
                   *((k, v) if layout.filled is not None else
                     (k[..., :end], v[:, :, :end])))
      for begin, end in zip(edges, edges[1:])]
  return jnp.concatenate(outs, 1)


def attend_span(config: architecture.Config, layout: Layout,
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
