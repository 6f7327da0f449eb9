"""Grouped-query attention: projections, rotary positions, then the products."""

import functools

from flax import linen as nn
import jax.numpy as jnp

from r1jax.models import architecture
from r1jax.models import attention
from r1jax.models import layers
from r1jax.models import past as past_lib
from r1jax.models import rotary
from r1jax.models import row_attention
from r1jax.parallel import sharding
from r1jax.types import Array


class Attention(nn.Module):
  """Grouped-query attention over the prompt, the past and the new tokens.

  Returns the output [B, T, D], the past with the new tokens appended (None if
  there is none), and the keys and values of the new tokens.
  """
  config: architecture.Config
  place: sharding.Placement | None

  @nn.compact
  def __call__(self, x_BTD: Array, past: attention.KeysValues | None,
               layout: attention.Layout, layer: attention.LayerInputs
               ) -> tuple[Array, attention.KeysValues | None,
                          attention.KeysValues]:
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
    new = attention.to_parts(k, v)
    if past is None:
      out = row_attention.attend(c, self.place, layout, layer, q, k, v)
    else:
      past, late = past_lib.append(self.place, layout, layer, past, new)
      out = attention.attend_to_past(c, layout, layer, q, past, late=late)
    return layers.dense(out, wo, contract=2), past, new
