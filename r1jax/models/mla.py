"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, sec. 2.1).

Keys and values of all heads are made from one short latent vector a token;
positions are in a further part of the key that all heads share. A response's
past keeps these two alone. Against a past the products that make keys and
values are not done for every token in it: they are absorbed into the query and
the output, which makes of it attention with a single key head.
"""

import functools

from flax import linen as nn
import jax.numpy as jnp

from r1jax.models import architecture
from r1jax.models import attention
from r1jax.models import layers
from r1jax.models import rotary
from r1jax.types import Array


_EPS = 1e-6  # of the latents' norms, whatever that of the others


class LatentAttention(nn.Module):
  """As attention.Attention; a past is (latent and position key, None)."""
  config: architecture.Config

  @nn.compact
  def __call__(self, x_BTD, past, look, layer):
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
    key_BTp = rotary.rotate(key_BTp[:, :, None], look.table)[:, :, 0]
    q_nope, q_rope = jnp.split(q, [sizes.nope_size], -1)
    q_rope = rotary.rotate(q_rope, look.table)
    scale = jnp.asarray(rotary.score_scale(c), q.dtype)
    q_nope, q_rope = scale * q_nope, scale * q_rope
    kept_BTK = jnp.concatenate([latent_BTr, key_BTp], -1)[:, :, None]
    new = kept_BTK.transpose(0, 2, 3, 1), None
    if past is None:
      k, v = jnp.split(
          layers.dense(latent_BTr, kv_b), [sizes.nope_size], -1)
      key_BTHp = jnp.broadcast_to(key_BTp[:, :, None], q_rope.shape)
      out = attention.attend_in_rows(
          c, look, layer, jnp.concatenate([q_nope, q_rope], -1),
          jnp.concatenate([k, key_BTHp], -1), v)
    else:
      past, own = attention.append(past, new, look.filled, layer.index)
      out = self._absorbed(
          q_nope, q_rope, layers.whole(kv_b), own[0], look, layer)
    return layers.dense(out, wo, contract=2), past, new

  def _queries(self, x_BTD, weight):
    c, rank = self.config, self.config.latent.q_rank
    into, axis, name = c.width, 'embed', 'q'
    if rank is not None:
      q_a = weight('q_a', ('embed', 'rank'), (c.width, rank),
                   layers.linear(c.width))
      x_BTD = layers.RMSNorm(c, _EPS, name='q_norm')(layers.dense(x_BTD, q_a))
      into, axis, name = rank, 'latent', 'q_b'
    wq = weight(name, (axis, 'heads', 'head_size'),
                (into, c.heads, c.head_size), layers.linear(into))
    return layers.dense(x_BTD, wq)

  def _absorbed(self, q_nope, q_rope, kv_b, own_k, look, layer) -> Array:
    """Attention over latents; the heads' own keys and values never exist."""
    c, rank = self.config, self.config.latent.kv_rank
    to_key, to_value = jnp.split(kv_b, [c.latent.nope_size], -1)
    values = lambda k: k[:, :, :rank].swapaxes(-1, -2)
    q = jnp.concatenate(
        [jnp.einsum('NTHn,rHn->NTHr', q_nope, to_key), q_rope], -1)
    prompt_k, _ = layer.prompt
    out = attention.attend(
        c, look, layer._replace(prompt=(prompt_k, values(prompt_k))), q,
        own_k, values(own_k))
    return jnp.einsum('NTHr,rHv->NTHv', out, to_value)
