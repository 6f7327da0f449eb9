"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, sec. 2.1).

The keys and values of all heads are projections of one short latent vector per
token; rotary positions are in a further part of the key, which all heads
share. A cache holds only these two. The keys and values of a past are not
projected again: the projections are absorbed into the query and the output,
so that attention has a single key head.
"""

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


_EPS = 1e-6  # of the latents' norms, in every model


class LatentAttention(nn.Module):
  """As gqa.Attention; a past is (latent and rotary key, None)."""
  config: architecture.Config
  place: sharding.Placement | None

  @nn.compact
  def __call__(self, x_BTD: Array, past: attention.KeysValues | None,
               layout: attention.Layout, layer: attention.LayerInputs
               ) -> tuple[Array, attention.KeysValues | None,
                          attention.KeysValues]:
    c, sizes = self.config, self.config.latent
    weight = functools.partial(layers.param, self)
    q = self._queries(x_BTD, weight)
    kv_a = weight('kv_a', ('embed', 'rank'),
                  (c.width, sizes.kv_rank + sizes.rope_size),
                  layers.linear(c.width))
    kv_b = weight('kv_b', ('latent', 'heads', 'head_size'),
                  (sizes.kv_rank, c.heads, sizes.nope_size + sizes.value_size),
                  layers.linear(sizes.kv_rank))
    wo = weight('o', ('heads', 'head_size', 'embed'),
                (c.heads, sizes.value_size, c.width),
                layers.linear(c.heads * sizes.value_size,
                              (2 * c.layers) ** -0.5))
    latent_BTr, key_BTp = jnp.split(
        layers.dense(x_BTD, kv_a), [sizes.kv_rank], -1)
    latent_BTr = layers.RMSNorm(c, _EPS, name='kv_norm')(latent_BTr)
    key_BTp = rotary.rotate(key_BTp[:, :, None], layout.table)[:, :, 0]
    q_nope, q_rope = jnp.split(q, [sizes.nope_size], -1)
    q_rope = rotary.rotate(q_rope, layout.table)
    scale = jnp.asarray(rotary.score_scale(c), q.dtype)
    q_nope, q_rope = scale * q_nope, scale * q_rope
    cached_BT1k = jnp.concatenate([latent_BTr, key_BTp], -1)[:, :, None]
    new = cached_BT1k.transpose(0, 2, 3, 1), None
    if past is None:
      k, v = jnp.split(
          layers.dense(latent_BTr, kv_b), [sizes.nope_size], -1)
      key_BTHp = jnp.broadcast_to(key_BTp[:, :, None], q_rope.shape)
      out = row_attention.attend(
          c, self.place, layout, layer, jnp.concatenate([q_nope, q_rope], -1),
          jnp.concatenate([k, key_BTHp], -1), v)
    else:
      past, late = past_lib.append(self.place, layout, layer, past, new)
      out = self._absorbed(q_nope, q_rope, kv_b, past, layout, layer, late)
    return layers.dense(out, wo, contract=2), past, new

  def _queries(self, x_BTD: Array, weight) -> Array:
    """Queries of all heads, with and without a latent of their own."""
    c, rank = self.config, self.config.latent.q_rank
    inputs, axis, name = c.width, 'embed', 'q'
    if rank is not None:
      q_a = weight('q_a', ('embed', 'rank'), (c.width, rank),
                   layers.linear(c.width))
      x_BTD = layers.RMSNorm(c, _EPS, name='q_norm')(layers.dense(x_BTD, q_a))
      inputs, axis, name = rank, 'latent', 'q_b'
    wq = weight(name, (axis, 'heads', 'head_size'),
                (inputs, c.heads, c.head_size), layers.linear(inputs))
    return layers.dense(x_BTD, wq)

  def _absorbed(self, q_nope: Array, q_rope: Array, kv_b: Array,
                past: attention.KeysValues, layout: attention.Layout,
                layer: attention.LayerInputs,
                late: attention.KeysValues | None) -> Array:
    """Attention over the latents, without keys and values of each head."""
    c, rank = self.config, self.config.latent.kv_rank
    to_key, to_value = jnp.split(kv_b, [c.latent.nope_size], -1)
    values = lambda k: k[:, :, :rank].swapaxes(-1, -2)
    q = jnp.concatenate(
        [jnp.einsum('NTHn,rHn->NTHr', q_nope, to_key), q_rope], -1)
    prompt_k, _ = layer.prompt
    out = attention.attend_to_past(
        c, layout, layer._replace(prompt=(prompt_k, values(prompt_k))), q,
        past, values, late)
    return jnp.einsum('NTHr,rHv->NTHv', out, to_value)
