"""Losses per token, and their sums with the denominators they belong to.

A loss leaves as (sum, denominator), float32 scalars. Sums and denominators
add over micro-batches and shards, and `masked.divide(sum, denominator)` at
the very end is the loss of the whole batch, however it was cut.
"""

from typing import NamedTuple

import jax.numpy as jnp

from r1jax import types
from r1jax.kernels import kl
from r1jax.kernels import masked


class Surrogate(NamedTuple):
  """The clipped surrogate at each token, and where its bounds took effect."""
  loss: types.Array  # f32[N, R]
  clipped_low: types.Array  # bool[N, R], ratio < 1 - clip_low, advantage < 0
  clipped_high: types.Array  # bool[N, R], ratio > 1 + clip_high, advantage > 0
  clipped_dual: types.Array  # bool[N, R], ratio > dual_clip, advantage < 0


def surrogate(
    logp_NR, old_logp_NR, advantage_NR, clip_low, clip_high, dual_clip=None):
  """PPO's clipped surrogate, negated: -min(rho A, clip(rho, 1-l, 1+h) A).

  rho = pi / pi_old is the new probability over the old (PPO, arXiv 1707.06347,
  eq. 7); slides that print the ratio upside down misprint it, and would lower
  the probability of what did well. clip_low and clip_high are the paper's one
  epsilon, apart as in DAPO (arXiv 2503.14476, eq. 8); a clip_low above 1 sets
  no lower bound (DeepSeek-R1's reasoning RL has epsilon = 10).

  dual_clip = c > 1 bounds what a large ratio costs where the advantage is
  negative, max(min(...), c A) (arXiv 1912.09729). A ratio is held at exp(20) in
  any case; beyond, its gradient is 0.

  Where samples come from the policy itself, rho = 1 and the loss is the
  negated mean advantage: near 0 for any group-relative advantage, while its
  gradient, -A times that of log pi, is not.

  Arrays may be of any shapes that broadcast, e.g. an advantage of [N, 1]. Pass
  `masked.select(logp_NR, mask_NR)` if padding may hold NaN.
  """
  log_ratio_NR = kl.log_ratio(logp_NR, old_logp_NR)
  ratio_NR = jnp.exp(jnp.minimum(log_ratio_NR, kl.MAX_LOG_RATIO))
  low, high = 1 - clip_low, 1 + clip_high
  objective_NR = jnp.minimum(
      ratio_NR * advantage_NR, jnp.clip(ratio_NR, low, high) * advantage_NR)
  low_NR = (advantage_NR < 0) & (ratio_NR < low)
  high_NR = (advantage_NR > 0) & (ratio_NR > high)
  dual_NR = jnp.zeros_like(low_NR)
  if dual_clip is not None:
    dual_NR = (advantage_NR < 0) & (ratio_NR > dual_clip)
    objective_NR = jnp.where(dual_NR, dual_clip * advantage_NR, objective_NR)
  return Surrogate(-objective_NR, low_NR, high_NR, dual_NR)


def aggregate(loss_NR, mask_NR, weight_N, how, max_length):
  """Sums a loss per token over responses: (sum, denominator).

  The paper leaves open how tokens of responses of different lengths weigh:
    'sequence_mean'  mean over responses of the mean over their tokens: GRPO
      as printed (arXiv 2402.03300, eq. 3), each response weighs the same.
    'token_mean'  mean over all tokens: DAPO (arXiv 2503.14476, eq. 8), each
      token weighs the same.
    'constant'  sum over tokens / max_length, mean over responses: Dr. GRPO
      (arXiv 2503.20783), as 'token_mean' but free of the batch's own lengths.
  Losses 1, 2, 3 | 5 of two responses give 7/2, 11/4 and, at max_length 4, 11/8.

  weight_N multiplies a response in sum and denominator: 0 drops it. Neither
  a dropped nor an empty response counts, or can spoil a sum with NaN.
  max_length is the longest response that could be sampled, in tokens.
  """
  mask_NR = mask_NR & (weight_N > 0)[:, None]
  sum_N = masked.total(loss_NR, mask_NR, axis=-1)
  length_N = masked.count(loss_NR, mask_NR, axis=-1)
  if how == 'sequence_mean':
    sum_N, count_N = masked.divide(sum_N, length_N), length_N > 0
  elif how == 'token_mean':
    count_N = length_N
  elif how == 'constant':
    count_N = max_length * (length_N > 0)
  else:
    raise ValueError(
        f"aggregation is {how!r}: expected 'sequence_mean', 'token_mean' or "
        "'constant'")
  return jnp.sum(weight_N * sum_N), jnp.sum(weight_N * count_N)


def cross_entropy(logp_BT, weight_BT):
  """-sum of weight * log p(token) and the sum of weights: (sum, denominator).

  Tokens of weight 0 do not matter, whatever their log-probability.
  """
  loss = -masked.total(weight_BT * logp_BT, weight_BT > 0)
  return loss, jnp.sum(weight_BT)
