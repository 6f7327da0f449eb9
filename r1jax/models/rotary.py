"""Rotary positions (Su et al., arXiv 2104.09864), also for long contexts."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.models import architecture
from r1jax.types import Array


def frequencies(size: int, theta: float,
                scaling: architecture.RopeScaling | None = None) -> np.ndarray:
  """Radians per position of each pair of a head's entries, f64[size / 2].

  'linear' divides all frequencies by the factor (Chen et al., arXiv
  2306.15595). 'llama3' divides those that turn less than `low_freq` times
  within the original length, keeps those that turn more than `high_freq`
  times, and interpolates linearly in between (Llama 3.1). 'yarn' interpolates
  along the index of the pair instead, between the pairs that turn `beta_slow`
  and `beta_fast` times (Peng et al., arXiv 2309.00071).
  """
  frequency = theta ** (-np.arange(0, size, 2) / size)
  if scaling is None:
    return frequency
  if scaling.kind == 'linear':
    return frequency / scaling.factor
  if scaling.kind == 'llama3':
    turns = scaling.original_len * frequency / (2 * math.pi)
    kept = (turns - scaling.low_freq) / (scaling.high_freq - scaling.low_freq)
  else:
    pair = lambda turns: size * math.log(
        scaling.original_len / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    if high == low:
      high += 1e-3
    kept = (high - np.arange(size // 2)) / (high - low)
  kept = np.clip(kept, 0, 1)
  return frequency * (kept + (1 - kept) / scaling.factor)


def _mscale(factor: float, weight: float) -> float:
  """YaRN's attention temperature, arXiv 2309.00071, with a weight."""
  return 0.1 * weight * math.log(max(factor, 1.)) + 1.


def magnitude(scaling: architecture.RopeScaling | None) -> float:
  """The factor of cos and sin: 1, except with YaRN."""
  if scaling is None or scaling.kind != 'yarn':
    return 1.
  if scaling.attention_factor is not None:
    return scaling.attention_factor
  if scaling.mscale and scaling.mscale_all_dim:
    return _mscale(scaling.factor, scaling.mscale) / _mscale(
        scaling.factor, scaling.mscale_all_dim)
  return _mscale(scaling.factor, 1.)


def score_scale(config: architecture.Config) -> float:
  """The factor of the queries, which scales the attention scores."""
  scale = config.attention_scale or config.head_size ** -0.5
  scaling = config.rope_scaling
  if config.latent and scaling and scaling.mscale_all_dim:
    scale *= _mscale(scaling.factor, scaling.mscale_all_dim) ** 2
  return scale


def table(position_BT: Array, size: int, theta: float,
          scaling: architecture.RopeScaling | None = None) -> Array:
  """cos and sin of every position and frequency, f32[2, B, T, size / 2]."""
  frequency = jnp.asarray(frequencies(size, theta, scaling), jnp.float32)
  angle = position_BT[..., None].astype(jnp.float32) * frequency
  # XLA would else compute them again, for every head, wherever they are read.
  return jax.lax.optimization_barrier(
      magnitude(scaling) * jnp.stack([jnp.cos(angle), jnp.sin(angle)]))


def rotate(x_BTXh: Array, cos_sin: Array) -> Array:
  """x rotated by a `table`, where entry i pairs with entry i + h / 2.

  Llama's Hugging Face checkpoints have the same order.
  """
  cos, sin = cos_sin[:, :, :, None]
  a, b = jnp.split(x_BTXh.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(
      x_BTXh.dtype)
