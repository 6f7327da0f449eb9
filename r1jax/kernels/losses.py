"""Losses per token, and their sums with the denominators they belong to.

A loss leaves as (sum, denominator), float32 scalars. Sums and denominators
add over micro-batches and shards, and `masked.divide(sum, denominator)` at
the very end is the loss of the whole batch, however it was cut.
"""

from typing import NamedTuple

import jax
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


class Value(NamedTuple):
  """The critic's loss at each token, and where its bound took effect."""
  loss: types.Array  # f32[N, R]
  clipped: types.Array  # bool[N, R], without a gradient there


def value(value_NR, old_value_NR, return_NR, clip=None):
  """The squared error of a critic, half of it, with PPO's clipping.

  max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2, as in the
  code of PPO's authors (arXiv 2005.12729, section 3): a value that the updates
  of one rollout have moved by more than `clip` towards its target is moved no
  further. clip = None is the plain error. V = 2 with V_old = 0, R = 3 and
  clip = 0.5: 3.125 rather than 0.5, and no gradient.
  """
  plain_NR = jnp.square(value_NR - return_NR)
  if clip is None:
    return Value(plain_NR / 2, jnp.zeros(plain_NR.shape, bool))
  near_NR = old_value_NR + jnp.clip(value_NR - old_value_NR, -clip, clip)
  bounded_NR = jnp.square(near_NR - return_NR)
  return Value(jnp.maximum(plain_NR, bounded_NR) / 2, bounded_NR > plain_NR)


def bradley_terry(score_BK, grade_BK, real_BK, margin=0.):
  """-log sigma(s_i - s_j - margin) where response i is better than j.

  Bradley & Terry (1952); over all pairs of the K responses to a prompt whose
  grades differ, each prompt the mean of its pairs (InstructGPT, arXiv
  2203.02155, eq. 1: 1 / (K choose 2)); a margin asks for more than an edge
  (Llama 2, arXiv 2307.09288, eq. 2). Only score differences matter.

  Args:
    score_BK: of the reward model.
    grade_BK: the better response has the greater.
    real_BK: bool, false where a prompt has fewer responses.
    margin: by which the better one is to lead.

  Returns:
    (sum over prompts, prompts with a pair), and (pairs in the right order,
    pairs), a tie counting a half. Scores 1, 0 of which the first is better:
    0.31326.
  """
  score_BK = masked.select(score_BK, real_BK)
  lead_BKK = score_BK[:, :, None] - score_BK[:, None, :]
  pair_BKK = (grade_BK[:, :, None] > grade_BK[:, None, :]) & (
      real_BK[:, :, None] & real_BK[:, None, :])
  loss_B = masked.mean(
      jax.nn.softplus(margin - lead_BKK), pair_BKK, axis=(1, 2))
  right_BKK = (lead_BKK > 0) + 0.5 * (lead_BKK == 0)
  some_B = jnp.any(pair_BKK, axis=(1, 2))
  count = lambda x: jnp.sum(x).astype(jnp.float32)
  return (jnp.sum(loss_B), count(some_B)), (
      masked.total(right_BKK, pair_BKK), count(pair_BKK))


def pointwise(score_N, good_N, weight_N):
  """-log sigma(s) of what is good, -log sigma(-s) of what is not.

  The cross-entropy of a classifier whose logit is the score. Weight 0 drops a
  response, whatever its score. Returns (sum, denominator).
  """
  score_N = masked.select(score_N, weight_N > 0)
  loss_N = jax.nn.softplus(jnp.where(good_N, -score_N, score_N))
  return jnp.sum(weight_N * loss_N), jnp.sum(weight_N)


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
