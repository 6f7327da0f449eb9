"""Importance weights for samples of a policy that is not quite the scorer's.

Sampler and scorer are one policy in theory; in bfloat16, under other kernels or
where experts are chosen otherwise their probabilities differ, and the gradient
is that of another policy than the one that was sampled (Yao et al., "Your
efficient RL framework secretly brings you off-policy RL training", 2025). The
weight of a token,

    w = pi_old(token) / pi_sampler(token),

corrects the expectation exactly, at a variance that grows with the difference.
So it is bounded: truncated at a cap (TIS, of the same authors; Ionides, 2008),
or 0 outside an interval (IcePop, arXiv 2510.18855, per token, from 0.5 to 5).
Per sequence, the weight of all its tokens is the product of theirs.
"""

from typing import NamedTuple

import jax.numpy as jnp

from r1jax.kernels import kl
from r1jax.kernels import masked
from r1jax.types import Array


class Weights(NamedTuple):
  """The weight of each token, 0 on padding, and where its bounds took effect.
  """
  weight: Array  # f32[N, R]
  cut: Array  # bool[N, R]


def weights(mode: str, old_logp_NR: Array, sampler_logp_NR: Array,
            mask_NR: Array, cap: float, floor: float = 0.) -> Weights:
  """The bounded weights w of every token of N responses.

  Example: ratios 3 and 0.5 with a cap of 2 give 2 and 0.5 (token_truncate), 0
  and 0.5 (token_mask), and as one sequence 1.5 and 1.5.

  Args:
    mode: token_truncate, token_mask, sequence_truncate or sequence_mask: of
      tokens or whole sequences; a ratio above the cap becomes the cap, or a
      ratio outside [floor, cap] becomes 0.
    old_logp_NR: of the scorer, with the parameters that sampled.
    sampler_logp_NR: of the sampler.
    mask_NR: bool, true on responses.
    cap, floor: the bounds.
  """
  level, action = mode.split('_')
  log_ratio_NR = masked.select(
      kl.log_ratio(old_logp_NR, sampler_logp_NR), mask_NR)
  if level == 'sequence':
    log_ratio_NR = jnp.broadcast_to(
        log_ratio_NR.sum(1, keepdims=True), log_ratio_NR.shape)
  ratio_NR = jnp.exp(jnp.minimum(log_ratio_NR, kl.MAX_LOG_RATIO))
  cut_NR = ratio_NR > cap
  if action == 'mask':
    cut_NR |= ratio_NR < floor
  kept = 0. if action == 'mask' else cap
  return Weights(masked.select(jnp.where(cut_NR, kept, ratio_NR), mask_NR),
                 cut_NR & mask_NR)


def figures(old_logp_NR: Array, sampler_logp_NR: Array, mask_NR: Array
            ) -> dict[str, Array]:
  """How far sampler and scorer are apart, over all tokens of the mask.

  sampling/kl: KL(sampler || scorer), nats per token, by k3;
  sampling/perplexity_ratio: the scorer's perplexity over the sampler's;
  sampling/logp_difference: mean |log pi_old - log pi_sampler|.
  """
  mean = lambda x: masked.mean(x, mask_NR)
  log_ratio_NR = masked.select(
      kl.log_ratio(old_logp_NR, sampler_logp_NR), mask_NR)
  return {
      'sampling/kl': mean(kl.k3(-log_ratio_NR, jnp.zeros(()))),
      'sampling/perplexity_ratio': jnp.exp(-mean(log_ratio_NR)),
      'sampling/logp_difference': mean(jnp.abs(log_ratio_NR))}
