"""A decoder-only transformer whose settings are Llama, Qwen2, Qwen3, Gemma 3.

RMSNorm, rotary positions, grouped-query attention, gated MLP. Tokens go in,
hidden states, keys and values come out; `unembed` turns hidden states into
logits, apart, so that a caller can do it a chunk at a time. A row of tokens
is one sequence, or a prompt and all its responses, one behind the other:
weights are then read once, and only attention tells them apart.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import attention
from r1jax.models import layers
from r1jax.models import masks
from r1jax.models import shape
from r1jax.types import Array, Params


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
    y, past, new = attention.Attention(c, name='attention')(
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
    look = masks.Look(
        position=position_BT, segment=segment_BT,
        prompt_length=cache and cache.prompt_length,
        filled=cache and cache.filled)
    return self._layers(
        tokens_BT, position_BT, look, past=cache and (cache.k, cache.v),
        prompt=cache and (cache.prompt_k, cache.prompt_v))

  def groups(self, prompts, tokens_NT):
    """Hidden states of prompts and of their responses' tokens."""
    rows, length = prompts.tokens.shape
    group = tokens_NT.shape[0] // rows
    position_BP = jnp.broadcast_to(jnp.arange(length), (rows, length))
    position_NT = jnp.repeat(prompts.length, group)[:, None] + jnp.arange(
        tokens_NT.shape[1])
    look = masks.Look(
        position=position_BP, responses=masks.Look(
            position=position_NT, prompt_length=prompts.length))
    join = lambda x, y: jnp.concatenate([x, y.reshape(rows, -1)], 1)
    hidden, _ = self._layers(
        join(prompts.tokens, tokens_NT), join(position_BP, position_NT), look)
    return masks.apart(look, hidden)

  def _layers(self, tokens_BT, position_BT, look, past=None, prompt=None):
    """Hidden states, and the past with the new keys and values or these."""
    c = self.config
    x = self.embedding[tokens_BT].astype(c.dtype)
    if c.embed_scale:
      x *= jnp.asarray(c.width ** 0.5, x.dtype)
    x = self.constrain(x, ('batch', 'length', 'activation'))
    table = lambda theta: layers.rotary_table(position_BT, c.head_size, theta)
    look = look._replace(
        table=table(c.rope_theta),
        local_table=table(c.rope_theta_local) if c.rope_theta_local else None)
    local = jnp.asarray(c.is_local())
    if c.scan_layers or self.is_initializing():
      each = attention.Layer(jnp.arange(c.layers), local, prompt)
      (x, past), new = self.blocks((x, past), look, each)
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
          attention.Layer(None, local[i], part(prompt, i)))
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
