"""A decoder-only transformer: Llama, Qwen2, Qwen3, Gemma 3, DeepSeek-V3.

RMSNorm, rotary positions, grouped-query or latent attention, and a gated MLP or
a mixture of experts. The decoder turns tokens into hidden states, keys and
values. `unembed`, which turns hidden states into logits, is separate, so that a
caller can apply it to a chunk at a time. A row of tokens is one sequence, or a
prompt followed by all its responses: weights are then read once for all.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.kernels import embedding
from r1jax.kernels import packing
from r1jax.models import architecture
from r1jax.models import attention
from r1jax.models import gqa
from r1jax.models import layers
from r1jax.models import mla
from r1jax.models import moe
from r1jax.models import past as past_lib
from r1jax.models import rotary
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params, Prompts

STACKS = ('dense_blocks', 'blocks')  # of equal layers, in order


def unstack(blocks: Params) -> list[Params]:
  """The parameters of each layer, from stacked ones.

  The gradient of a split is one concatenation; that of L slices would be the
  sum of L arrays of full size.
  """
  leaves, tree = jax.tree.flatten(blocks)
  parts = zip(*(jax.lax.split(x, [1] * x.shape[0]) for x in leaves))
  return [tree.unflatten([x[0] for x in layer]) for layer in parts]


class Block(nn.Module):
  """One layer: attention and MLP on a residual stream.

  The body of a scan over layers. The carry is (x [B, T, D], past); the output
  the keys and values of the new tokens, or None where the past has them or
  there are responses, and the experts that are chosen, if there are any.
  """
  config: architecture.Config
  place: sharding.Placement | None
  experts: bool  # the MLP is a mixture of experts

  @nn.compact
  def __call__(self, carry: tuple[Array, attention.KeysValues | None],
               layout: attention.Layout, layer: attention.LayerInputs):
    c = self.config
    x_BTD, past = carry
    norm = lambda name: layers.RMSNorm(c, name=name)
    post = norm if c.post_norms else lambda name: lambda y: y
    if layout.owner is not None:
      layer = layer._replace(
          prompt=sharding.pick(self.place, layer.prompt, layout.owner))
    attend = (mla.LatentAttention if c.latent else gqa.Attention)(
        c, self.place, name='attention')
    y, past, new = attend(norm('attention_norm')(x_BTD), past, layout, layer)
    x_BTD = x_BTD + post('attention_post_norm')(y)
    y, chosen = norm('mlp_norm')(x_BTD), None
    if self.experts:
      y, chosen = moe.MoE(c, self.place, name='moe')(y, layer.experts)
    else:
      y = layers.MLP(c, self.place, name='mlp')(y)
    x_BTD = x_BTD + post('mlp_post_norm')(y)
    x_BTD = layers.constrain(
        self.place, x_BTD, ('batch', 'length', 'activation'))
    returns_new = layout.responses is None and (
        past is None or past_lib.writes_late(self.place, layout))
    return (x_BTD, past), (new if returns_new else None, chosen)


def _block(config: architecture.Config, place: sharding.Placement | None
           ) -> type[Block]:
  """The block, as remat has it."""
  on_mesh = place is not None and place.mesh.size > 1
  if config.remat == 'none' and not on_mesh:
    return Block
  return nn.remat(Block, policy=architecture.REMAT[config.remat],
                  prevent_cse=not config.scan_layers)


@functools.cache
def _run_block(config: architecture.Config, place: sharding.Placement | None,
               experts: bool):
  """A block's `apply`, which is traced once for all layers and programs."""
  return jax.jit(_block(config, place)(
      config, place, experts, parent=None).apply)


