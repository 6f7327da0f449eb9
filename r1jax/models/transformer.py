"""A decoder-only transformer whose settings are Llama, Qwen2, Qwen3, Gemma 3.

RMSNorm, rotary positions, grouped-query attention, gated MLP. Tokens go in,
hidden states and the new keys and values come out; `unembed` turns hidden
states into logits, apart, so that a caller can do it a chunk at a time.
"""

from typing import Any, Callable, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.kernels import attention
from r1jax.models import shape
from r1jax.types import Array, Cache

_ACTIVATIONS = {
    'silu': nn.silu,
    'gelu': lambda x: nn.gelu(x, approximate=True),
}


def _param(module, name, axes, shape, init):
  return module.param(name, nn.with_logical_partitioning(init, axes), shape,
                      jnp.dtype(module.config.param_dtype)).astype(
                          module.config.dtype)


def _linear(fan_in: int, scale: float = 1.):
  return nn.initializers.truncated_normal(scale * fan_in ** -0.5)


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in float32."""
  config: shape.Config

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.with_logical_partitioning(
        nn.initializers.ones, ('norm',)), x.shape[-1:],
        jnp.dtype(self.config.param_dtype))
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True)
                          + self.config.rms_eps)
    return (y * scale).astype(x.dtype)


def rotary_table(position_BT: Array, head_size: int, theta: float) -> Array:
  """cos and sin of every position and frequency: f32[2, B, T, h / 2]."""
  frequency = theta ** (-jnp.arange(0, head_size, 2) / head_size)
  angle = position_BT[..., None].astype(jnp.float32) * frequency
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def rotate(x_BTXh: Array, table: Array) -> Array:
  """Rotary position embedding in the half-split form (Su et al., 2104.09864).

  Entry i turns with entry i + h/2, as in the Hugging Face checkpoints.
  """
  cos, sin = table[:, :, :, None]
  a, b = jnp.split(x_BTXh.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(
      x_BTXh.dtype)


class Look(NamedTuple):
  """Where the queries of one forward pass stand, the same for all layers."""
  position: Array  # i32[B, T]
  segment: Array | None  # i32[B, T]; None: one document a row
  table: Array  # rotary cos, sin
  local_table: Array | None  # those of local layers
  prompt_length: Array | None  # i32[prompts], with a cache
  filled: Array | None  # i32[], with a cache


def _window(config: shape.Config, look: Look, key_position: Array,
            local: Array):
  """bool[B, T, S]: which keys a layer's window lets a query see."""
  if config.window is None:
    return True
  distance = look.position[:, :, None] - key_position
  return ~local | (distance < config.window)


