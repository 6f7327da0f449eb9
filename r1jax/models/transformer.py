"""A decoder-only transformer whose settings are Llama, Qwen2, Qwen3, Gemma 3.

RMSNorm, rotary positions, grouped-query attention, gated MLP. Tokens go in,
hidden states, keys and values come out; `unembed` turns hidden states into
logits, apart, so that a caller can do it a chunk at a time.
"""

import functools
from typing import Any, Callable, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.kernels import attention
from r1jax.models import layers
from r1jax.models import masks
from r1jax.models import shape
from r1jax.types import Array, Cache, Params

class Layer(NamedTuple):
  """What one layer has that the next has not."""
  index: Array | None  # i32[], into a past of all layers; None: its own
  local: Array  # bool[]
  prompt: tuple[Array, Array] | None  # keys and values


def _append(past, new, filled: Array, index: Array | None):
  """Writes new keys and values behind the past.

  Returns the past, and all that this layer has of it. What is read is what
  was written, so that XLA can write in place.
  """
  if past is None:
    return None, new
  begin = () if index is None else (index,)

  def put(x, y, axis):
    start = [0] * y.ndim
    start[axis] = filled
    y = y.reshape((1,) * len(begin) + y.shape)
    return jax.lax.dynamic_update_slice(x, y, (*begin, *start))

  past = put(past[0], new[0], -1), put(past[1], new[1], -2)
  own = past if index is None else tuple(
      jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in past)
  return past, own


def _attend(config: shape.Config, look: masks.Look, layer: Layer, q_BTHh, k, v):
  """Attention of all new tokens, `attention_chunk` queries at a time.

  The scores of one chunk exist at once, in the backward pass too, which makes
  them again: memory grows with T * chunk, not with T squared.
  """
  def attend(query, q):
    parts = masks.parts(
        config, look, query, layer.local, layer.prompt, k, v)
    return attention.attend(q, parts, softcap=config.softcap_attention)

  length, chunk = q_BTHh.shape[1], config.attention_chunk
  if chunk is None or length <= chunk:
    return attend(jnp.arange(length), q_BTHh)
  # The last chunk is filled up with repetitions of the last query.
  query = jnp.minimum(jnp.arange(length + -length % chunk), length - 1)
  out = jax.lax.map(
      jax.checkpoint(lambda query: attend(query, q_BTHh[:, query])),
      query.reshape(-1, chunk))
  return out.swapaxes(0, 1).reshape(q_BTHh.shape[0], -1, *q_BTHh.shape[2:])[
      :, :length]


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
    q, k = layers.rotate(q, table), layers.rotate(k, table)
    q = q * jnp.asarray(c.attention_scale or size ** -0.5, q.dtype)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    past, own = _append(past, (k, v), look.filled, layer.index)
    out = _attend(c, look, layer, q, *own)
    return layers.dense(out, wo, contract=2), past, (k, v)


def unstack(blocks: Params) -> list[Params]:
  """The parameters of each layer, of stacked ones.

  A split's gradient is one concatenation, where that of L slices would be the
  sum of L arrays of full size.
  """
  leaves, tree = jax.tree.flatten(blocks)
  layers = zip(*(jax.lax.split(x, [1] * x.shape[0]) for x in leaves))
  return [tree.unflatten([x[0] for x in layer]) for layer in layers]


class Block(nn.Module):
  """One layer: attention and MLP on a residual stream."""
  config: shape.Config
  constrain: Callable[[Array, tuple], Array]

  @nn.compact
  def __call__(self, carry, look, layer):
    c = self.config
    x_BTD, past = carry
    post = (lambda name: layers.RMSNorm(c, name=name)) if c.post_norms else (
        lambda name: lambda y: y)
    y, past, new = Attention(c, name='attention')(
        layers.RMSNorm(c, name='attention_norm')(x_BTD), past, look, layer)
    x_BTD = x_BTD + post('attention_post_norm')(y)
    y = layers.MLP(c, name='mlp')(layers.RMSNorm(c, name='mlp_norm')(x_BTD))
    x_BTD = x_BTD + post('mlp_post_norm')(y)
    x_BTD = self.constrain(x_BTD, ('batch', 'length', 'activation'))
    return (x_BTD, past), new if past is None else None


