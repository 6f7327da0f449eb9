"""A decoder-only transformer: Llama, Qwen2, Qwen3, Gemma 3, DeepSeek-V3.

RMSNorm, rotary positions, grouped-query or latent attention, gated MLP or a
mixture of them. Tokens go in,
hidden states, keys and values come out; `unembed` turns hidden states into
logits, apart, so that a caller can do it a chunk at a time. A row of tokens
is one sequence, or a prompt and all its responses, one behind the other:
weights are then read once, and only attention tells them apart.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import architecture
from r1jax.models import attention
from r1jax.models import layers
from r1jax.models import mla
from r1jax.models import moe
from r1jax.models import rotary
from r1jax.parallel import sharding
from r1jax.types import Params


STACKS = ('dense_blocks', 'blocks')  # of layers that are alike, in order


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
  config: architecture.Config
  place: sharding.Placement | None
  experts: bool

  @nn.compact
  def __call__(self, carry, look, layer):
    c = self.config
    x_BTD, past = carry
    norm = lambda name: layers.RMSNorm(c, name=name)
    post = norm if c.post_norms else lambda name: lambda y: y
    attend = (mla.LatentAttention if c.latent else attention.Attention)(
        c, name='attention')
    mlp = moe.MoE(c, self.place, name='moe') if self.experts else layers.MLP(
        c, name='mlp')
    y, past, new = attend(norm('attention_norm')(x_BTD), past, look, layer)
    x_BTD = x_BTD + post('attention_post_norm')(y)
    x_BTD = x_BTD + post('mlp_post_norm')(mlp(norm('mlp_norm')(x_BTD)))
    x_BTD = layers.constrain(
        self.place, x_BTD, ('batch', 'length', 'activation'))
    kept = past is None and look.responses is None
    return (x_BTD, past), new if kept else None


class Decoder(nn.Module):
  """Embedding, blocks, final norm; and the way back to logits, or a score."""
  config: architecture.Config
  place: sharding.Placement | None

  def setup(self):
    c = self.config
    self.embedding = self.param(
        'embedding', nn.with_logical_partitioning(
            nn.initializers.normal(c.width ** -0.5), ('vocab', 'table')),
        (c.vocab, c.width), jnp.dtype(c.param_dtype))
    if c.scalar:
      self.head = layers.Score(c)
    elif not c.tied:
      self.output = self.param(
          'output', nn.with_logical_partitioning(
              layers.linear(c.width), ('table', 'vocab')),
          (c.width, c.vocab), jnp.dtype(c.param_dtype))
    for name, begin, end in self._stacks():
      setattr(self, name, nn.scan(
          self._block(), length=end - begin, in_axes=(nn.broadcast, 0),
          out_axes=0, variable_axes={'params': 0, 'lora': 0},
          split_rngs={'params': True},
          metadata_params={nn.PARTITION_NAME: 'layers'})(
              c, self.place, self._experts(name)))
    self.final_norm = layers.RMSNorm(c)

  def _stacks(self) -> list[tuple[str, int, int]]:
    """Name, first layer and end of each stack that the model has."""
    c = self.config
    if c.moe is None:
      return [('blocks', 0, c.layers)]
    first = c.moe.dense_layers
    stacks = [('dense_blocks', 0, first), ('blocks', first, c.layers)]
    return [stack for stack in stacks if stack[1] < stack[2]]

  def _experts(self, stack: str) -> bool:
    return self.config.moe is not None and stack == 'blocks'

  def __call__(self, tokens_BT, segment_BT, position_BT, cache, parent_BT):
    look = attention.Look(
        position=position_BT, segment=segment_BT, parent=parent_BT,
        prompt_length=cache and cache.prompt_length,
        filled=cache and cache.filled)
    hidden_BTD, new = self._layers(
        tokens_BT, position_BT, look, past=cache and (cache.k, cache.v),
        prompt=cache and (cache.prompt_k, cache.prompt_v))
    if self.config.scalar and self.is_initializing():
      self.head(hidden_BTD)
    return hidden_BTD, new

  def groups(self, prompts, tokens_NT):
    """Hidden states of prompts and of their responses' tokens."""
    rows, length = prompts.tokens.shape
    group = tokens_NT.shape[0] // rows
    position_BP = jnp.broadcast_to(jnp.arange(length), (rows, length))
    position_NT = jnp.repeat(prompts.length, group)[:, None] + jnp.arange(
        tokens_NT.shape[1])
    look = attention.Look(
        position=position_BP, responses=attention.Look(
            position=position_NT, prompt_length=prompts.length))
    join = lambda x, y: jnp.concatenate([x, y.reshape(rows, -1)], 1)
    hidden, _ = self._layers(
        join(prompts.tokens, tokens_NT), join(position_BP, position_NT), look)
    return attention.split_responses(look, hidden)

  def _layers(self, tokens_BT, position_BT, look, past=None, prompt=None):
    """Hidden states, and the past with the new keys and values or these."""
    c = self.config
    x = self.embedding[tokens_BT].astype(c.dtype)
    if c.embed_scale:
      x *= jnp.asarray(c.width ** 0.5, x.dtype)
    x = layers.constrain(self.place, x, ('batch', 'length', 'activation'))
    table = functools.partial(rotary.table, position_BT, c.rotary_size)
    look = look._replace(
        table=table(c.rope_theta, c.rope_scaling),
        local_table=table(c.rope_theta_local) if c.rope_theta_local else None)
    local = jnp.asarray(c.is_local())
    run = self._scan if c.scan_layers or self.is_initializing() else self._each
    x, past, new = run(
        x, past, look, attention.Layer(jnp.arange(c.layers), local, prompt))
    return self.final_norm(x), new if past is None else past

  def _block(self):
    if self.config.remat == 'none':
      return Block
    return nn.remat(Block, policy=architecture.REMAT[self.config.remat],
                    prevent_cse=not self.config.scan_layers)

  def _scan(self, x, past, look, each):
    news = []
    for name, begin, end in self._stacks():
      part = jax.tree.map(lambda y, b=begin, e=end: y[b:e], each)
      (x, past), new = getattr(self, name)((x, past), look, part)
      news.append(new)
    return x, past, jax.tree.map(lambda *y: jnp.concatenate(y), *news)

  def _each(self, x, past, look, each):
    """The scan of the layers written out: XLA then neither stacks what the
    layers keep for the backward pass nor copies their parts of a cache."""
    pasts, news = [], []
    part = lambda pair, i: pair and tuple(
        None if y is None else y[i] for y in pair)
    for name, begin, end in self._stacks():
      block = self._block()(
          self.config, self.place, self._experts(name), parent=None)
      variables = getattr(self, name).variables
      apart = {kind: x.get('layers') or unstack(x)
               for kind, x in variables.items()}
      for i in range(begin, end):
        layer = attention.Layer(None, each.local[i], part(each.prompt, i))
        (x, own), new = block.apply(
            {kind: y[i - begin] for kind, y in apart.items()},
            (x, part(past, i)), look, layer)
        pasts.append(own)
        news.append(new)
    turn = lambda *y: y
    return x, jax.tree.map(turn, *pasts), jax.tree.map(turn, *news)

  def score(self, hidden_BTD):
    return self.head(hidden_BTD)

  def unembed(self, hidden_BTD):
    c = self.config
    output = self.embedding.T if c.tied else self.output
    logits = layers.dense(
        hidden_BTD, output.astype(c.dtype), dtype=jnp.float32)
    if c.softcap_final:
      logits = c.softcap_final * jnp.tanh(logits / c.softcap_final)
    return layers.constrain(self.place, logits, ('batch', 'length', 'vocab'))
