"""A model whose responses end, at lengths with a long tail, to be timed.

Random weights end a response at any token alike, and few responses would be
long. Here the end token is as likely, after so many tokens, as makes the
lengths log-normal; the other tokens share the rest as the weights say. It is
the same policy for the sampler, the reference and the update.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import models
from r1jax.kernels import packing
from r1jax.types import Array

SIGMA = 1.  # of the logarithm of a length


def log_odds(mean: float, most: int) -> np.ndarray:
  """Log odds that a response of t tokens or more has t, f32[most], t from 1.

  Lengths are log-normal with this mean, the shortest 1; those longer than
  `most` are cut.
  """
  center = math.log(mean) - SIGMA ** 2 / 2
  longer = np.array([1.] + [
      math.erfc((math.log(t) - center) / (SIGMA * 2 ** .5)) / 2
      for t in range(1, most + 1)])
  chance = np.maximum(1 - longer[1:] / longer[:-1], 1e-30)
  return np.float32(np.log(chance) - np.log1p(-chance))


@functools.cache
def model(base: models.Model, prompt_tokens: int, mean: float, most: int,
          end: int) -> models.Model:
  """`base` with the token `end` at the odds of `log_odds`.

  Its hidden states have one entry more: the log odds of an end after them.

  Args:
    base: the model.
    prompt_tokens: of every prompt.
    mean, most: as of `log_odds`.
    end: the token.
  """
  odds = log_odds(mean, most)

  def extend(hidden_BTD: Array, position_BT: Array) -> Array:
    drawn_BT = jnp.clip(
        jnp.asarray(position_BT) - prompt_tokens + 1, 0, most - 1)
    return jnp.concatenate(
        [hidden_BTD, jnp.asarray(odds, hidden_BTD.dtype)[drawn_BT][..., None]],
        -1)

  def forward_routed(params, tokens_BT, segment_BT, position_BT, *rest):
    hidden_BTD, *other = base.forward_routed(
        params, tokens_BT, segment_BT, position_BT, *rest)
    return extend(hidden_BTD, position_BT), *other

  def replay_groups(params, prompts, tokens_NT, experts_NTLK=None,
                    segment_NT=None):
    hidden_BPD, hidden_NTD, *other = base.replay_groups(
        params, prompts, tokens_NT, experts_NTLK, segment_NT)
    rows = lambda x: jnp.arange(x.shape[1])[None].repeat(len(x), 0)
    drawn_NT = rows(hidden_NTD) if segment_NT is None else packing.tokens_of(
        segment_NT)
    return (extend(hidden_BPD, rows(hidden_BPD)),
            extend(hidden_NTD, prompt_tokens + drawn_NT), *other)

  def unembed(params, hidden_BTD):
    logits_BTV = base.unembed(params, hidden_BTD[..., :-1])
    is_end_V = jnp.arange(logits_BTV.shape[-1]) == end
    others_BT1 = jax.nn.logsumexp(
        jnp.where(is_end_V, -jnp.inf, logits_BTV), -1, keepdims=True)
    return jnp.where(is_end_V, others_BT1 + hidden_BTD[..., -1:].astype(
        jnp.float32), logits_BTV)

  return base._replace(
      forward=lambda *args: forward_routed(*args)[:2],
      forward_routed=forward_routed,
      forward_groups=lambda params, prompts, tokens_NT, segment_NT=None: (
          replay_groups(params, prompts, tokens_NT, None, segment_NT)[:2]),
      replay_groups=replay_groups, unembed=unembed)
