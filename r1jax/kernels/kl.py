"""Estimates of KL(policy || reference) at each token, from the token alone.

`logp` and `ref_logp`, of one shape, are the log-probabilities that the policy
and the reference give to a token drawn from the policy; the estimate has that
shape, float32. With d = ref_logp - logp (J. Schulman, "Approximating KL
divergence", 2020, http://joschu.net/blog/kl-approx.html):

                                                expected gradient in the loss,
         estimate          mean over tokens     on-policy
    k1   -d                KL, noisy            0
    k2   d^2 / 2           biased, low noise    that of KL(policy || reference)
    k3   exp(d) - d - 1    KL, never negative   that of KL(reference || policy)

In the reward an estimate acts through its value, in the loss through its
gradient. The two may belong to different KLs, because the gradient leaves out
that the samples themselves depend on the policy: k3 estimates
KL(policy || reference) but has the gradient of KL(reference || policy). GRPO
maximises its objective minus beta * k3 (DeepSeekMath, arXiv 2402.03300, eq. 3
and 4), so the penalty is added to the loss.
"""

import jax.numpy as jnp

from r1jax.types import Array

# The bound of log-ratios before exp: e^20 = 4.9e8 is far above any ratio of a
# healthy run, and far below float32's overflow at e^88.
MAX_LOG_RATIO = 20.0


def log_ratio(logp: Array, other_logp: Array) -> Array:
  """log(p / other p) in float32, also for inputs of lower precision."""
  dtype = jnp.result_type(logp, other_logp, jnp.float32)
  return jnp.asarray(logp, dtype) - jnp.asarray(other_logp, dtype)


def k1(logp: Array, ref_logp: Array) -> Array:
  """-d: unbiased, of either sign; in a loss its expected gradient is 0."""
  return log_ratio(logp, ref_logp)


def k2(logp: Array, ref_logp: Array) -> Array:
  """d^2 / 2: in a loss, it has the gradient of KL(policy || reference)."""
  return 0.5 * jnp.square(log_ratio(ref_logp, logp))


def k3(logp: Array, ref_logp: Array) -> Array:
  """exp(d) - d - 1: unbiased and never negative, GRPO's choice.

  0.71828 at d = 1 and 0.36788 at d = -1. d is bounded by 20, so that nothing
  overflows: above, the value is constant and the gradient 0. No bound is
  needed for d < 0, where the policy gives the token a higher probability than
  the reference does: the side that the penalty is for.
  """
  d = jnp.minimum(log_ratio(ref_logp, logp), MAX_LOG_RATIO)
  return jnp.expm1(d) - d


def estimate(kind: str, logp: Array, ref_logp: Array) -> Array:
  """The estimate that `kind` names: 'k1', 'k2' or 'k3'."""
  return {'k1': k1, 'k2': k2, 'k3': k3}[kind](logp, ref_logp)


def adapt(beta: Array, kl: Array, target: float, gain: float = 0.1) -> Array:
  """The next beta of a controller that holds the KL at `target`.

  beta (1 + gain clip(kl / target - 1, -0.2, 0.2)), once per rollout (Ziegler
  et al., arXiv 1909.08593, section 2.2): at most 2 % up or down.
  """
  return beta * (1 + gain * jnp.clip(kl / target - 1, -0.2, 0.2))