def _parts(config: shape.Config, look: Look, local, past, k, v):
  """The prompt, the past and the new tokens as attention's parts."""
  rows, length = look.position.shape
  parts = []
  if past is not None:
    prompt_k, prompt_v, past_k, past_v = past
    prompts, index = prompt_k.shape[0], jnp.arange(prompt_k.shape[-1])
    seen = (index < look.prompt_length[:, None])[:, None, None]
    near = _window(config, look, index, local)
    if near is not True:
      near = near.reshape(prompts, rows // prompts, length, -1)
    parts.append(attention.Part(prompt_k, prompt_v, seen & near))
    if past_k.shape[-1]:
      index = jnp.arange(past_k.shape[-1])
      start = jnp.repeat(look.prompt_length, rows // prompts)
      near = _window(config, look, (start[:, None] + index)[:, None], local)
      seen = (index < look.filled) & near
      parts.append(attention.Part(
          past_k, past_v, jnp.expand_dims(seen, 1) if seen.ndim == 3 else
          seen[None, None, None]))
  index = jnp.arange(length)
  seen = (index <= index[:, None])[None]
  if look.segment is not None:
    seen &= look.segment[:, :, None] == look.segment[:, None]
  seen &= _window(config, look, look.position[:, None], local)
  parts.append(attention.Part(k, v, seen[:, None]))
  return parts


class Attention(nn.Module):
  """Grouped-query attention over the prompt, the past and the new tokens."""
  config: shape.Config

  @nn.compact
  def __call__(self, x_BTD, look, local, past):
    c = self.config
    width, heads, kv_heads, size = c.width, c.heads, c.kv_heads, c.head_size
    wq = _param(self, 'q', ('embed', 'heads', 'head_size'),
                (width, heads, size), _linear(width))
    wk, wv = (_param(self, name, ('embed', 'kv_heads', 'head_size'),
                     (width, kv_heads, size), _linear(width))
              for name in ('k', 'v'))
    wo = _param(self, 'o', ('heads', 'head_size', 'embed'),
                (heads, size, width),
                _linear(heads * size, (2 * c.layers) ** -0.5))
    q, k, v = (jnp.einsum('btd,dxh->btxh', x_BTD, w) for w in (wq, wk, wv))
    if c.qkv_bias:
      bias = lambda name, axis, n: _param(
          self, name, (axis, 'head_size'), (n, size), nn.initializers.zeros)
      q += bias('q_bias', 'heads', heads)
      k += bias('k_bias', 'kv_heads', kv_heads)
      v += bias('v_bias', 'kv_heads', kv_heads)
    if c.qk_norm:
      q = RMSNorm(c, name='q_norm')(q)
      k = RMSNorm(c, name='k_norm')(k)
    table = look.table
    if look.local_table is not None:
      table = jnp.where(local, look.local_table, table)
    q, k = rotate(q, table), rotate(k, table)
    q = q * jnp.asarray(c.attention_scale or size ** -0.5, q.dtype)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    out = attention.attend(q, _parts(c, look, local, past, k, v),
                           softcap=c.softcap_attention)
    return jnp.einsum('btxh,xhd->btd', out, wo), (k, v)


class MLP(nn.Module):
  """down(activation(gate(x)) * up(x))."""
  config: shape.Config

  @nn.compact
  def __call__(self, x_BTD):
    c = self.config
    gate, up = (_param(self, name, ('embed', 'mlp'), (c.width, c.mlp),
                       _linear(c.width)) for name in ('gate', 'up'))
    down = _param(self, 'down', ('mlp', 'embed'), (c.mlp, c.width),
                  _linear(c.mlp, (2 * c.layers) ** -0.5))
    return (_ACTIVATIONS[c.activation](x_BTD @ gate) * (x_BTD @ up)) @ down


class Block(nn.Module):
  """Attention and MLP on a residual stream; scanned over the layers."""
  config: shape.Config
  constrain: Callable[[Array, tuple], Array]

  @nn.compact
  def __call__(self, x_BTD, look, layer):
    c = self.config
    local, past = layer
    post = (lambda name: RMSNorm(c, name=name)) if c.post_norms else (
        lambda name: lambda y: y)
    y, kv = Attention(c, name='attention')(
        RMSNorm(c, name='attention_norm')(x_BTD), look, local, past)
    x_BTD = x_BTD + post('attention_post_norm')(y)
    y = MLP(c, name='mlp')(RMSNorm(c, name='mlp_norm')(x_BTD))
    x_BTD = x_BTD + post('mlp_post_norm')(y)
    return self.constrain(x_BTD, ('batch', 'length', 'activation')), kv


class Decoder(nn.Module):
  """Embedding, scanned blocks, final norm; and the way back to logits."""
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
              _linear(c.width), ('table', 'vocab')),
          (c.width, c.vocab), jnp.dtype(c.param_dtype))
    block = nn.remat(Block, policy=shape.REMAT[c.remat], prevent_cse=False) if (
        c.remat != 'none') else Block
    self.blocks = nn.scan(
        block, length=c.layers, unroll=c.unroll, in_axes=(nn.broadcast, 0),
        out_axes=0, variable_axes={'params': 0}, split_rngs={'params': True},
        metadata_params={nn.PARTITION_NAME: 'layers'})(c, self.constrain)
    self.final_norm = RMSNorm(c)

  def __call__(self, tokens_BT, segment_BT, position_BT, cache):
    c = self.config
    x = self.embedding[tokens_BT].astype(c.dtype)
    if c.embed_scale:
      x *= jnp.asarray(c.width ** 0.5, x.dtype)
    x = self.constrain(x, ('batch', 'length', 'activation'))
    table = lambda theta: rotary_table(position_BT, c.head_size, theta)
    look = Look(
        position=position_BT, segment=segment_BT, table=table(c.rope_theta),
        local_table=table(c.rope_theta_local) if c.rope_theta_local else None,
        prompt_length=cache and cache.prompt_length,
        filled=cache and cache.filled)
    past = cache and (cache.prompt_k, cache.prompt_v, cache.k, cache.v)
    x, (k, v) = self.blocks(x, look, (jnp.asarray(c.is_local()), past))
    return self.final_norm(x), (k, v)

  def unembed(self, hidden_BTD):
    c = self.config
    output = self.embedding.T if c.tied else self.output
    logits = jnp.einsum('btd,dv->btv', hidden_BTD, output.astype(c.dtype),
                        preferred_element_type=jnp.float32)
    if c.softcap_final:
      logits = c.softcap_final * jnp.tanh(logits / c.softcap_final)
    return self.constrain(logits, ('batch', 'length', 'vocab'))