class Decoder(nn.Module):
  """Embedding, blocks, final norm; and the output matrix or scalar head."""
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
    elif not c.tied and not self.has_variable('matrices', 'output'):
      self.output = self.param(
          'output', nn.with_logical_partitioning(
              layers.linear(c.width), ('table', 'vocab')),
          (c.width, c.vocab), jnp.dtype(c.param_dtype))
    for name, begin, end in self._stacks():
      setattr(self, name, nn.scan(
          _block(c, self.place), length=end - begin,
          in_axes=(nn.broadcast, 0), out_axes=0,
          variable_axes={'params': 0, 'lora': 0}, split_rngs={'params': True},
          metadata_params={nn.PARTITION_NAME: 'layers'})(
              c, self.place, self._has_experts(name)))
    self.final_norm = layers.RMSNorm(c)

  def _stacks(self) -> list[tuple[str, int, int]]:
    """Name, first layer and end of each of the model's stacks."""
    c = self.config
    if c.moe is None:
      return [('blocks', 0, c.layers)]
    first = c.moe.dense_layers
    stacks = [('dense_blocks', 0, first), ('blocks', first, c.layers)]
    return [stack for stack in stacks if stack[1] < stack[2]]

  def _has_experts(self, stack: str) -> bool:
    return self.config.moe is not None and stack == 'blocks'

  def __call__(self, tokens_BT: Array, segment_BT: Array | None,
               position_BT: Array, cache: Cache | None,
               parent_BT: Array | None = None
               ) -> tuple[Array, tuple[Array, Array], Array | None]:
    """`Model.forward_routed`."""
    layout = attention.Layout(
        position=position_BT, segment=segment_BT, parent=parent_BT)
    if cache is not None:
      length = cache.prompt_length
      if cache.owner is not None:
        length = sharding.pick(self.place, length, cache.owner)
      layout = layout._replace(
          prompt_length=length, filled=cache.filled, owner=cache.owner)
    hidden_BTD, new, chosen_BTLK = self._layers(
        tokens_BT, position_BT, layout, past=cache and (cache.k, cache.v),
        prompt=cache and (cache.prompt_k, cache.prompt_v))
    if self.config.scalar and self.is_initializing():
      self.head(hidden_BTD)
    return hidden_BTD, new, chosen_BTLK

  def forward_groups(self, prompts: Prompts, tokens_NT: Array,
                     experts_NTLK: Array | None = None,
                     segment_NT: Array | None = None
                     ) -> tuple[Array, Array, Array | None]:
    """`Model.replay_groups`."""
    rows, length = prompts.tokens.shape
    group = tokens_NT.shape[0] // rows
    position_BP = jnp.broadcast_to(jnp.arange(length), (rows, length))
    token = jnp.arange(tokens_NT.shape[1]) if segment_NT is None else (
        packing.tokens_of(segment_NT))
    position_NT = jnp.repeat(prompts.length, group)[:, None] + token
    layout = attention.Layout(
        position=position_BP, responses=attention.Layout(
            position=position_NT, segment=segment_NT,
            prompt_length=prompts.length))
    join = lambda x, y: layers.pad_length(self.place, jnp.concatenate(
        [x, y.reshape(rows, -1, *y.shape[2:])], 1))
    hidden, _, chosen = self._layers(
        join(prompts.tokens, tokens_NT), join(position_BP, position_NT), layout,
        experts=None if experts_NTLK is None else jnp.moveaxis(
            join(prompts.experts, experts_NTLK), 2, 0))
    if chosen is not None:
      chosen = attention.split_responses(layout, chosen)[1]
    return *attention.split_responses(layout, hidden), chosen

  def _layers(self, tokens_BT: Array, position_BT: Array,
              layout: attention.Layout, past=None, prompt=None, experts=None):
    """Hidden states; keys and values, past and new or without it new; experts.

    `experts` [L, B, T, K] are those to replay, of layers that have any.
    """
    c = self.config
    x = embed(self.place, self.embedding, tokens_BT, c.dtype)
    if c.embed_scale:
      x *= jnp.asarray(c.width ** 0.5, x.dtype)
    x = layers.constrain(self.place, x, ('batch', 'length', 'activation'))
    table = functools.partial(rotary.table, position_BT, c.rotary_size)
    layout = layout._replace(
        table=table(c.rope_theta, c.rope_scaling),
        local_table=table(c.rope_theta_local) if c.rope_theta_local else None)
    local = jnp.asarray(c.is_local())
    scan = c.scan_layers or self.is_initializing()
    x, past, new, chosen = (self._scanned if scan else self._unrolled)(
        x, past, layout,
        attention.LayerInputs(jnp.arange(c.layers), local, prompt), experts)
    if past is None:
      past = new
    elif past_lib.writes_late(self.place, layout):
      past = past_lib.write_late(self.place, past, new, layout.filled)
    return self.final_norm(x), past, chosen

  def _scanned(self, x: Array, past, layout: attention.Layout,
               per_layer: attention.LayerInputs, experts: Array | None):
    """All layers, each stack as one scan."""
    news, chosen = [], None
    for name, begin, end in self._stacks():
      stack = jax.tree.map(lambda y, b=begin, e=end: y[b:e], per_layer)
      if self._has_experts(name):
        stack = stack._replace(experts=experts)
      run = getattr(self, name)
      if 'matrices' in run.variables:
        run = functools.partial(self._scan_prepared, name)
      (x, past), (new, chosen) = run((x, past), layout, stack)
      news.append(new)
    return x, past, jax.tree.map(lambda *y: jnp.concatenate(y), *news), (
        chosen if chosen is None else jnp.moveaxis(chosen, 0, 2))

  def _scan_prepared(self, name: str, carry, layout: attention.Layout,
                     stack: attention.LayerInputs):
    """A scan over layers whose `layers.Matrices` are not stacked."""
    block = Block(self.config, self.place, self._has_experts(name), parent=None)
    variables = dict(getattr(self, name).variables)
    matrices = variables.pop('matrices')

    def body(carry, inputs):
      index, variables, layer = inputs
      own = jax.tree.map(
          lambda x: layers.Matrices(x, index), matrices,
          is_leaf=lambda x: isinstance(x, tuple))
      return block.apply(
          variables | {'matrices': own}, carry, layout, layer)

    return jax.lax.scan(
        body, carry, (jnp.arange(len(stack.local)), variables, stack))

  def _unrolled(self, x: Array, past, layout: attention.Layout,
                per_layer: attention.LayerInputs, experts: Array | None):
    """All layers, one after the other.

    XLA then neither stacks the values that layers store for the backward pass
    nor copies their parts of a cache.
    """
    pasts, news, chosen = [], [], []
    of_layer = lambda pair, i: pair and tuple(
        None if y is None else y[i] for y in pair)
    for name, begin, end in self._stacks():
      run = _run_block(self.config, self.place, self._has_experts(name))
      variables = {kind: tree.get('layers') or unstack(tree) for kind, tree
                   in getattr(self, name).variables.items()}
      for i in range(begin, end):
        layer = attention.LayerInputs(
            None, per_layer.local[i], of_layer(per_layer.prompt, i),
            experts[i - begin] if experts is not None and self._has_experts(
                name) else None)
        (x, layer_past), (new, own) = run(
            {kind: trees[i - begin] for kind, trees in variables.items()},
            (x, of_layer(past, i)), layout, layer)
        pasts.append(layer_past)
        news.append(new)
        chosen += [] if own is None else [own]
    as_tuple = lambda *y: y
    return (x, jax.tree.map(as_tuple, *pasts), jax.tree.map(as_tuple, *news),
            jnp.stack(chosen, 2) if chosen else None)

  def score(self, hidden_BTD: Array) -> Array:
    """`Model.score`."""
    return self.head(hidden_BTD)


