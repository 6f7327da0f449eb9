"""Model FLOPs: what a forward pass needs, however a program computes it.

2 per weight and token (Kaplan et al., arXiv 2001.08361, 2.1), of routed experts
those that a token uses, without the look-up of the embedding; and attention's
products with the keys that a query sees, as in PaLM (arXiv 2204.02311, B) but
only half of the square. What is computed again for the backward pass is not
counted, so that a full rematerialisation has at most 3/4 of the peak. An update
takes three times a forward pass.
"""

import math

import jax
import numpy as np

from r1jax.models import architecture
from r1jax.stages import train_state

UPDATE = 3  # forward passes that an update amounts to

Tokens = int | np.ndarray  # of one response, or of each


def parameters(placed: train_state.PlacedModel) -> tuple[int, int]:
  """(all parameters, weights that a token is multiplied with)."""
  config, total, active = placed.model.config, 0, 0.

  def add(axes, leaf):
    nonlocal total, active
    size = math.prod(leaf.shape)
    total += size
    if 'expert' in axes:
      size = size * config.moe.active / config.moe.experts
    if axes[-1:] != ('table',) or config.tied:  # else it is only looked up
      active += size

  jax.tree.map(add, placed.model.axes(), placed.params,
               is_leaf=lambda x: type(x) is tuple)
  return total, int(active)


def _pairs(first: int, tokens: Tokens, window: int | None
           ) -> float | np.ndarray:
  """Pairs of query and key of `tokens` queries that follow `first` tokens."""
  within = tokens if window is None else np.clip(window - first, 0, tokens)
  return within * first + within * (within + 1) / 2 + (
      tokens - within) * (window or 0)


def attention(config: architecture.Config, first: int, tokens: Tokens
             ) -> float | np.ndarray:
  """FLOPs of attention's products, of `tokens` that follow `first` others."""
  values = config.latent.value_size if config.latent else config.head_size
  return sum(
      2. * config.heads * (config.head_size + values) * _pairs(
          first, tokens, config.window if local else None)
      for local in config.is_local())


def sequences(placed: train_state.PlacedModel, rows: int, tokens: int) -> float:
  """FLOPs of a forward pass over rows of one document each."""
  return rows * (2. * parameters(placed)[1] * tokens + attention(
      placed.model.config, 0, tokens))


def responses(placed: train_state.PlacedModel, prompts: int,
              prompt_tokens: int, response_tokens: np.ndarray
              ) -> tuple[float, float]:
  """FLOPs of a forward pass over (prompts, all their responses)."""
  config, active = placed.model.config, parameters(placed)[1]
  return prompts * (
      2. * active * prompt_tokens + attention(config, 0, prompt_tokens)
  ), float(np.sum(2. * active * response_tokens + attention(
      config, prompt_tokens, response_tokens)))
