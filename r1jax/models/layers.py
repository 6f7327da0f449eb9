"""What a decoder's layers are made of: products, norms, rotations, the MLP."""

import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from r1jax.models import shape
from r1jax.types import Array

_ACTIVATIONS = {
    'silu': nn.silu,
    'gelu': lambda x: nn.gelu(x, approximate=True),
}


def param(module, name, axes, size, init):
  """A parameter by its logical axes, in the dtype of computation."""
  return module.param(name, nn.with_logical_partitioning(init, axes), size,
                      jnp.dtype(module.config.param_dtype)).astype(
                          module.config.dtype)


def linear(fan_in: int, scale: float = 1.):
  """Initialises a weight so that its product keeps the inputs' size."""
  return nn.initializers.truncated_normal(scale * fan_in ** -0.5)


def dense(x: Array, weight: Array, contract: int = 1, dtype=None) -> Array:
  """x times weight, over the last axes of one and the first of the other.

  Tokens are laid end to end first: a gradient's product then sums over one
  axis, and XLA does not write its operand transposed.
  """
  rows, columns = x.shape[:x.ndim - contract], weight.shape[contract:]
  size = math.prod(weight.shape[:contract])
  y = jnp.matmul(x.reshape(math.prod(rows), size), weight.reshape(size, -1),
                 preferred_element_type=dtype)
  return y.reshape(rows + columns)


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


class MLP(nn.Module):
  """down(activation(gate(x)) * up(x))."""
  config: shape.Config

  @nn.compact
  def __call__(self, x_BTD):
    c = self.config
    gate, up = (param(self, name, ('embed', 'mlp'), (c.width, c.mlp),
                       linear(c.width)) for name in ('gate', 'up'))
    down = param(self, 'down', ('mlp', 'embed'), (c.mlp, c.width),
                  linear(c.mlp, (2 * c.layers) ** -0.5))
    # The backward pass keeps the two products only, and gates them again.
    gated = jax.checkpoint(
        lambda gate, up: _ACTIVATIONS[c.activation](gate) * up)
    return dense(gated(dense(x_BTD, gate), dense(x_BTD, up)), down)