def embed(place: sharding.Placement | None, table_VD: Array,
          tokens_BT: Array, dtype: str) -> Array:
  """The rows of the embedding for some tokens, [B, T, D], in a dtype.

  On a mesh each device looks its own tokens up and sums their gradients; XLA
  would bring the gradients of all tokens to every part of the table.
  """
  look_up = functools.partial(embedding.look_up, dtype=dtype)
  parts = place and place.row_parts(*tokens_BT.shape)
  if parts:
    look_up = parts.on_each(look_up)
  return look_up(table_VD, tokens_BT)


def head(config: architecture.Config, params: Params) -> Params:
  """`Model.head`."""
  name = 'embedding' if config.tied else 'output'
  return {name: params[name]}


def unembed(config: architecture.Config, place: sharding.Placement | None,
            params: Params, hidden_BTD: Array) -> Array:
  """`Model.unembed`."""
  if 'matrices' in params:
    logits = layers.dense(hidden_BTD, layers.Matrices(
        params['matrices']['output']), dtype=jnp.float32)
  elif config.tied:
    # By the table as it lies: XLA for CPUs writes a transposed one first.
    logits = jnp.einsum(
        'xd,vd->xv', hidden_BTD.reshape(-1, config.width),
        params['embedding'].astype(config.dtype),
        preferred_element_type=jnp.float32)
    logits = logits.reshape(*hidden_BTD.shape[:-1], -1)
  else:
    logits = layers.dense(
        hidden_BTD, params['output'].astype(config.dtype), dtype=jnp.float32)
  if config.softcap_final:
    logits = config.softcap_final * jnp.tanh(logits / config.softcap_final)
  return layers.constrain(place, logits, ('batch', 'length', 'vocab'))
