"""Per-token estimates of KL(policy || reference) from the sampled token alone.

`logp` and `ref_logp`, of one shape, are the log-probabilities that policy and
reference give to a token drawn from the policy; the estimate leaves in that
shape, float32. With d = ref_logp - logp (J. Schulman, "Approximating KL
divergence", 2020, http://joschu.net/blog/kl-approx.html):

         estimate          mean over tokens     gradient as a loss, on-policy
    k1   -d                KL, noisy            0
    k2   d^2 / 2           biased, low noise    that of KL(policy || reference)
    k3   exp(d) - d - 1    KL, never negative   that of KL(reference || policy)

As a part of the reward an estimate acts through its value; as a loss term
through its gradient, which is not the gradient of what its value estimates:
the samples' own dependence on the policy is left out. GRPO subtracts beta * k3
inside the loss (DeepSeekMath, arXiv 2402.03300, eq. 3 and 4). The penalty is
subtracted from the objective; slides that print "+ beta KL" misprint it.
"""

import jax.numpy as jnp

# Log-ratios are held at this before exp: e^20 = 4.9e8 is far above any ratio of
# a healthy run, and far below float32's overflow at e^88.
MAX_LOG_RATIO = 20.0


def log_ratio(logp, other_logp):
  """log(p / other p) in float32, for inputs of lower precision too."""
  dtype = jnp.result_type(logp, other_logp, jnp.float32)
  return jnp.asarray(logp, dtype) - jnp.asarray(other_logp, dtype)


def k1(logp, ref_logp):
  """-d: unbiased, of either sign. For the reward; see `check`."""
  return log_ratio(logp, ref_logp)


def k2(logp, ref_logp):
  """d^2 / 2: as a loss, the true gradient of KL(policy || reference)."""
  return 0.5 * jnp.square(log_ratio(ref_logp, logp))


def k3(logp, ref_logp):
  """exp(d) - d - 1: unbiased and never negative, GRPO's choice.

  0.71828 at d = 1 and 0.36788 at d = -1. For d > 20 both terms are held at
  d = 20, so that nothing overflows: the value is constant there and the
  gradient 0. No bound is needed for d < 0, where the policy outweighs the
  reference, which is the side that the penalty is there for.
  """
  d = jnp.minimum(log_ratio(ref_logp, logp), MAX_LOG_RATIO)
  return jnp.expm1(d) - d


def estimate(kind, logp, ref_logp):
  """The estimate named by `kind`: 'k1', 'k2' or 'k3'."""
  return {'k1': k1, 'k2': k2, 'k3': k3}[kind](logp, ref_logp)


def adapt(beta, kl, target, gain=0.1):
  """The next beta of a controller that holds the KL at `target`.

  beta (1 + gain clip(kl / target - 1, -0.2, 0.2)), once a rollout (Ziegler et
  al., arXiv 1909.08593, section 2.2): at most 2 % up or down.
  """
  return beta * (1 + gain * jnp.clip(kl / target - 1, -0.2, 0.2))
