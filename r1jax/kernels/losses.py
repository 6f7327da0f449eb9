"""Losses per token, and their sums with the denominators they belong to.

`surrogate` and `value_loss` return a loss per token, for `aggregate`. All other
functions return pairs (sum, denominator) of float32 scalars. Pairs add up over
micro-batches and shards, and `masked.divide(sum, denominator)` at the very end
is the loss of the whole batch, however it was split.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import kl
from r1jax.kernels import masked
from r1jax.kernels import packing
from r1jax.types import Array

Pair = tuple[Array, Array]  # a sum and its denominator, f32[] each

TIE = 1e-5  # nats, the largest lead of a score that counts as a tie


def log_ratio(logp_NR: Array, old_logp_NR: Array, mask_NR: Array, level: str,
              segment_NR: Array | None = None) -> Array:
  """log rho, by which samples of the old policy stand for those of the new.

  Args:
    logp_NR: of the policy. Pass `masked.select(logp_NR, mask_NR)` if padding
      may hold NaN.
    old_logp_NR: of the policy before the rollout's updates.
    mask_NR: bool, true on a response's tokens.
    level: 'token', log(pi / pi_old) of each token (PPO, GRPO); or 'sequence',
      its mean over the tokens of a response, the same at each of them: GSPO
      (arXiv 2507.18071, eq. 7). Its gradient is then that of GSPO-token (eq.
      13 and 14): each token's probability is differentiated in its own place,
      so that tokens of a response may have different advantages. With equal
      ones and `aggregate`'s 'sequence_mean' it is the gradient of GSPO (eq. 5).
      Log-ratios 1, 2 | 3 of two responses give 1.5, 1.5 | 3.
    segment_NR: where a row holds several responses, see types.Rollout.
  """
  token_NR = kl.log_ratio(logp_NR, old_logp_NR)
  if level == 'token':
    return token_NR
  mean_NR = masked.divide(
      masked.own_total(token_NR, mask_NR, segment_NR),
      masked.own_total(mask_NR, mask_NR, segment_NR))
  return lax.stop_gradient(mean_NR) + logp_NR - lax.stop_gradient(logp_NR)


class Surrogate(NamedTuple):
  """A surrogate at each token, and where its bounds took effect."""
  loss: Array  # f32[N, R]
  clipped_low: Array  # bool[N, R], ratio < 1 - clip_low
  clipped_high: Array  # bool[N, R], ratio > 1 + clip_high
  clipped_dual: Array  # bool[N, R], ratio > dual_clip, advantage < 0


def cispo(logp_NR: Array, log_ratio_NR: Array, advantage_NR: Array,
          clip_low: float, clip_high: float) -> Surrogate:
  """CISPO's surrogate, negated: -sg(clip(rho, 1-l, 1+h)) A log pi.

  The importance weight is clipped, not the update: a token beyond the bounds
  keeps its gradient, at the bound's weight (MiniMax-M1, arXiv 2506.13585, eq. 4
  and 5, which has no lower bound, a clip_low of 1 or more).

  Args: as of `surrogate`, and
    logp_NR: of the policy.
  """
  ratio_NR, low, high = _bounded(log_ratio_NR, clip_low, clip_high)
  weight_NR = lax.stop_gradient(jnp.clip(ratio_NR, low, high))
  below_NR, above_NR = ratio_NR < low, ratio_NR > high
  return Surrogate(-weight_NR * advantage_NR * logp_NR, below_NR, above_NR,
                   jnp.zeros_like(below_NR))


def _bounded(log_ratio_NR: Array, clip_low: float, clip_high: float
             ) -> tuple[Array, float, float]:
  """rho, and the bounds that it is clipped at."""
  return (jnp.exp(jnp.minimum(log_ratio_NR, kl.MAX_LOG_RATIO)),
          1 - clip_low, 1 + clip_high)


def surrogate(log_ratio_NR: Array, advantage_NR: Array, clip_low: float,
              clip_high: float, dual_clip: float | None = None) -> Surrogate:
  """PPO's clipped surrogate, negated: -min(rho A, clip(rho, 1-l, 1+h) A).

  rho = pi / pi_old is the new probability over the old (PPO, arXiv 1707.06347,
  eq. 7). A bound takes effect where the objective would rise beyond it: the
  lower at a negative advantage, the upper at a positive one. Where samples come
  from the policy itself, rho = 1 and the loss is the negated mean advantage:
  near 0 for any group-relative advantage, while its gradient, -A times that of
  log pi, is not. rho is bounded by exp(20); above, its gradient is 0.

  Args:
    log_ratio_NR: log rho, of `log_ratio`.
    advantage_NR: or any shape that broadcasts, e.g. [N, 1].
    clip_low, clip_high: the paper's epsilon, one for each side as in DAPO
      (arXiv 2503.14476, eq. 8); a clip_low above 1 sets no lower bound
      (DeepSeek-R1's reasoning RL has epsilon = 10).
    dual_clip: c > 1 bounds the loss at a large ratio where the advantage is
      negative: the objective is max(min(...), c A) (arXiv 1912.09729).
  """
  ratio_NR, low, high = _bounded(log_ratio_NR, clip_low, clip_high)
  objective_NR = jnp.minimum(
      ratio_NR * advantage_NR, jnp.clip(ratio_NR, low, high) * advantage_NR)
  low_NR = (advantage_NR < 0) & (ratio_NR < low)
  high_NR = (advantage_NR > 0) & (ratio_NR > high)
  dual_NR = jnp.zeros_like(low_NR)
  if dual_clip is not None:
    dual_NR = (advantage_NR < 0) & (ratio_NR > dual_clip)
    objective_NR = jnp.where(dual_NR, dual_clip * advantage_NR, objective_NR)
  return Surrogate(-objective_NR, low_NR, high_NR, dual_NR)


class ValueLoss(NamedTuple):
  """The critic's loss at each token, and where its bound took effect."""
  loss: Array  # f32[N, R]
  clipped: Array  # bool[N, R], true where the gradient is 0


def value_loss(value_NR: Array, old_value_NR: Array, return_NR: Array,
               clip: float | None = None) -> ValueLoss:
  """Half the squared error of a critic, with PPO's clipping.

  max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2, as in the
  code of PPO's authors (arXiv 2005.12729, section 3): once the updates of one
  rollout have moved a value by more than `clip` towards its target, they move
  it no further. clip = None is the plain error. Example: V = 2, V_old = 0,
  R = 3 and clip = 0.5 give 3.125 rather than 0.5, and no gradient.
  """
  plain_NR = jnp.square(value_NR - return_NR)
  if clip is None:
    return ValueLoss(plain_NR / 2, jnp.zeros(plain_NR.shape, bool))
  near_NR = old_value_NR + jnp.clip(value_NR - old_value_NR, -clip, clip)
  bounded_NR = jnp.square(near_NR - return_NR)
  return ValueLoss(
      jnp.maximum(plain_NR, bounded_NR) / 2, bounded_NR > plain_NR)


def won(lead: Array) -> Array:
  """Which comparisons of two scores are right, by the lead of the better.

  1 or 0, and a half for a tie: a lead of at most 1e-5, at which the odds are
  even to five digits. It is rounding that would decide it. Of NumPy's arrays
  or JAX's.
  """
  return (lead > TIE) + .5 * (abs(lead) <= TIE)


def bradley_terry(score_BK: Array, grade_BK: Array, real_BK: Array,
                  margin: float = 0.) -> tuple[Pair, Pair]:
  """-log sigma(s_i - s_j - margin) over pairs where response i is better.

  Bradley & Terry (1952). A prompt's loss is the mean over all pairs of its K
  responses whose grades differ (InstructGPT, arXiv 2203.02155, eq. 1, with its
  1 / (K choose 2)). Only score differences matter. Example: scores 1 and 0, of
  which the first is the better response's, give 0.31326.

  Args:
    score_BK: of the reward model.
    grade_BK: greater for the better response.
    real_BK: bool, false where a prompt has fewer than K responses.
    margin: by how much the better response should lead (Llama 2, arXiv
      2307.09288, eq. 2).

  Returns:
    (sum of losses, prompts with a pair), and (pairs in the right order,
    pairs), where a tie counts a half.
  """
  score_BK = masked.select(score_BK, real_BK)
  lead_BKK = score_BK[:, :, None] - score_BK[:, None, :]
  pair_BKK = (grade_BK[:, :, None] > grade_BK[:, None, :]) & (
      real_BK[:, :, None] & real_BK[:, None, :])
  loss_B = masked.mean(
      jax.nn.softplus(margin - lead_BKK), pair_BKK, axis=(1, 2))
  has_pair_B = jnp.any(pair_BKK, axis=(1, 2))
  count = lambda x: jnp.sum(x).astype(jnp.float32)
  return (jnp.sum(loss_B), count(has_pair_B)), (
      masked.total(won(lead_BKK), pair_BKK), count(pair_BKK))


def pointwise(score_N: Array, good_N: Array, weight_N: Array) -> Pair:
  """-log sigma(s) of good responses, -log sigma(-s) of others.

  The cross-entropy of a classifier whose logit is the score. A weight of 0
  drops a response, whatever its score.
  """
  score_N = masked.select(score_N, weight_N > 0)
  loss_N = jax.nn.softplus(jnp.where(good_N, -score_N, score_N))
  return jnp.sum(weight_N * loss_N), jnp.sum(weight_N)


def stepwise(score_N: Array, label_N: Array, real_N: Array
             ) -> tuple[Pair, Pair]:
  """-y log sigma(s) - (1 - y) log sigma(-s) over the labelled steps.

  The cross-entropy of a process reward model, whose sigma(s) is the probability
  that a step is right (Math-Shepherd, arXiv 2312.08935, eq. 1 and 2). Example:
  a score of 0 gives 0.69315 whatever the label; of 2, with a label of 0.75,
  0.62693.

  Args:
    score_N: s, at the end of each step.
    label_N: y, from 0 to 1: hard, or a share of right completions.
    real_N: bool, false where a step has no label.

  Returns:
    (sum of losses, labelled steps), and (steps on the label's side of 1/2,
    steps whose label is not 1/2), where a score of 0 counts a half.
  """
  score_N, label_N = (
      masked.select(jnp.asarray(x, jnp.float32), real_N)
      for x in (score_N, label_N))
  side_N = jnp.sign(label_N - .5)
  return (masked.total(jax.nn.softplus(score_N) - label_N * score_N, real_N),
          masked.count(score_N, real_N).astype(jnp.float32)), (
              masked.total(won(side_N * score_N), real_N & (side_N != 0)),
              masked.count(score_N, real_N & (side_N != 0)).astype(
                  jnp.float32))


def aggregate(loss_NR: Array, mask_NR: Array, weight_NR: Array, how: str,
              max_length: int, segment_NR: Array | None = None) -> Pair:
  """The loss of a batch of responses from a loss at each of their tokens.

  Example: losses 1, 2, 3 and 5 of the tokens of two responses, 1, 2, 3 | 5,
  give 7/2, 11/4 and, with a max_length of 4, 11/8.

  Args:
    loss_NR: of each token.
    mask_NR: bool, true on a response's tokens.
    weight_NR: multiplies a response in sum and denominator, f32[N], or of each
      of its tokens the same number; 0 drops it. A dropped or empty response
      neither counts nor spoils a sum with NaN.
    how: the weight of tokens in responses of different lengths:
      'sequence_mean'  the mean over responses of the mean over their tokens:
        GRPO (arXiv 2402.03300, eq. 3), each response weighs the same.
      'token_mean'  the mean over all tokens: DAPO (arXiv 2503.14476, eq. 8),
        each token weighs the same.
      'constant'  the sum over tokens / max_length, mean over responses: Dr.
        GRPO (arXiv 2503.20783); as 'token_mean', but independent of the
        lengths in the batch.
    max_length: of the longest response that could be sampled, in tokens.
    segment_NR: where a row holds several responses, see types.Rollout.
  """
  weight_NR = weight_NR.reshape(len(mask_NR), -1)
  mask_NR = mask_NR & (weight_NR > 0)
  length_NR = masked.own_total(mask_NR, mask_NR, segment_NR)
  count_NR = length_NR > 0  # once for each response
  if segment_NR is not None:
    count_NR &= packing.begins(segment_NR)
  if how == 'sequence_mean':
    loss_NR = masked.divide(loss_NR, length_NR)
  elif how == 'token_mean':
    count_NR = mask_NR
  elif how == 'constant':
    count_NR = max_length * count_NR
  else:
    raise ValueError(
        f"aggregation is {how!r}: expected 'sequence_mean', 'token_mean' or "
        "'constant'")
  return (masked.total(weight_NR * loss_NR, mask_NR),
          jnp.sum(weight_NR * count_NR))


def cross_entropy(logp_BT: Array, weight_BT: Array) -> Pair:
  """-sum of weight * log p(token), and the sum of weights.

  Tokens of weight 0 do not count, whatever their log-probability.
  """
  loss = -masked.total(weight_BT * logp_BT, weight_BT > 0)
  return loss, jnp.sum(weight_BT)
