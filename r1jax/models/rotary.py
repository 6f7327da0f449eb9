"""Rotary positions (Su et al., arXiv 2104.09864), and their long contexts."""

import math

import jax.numpy as jnp
import numpy as np

from r1jax.models import architecture
from r1jax.types import Array


def frequencies(size: int, theta: float,
                scaling: architecture.RopeScaling | None = None) -> np.ndarray:
  """Radians a position, of each pair of a head's entries: f64[size / 2].

  'linear' divides all by the factor (Chen et al., arXiv 2306.15595). 'llama3'
  divides those that turn less than `low_freq` times within the original
  length, leaves those that turn more than `high_freq` times, and goes from
  one to the other in between (Llama 3.1). 'yarn' does so along the pairs'
  numbers instead (Peng et al., arXiv 2309.00071).
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
    low = max(math.floor(pair(scaling.beta_fast)), 0)
    high = min(math.ceil(pair(scaling.beta_slow)), size - 1)
    high = max(high, low + 1e-3)
    kept = (high - np.arange(size // 2)) / (high - low)
  kept = np.clip(kept, 0, 1)
  return frequency * (kept + (1 - kept) / scaling.factor)


def _mscale(factor: float, weight: float) -> float:
  return 0.1 * weight * math.log(max(factor, 1.)) + 1.


def magnitude(scaling: architecture.RopeScaling | None) -> float:
  """What cos and sin are multiplied by: 1, but for YaRN."""
  if scaling is None or scaling.kind != 'yarn':
    return 1.
  if scaling.mscale and scaling.mscale_all_dim:
    return _mscale(scaling.factor, scaling.mscale) / _mscale(
        scaling.factor, scaling.mscale_all_dim)
  return _mscale(scaling.factor, 1.)


def score_scale(config: architecture.Config) -> float:
  """What queries are multiplied by before they meet the keys."""
  scale = config.attention_scale or config.head_size ** -0.5
  scaling = config.rope_scaling
  if config.latent and scaling and scaling.mscale_all_dim:
    scale *= _mscale(scaling.factor, scaling.mscale_all_dim) ** 2
  return scale


def table(position_BT: Array, size: int, theta: float,
          scaling: architecture.RopeScaling | None = None) -> Array:
  """cos and sin of every position and frequency: f32[2, B, T, size / 2]."""
  frequency = jnp.asarray(frequencies(size, theta, scaling), jnp.float32)
  angle = position_BT[..., None].astype(jnp.float32) * frequency
  return magnitude(scaling) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def rotate(x_BTXh: Array, turns: Array) -> Array:
  """Turns by a `table`, in the half-split form.

  Entry i turns with entry i + h/2, as in Llama's Hugging Face checkpoints.
  """
  cos, sin = turns[:, :, :, None]
  a, b = jnp.split(x_BTXh.astype(jnp.float32), 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(
      x_BTXh.dtype)