class Decoder(nn.Module):
  """Embedding, blocks, final norm; and the way back to logits."""
  config: shape.Config
  constrain: Callable[[Array, tuple], Array]

  def setup(self):
    c = self.config
    self.embedding = self.param(
        'embedding', nn.with_logical_partitioning(
            nn.initializers.normal(c.width ** -0.5), ('vocab', 'table')),
        (c.vocab, c.width), jnp.dtype(c.param_dtype))
    if not c.tied:
      self.output = self.param(
          'output', nn.with_logical_partitioning(
              layers.linear(c.width), ('table', 'vocab')),
          (c.width, c.vocab), jnp.dtype(c.param_dtype))
    self.blocks = nn.scan(
        self._block(), length=c.layers, in_axes=(nn.broadcast, 0),
        out_axes=0, variable_axes={'params': 0}, split_rngs={'params': True},
        metadata_params={nn.PARTITION_NAME: 'layers'})(c, self.constrain)
    self.final_norm = layers.RMSNorm(c)

  def __call__(self, tokens_BT, segment_BT, position_BT, cache):
    c = self.config
    x = self.embedding[tokens_BT].astype(c.dtype)
    if c.embed_scale:
      x *= jnp.asarray(c.width ** 0.5, x.dtype)
    x = self.constrain(x, ('batch', 'length', 'activation'))
    table = lambda theta: layers.rotary_table(position_BT, c.head_size, theta)
    look = masks.Look(
        position=position_BT, segment=segment_BT, table=table(c.rope_theta),
        local_table=table(c.rope_theta_local) if c.rope_theta_local else None,
        prompt_length=cache and cache.prompt_length,
        filled=cache and cache.filled)
    past = (cache.k, cache.v) if cache and cache.k is not None else None
    prompt = cache and (cache.prompt_k, cache.prompt_v)
    local = jnp.asarray(c.is_local())
    if c.scan_layers or self.is_initializing():
      (x, past), new = self.blocks(
          (x, past), look, Layer(jnp.arange(c.layers), local, prompt))
    else:
      x, past, new = self._each_block(x, past, look, local, prompt)
    return self.final_norm(x), new if past is None else past

  def _block(self):
    if self.config.remat == 'none':
      return Block
    return nn.remat(Block, policy=shape.REMAT[self.config.remat],
                    prevent_cse=not self.config.scan_layers)

  def _each_block(self, x, past, look, local, prompt):
    """The scan of `blocks` written out: XLA then neither stacks what the
    layers keep for the backward pass nor copies their parts of a cache."""
    block = self._block()(self.config, self.constrain, parent=None)
    params = self.blocks.variables['params']
    if 'layers' not in params:
      params = {'layers': unstack(params)}
    pasts, news = [], []
    part = lambda pair, i: pair and (pair[0][i], pair[1][i])
    for i, layer in enumerate(params['layers']):
      (x, own), new = block.apply(
          {'params': layer}, (x, part(past, i)), look,
          Layer(None, local[i], part(prompt, i)))
      pasts.append(own)
      news.append(new)
    turn = lambda pairs: pairs[0] and tuple(zip(*pairs))
    return x, turn(pasts), turn(news)

  def unembed(self, hidden_BTD):
    c = self.config
    output = self.embedding.T if c.tied else self.output
    logits = layers.dense(
        hidden_BTD, output.astype(c.dtype), dtype=jnp.float32)
    if c.softcap_final:
      logits = c.softcap_final * jnp.tanh(logits / c.softcap_final)
    return self.constrain(logits, ('batch', 'length', 'vocab'))
