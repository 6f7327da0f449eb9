"""Advantages of responses over their group, or over a critic's prediction.

GRPO and RLOO compare a response with its group: they take rewards f32[B, G],
the G >= 2 responses to a prompt in one row (config.py checks G), and return
advantages of the same shape. PPO compares every token with a critic's
prediction: `gae`. A process reward model grades steps: `process`.
"""

from jax import lax
import jax.numpy as jnp

from r1jax.kernels import masked
from r1jax.types import Array

_DDOF = {'population': 0, 'sample': 1}


def _centered(reward_BG: Array) -> Array:
  """r - mean(r), f32[B, G]: exactly 0 in a group of equal rewards.

  The rounded mean of G equal numbers need not be that number, and a division
  by the standard deviation would blow the difference up. Measured from the
  group's first reward, equal rewards are zeros, and their mean is exact.
  """
  reward_BG = jnp.asarray(reward_BG)
  reward_BG = reward_BG.astype(jnp.result_type(reward_BG, jnp.float32))
  offset_BG = reward_BG - reward_BG[..., :1]
  return offset_BG - jnp.mean(offset_BG, axis=-1, keepdims=True)


def grpo(reward_BG: Array, std: str = 'population', eps: float = 1e-6
         ) -> Array:
  """GRPO's advantages, f32[B, G]: A_i = (r_i - mean(r)) / (std(r) + eps).

  DeepSeekMath, arXiv 2402.03300, section 4.1.2; DeepSeek-R1, arXiv 2501.12948,
  eq. 3. Neither says which standard deviation is meant:
    'population' divides the sum of squares by G. It is the default, because
      it bounds |A| by sqrt(G - 1) and makes the mean of A^2 one for every G,
      so that a learning rate carries over from one group size to another.
    'sample' divides by G - 1, as torch.std does: A is smaller by the factor
      sqrt((G - 1) / G), which is 0.71 at G = 2 and 0.97 at G = 16.
    'none' does not divide by the deviation: Dr. GRPO (arXiv 2503.20783).
  Rewards 1, 0, 0, 1 give +-1, +-0.86602 and +-0.5.

  A group of equal rewards gets exactly 0, also with eps = 0. eps keeps
  groups whose rewards differ only by rounding near 0.
  """
  advantage_BG = _centered(reward_BG)
  if std == 'none':
    return advantage_BG
  std_B1 = jnp.std(advantage_BG, axis=-1, ddof=_DDOF[std], keepdims=True)
  return masked.divide(advantage_BG, std_B1 + eps)


def process(reward_NR: Array, end_NR: Array, group: int,
            std: str = 'population', eps: float = 1e-6) -> Array:
  """Process supervision's advantages, f32[N, R].

  The rewards of all steps of a group's responses are normalised together, as
  those of responses in `grpo`; a token's advantage is the sum over the steps
  that end at it or after it (DeepSeekMath, arXiv 2402.03300, 4.1.3). Example:
  steps of rewards 1, 0 | 0, 1 that end at tokens 0 and 2 give 0, -1, -1 and
  0, 1, 1.

  Args:
    reward_NR: of each step, at its last token.
    end_NR: bool, true on the last token of each step.
    group: G, responses per prompt.
    std, eps: as in `grpo`. Equal rewards get exactly 0.
  """
  shape = jnp.shape(end_NR)
  end_BX = jnp.reshape(end_NR, (-1, group * shape[1]))
  reward_BX = jnp.asarray(reward_NR, jnp.float32).reshape(end_BX.shape)
  step_NR = _normalized(reward_BX, end_BX, 1, std, eps).reshape(shape)
  return jnp.cumsum(step_NR[:, ::-1], axis=1)[:, ::-1]


def rloo(reward_BG: Array) -> Array:
  """RLOO's advantages, f32[B, G]: r_i minus the mean of the other rewards.

  Ahmadian et al., arXiv 2402.14740.

  Computed as G / (G - 1) * (r_i - mean(r)), which is the same number.
  """
  group = jnp.shape(reward_BG)[-1]
  return group / (group - 1) * _centered(reward_BG)


def informative(reward_BG: Array) -> Array:
  """Whether a group's rewards differ, bool[B]: DAPO's dynamic sampling.

  False where all rewards are equal, as where every response solves the prompt,
  or none does: the advantages of such a group are 0 (arXiv 2503.14476, section
  3.2).
  """
  reward_BG = jnp.asarray(reward_BG)
  return jnp.any(reward_BG != reward_BG[..., :1], axis=-1)


def gae(reward_NR: Array, value_NR: Array, mask_NR: Array, gamma: float,
        lam: float) -> tuple[Array, Array]:
  """Generalized advantage estimation (Schulman et al., arXiv 1506.02438).

  A_t = sum over l >= 0 of (gamma lam)^l delta_{t + l}, where
  delta_t = r_t + gamma V_{t+1} - V_t (eq. 16). lam = 1 gives the return minus
  the value, lam = 0 the one-step error. With gamma = lam = 1, values 1, 2, 3
  and a reward of 4 at the last token: advantages 3, 2, 1 and returns 4.

  Args:
    reward_NR: r_t, of each token.
    value_NR: V_t, of the prompt and the tokens before token t, which is the
      state that token t is chosen in. The value after the last token is 0,
      even where a response was cut at the length limit.
    mask_NR: bool, true on a response's tokens, which come first.
    gamma, lam: discount and decay.

  Returns:
    advantage_NR, and return_NR = advantage + value, the critic's target; both
    0 where the mask is false.
  """
  reward_NR, value_NR = (
      masked.select(jnp.asarray(x, jnp.result_type(x, jnp.float32)), mask_NR)
      for x in (reward_NR, value_NR))
  later_NR = jnp.pad(value_NR, ((0, 0), (0, 1)))[:, 1:]
  delta_NR = reward_NR + gamma * later_NR - value_NR
  decay_NR = jnp.full_like(delta_NR, gamma * lam)

  def join(later, here):  # composes A = delta + decay * (A of the next token)
    return here[0] * later[0], here[1] + here[0] * later[1]

  _, advantage_NR = lax.associative_scan(
      join, (decay_NR, delta_NR), reverse=True, axis=1)
  advantage_NR = masked.select(advantage_NR, mask_NR)
  return advantage_NR, advantage_NR + value_NR


def whiten(advantage_NR: Array, mask_NR: Array, eps: float = 1e-8) -> Array:
  """Advantages of mean 0 and standard deviation 1 over the batch's tokens.

  The array is the global one, so on a mesh the statistics are those of all
  devices together. Equal advantages become exactly 0, as in `grpo`.
  """
  return _normalized(advantage_NR, mask_NR, None, 'population', eps)


def _normalized(x: Array, mask: Array, axis: masked.Axis, std: str, eps: float
                ) -> Array:
  """(x - mean) / (std + eps) of the values that count; 0 elsewhere.

  Measured from one of them, as in `_centered`: equal values are exactly 0.
  """
  offset = masked.select(x - jnp.max(
      x, axis, where=mask, initial=-jnp.inf, keepdims=True), mask)
  centered = offset - masked.mean(offset, mask, axis, keepdims=True)
  if std != 'none':
    variance = masked.variance(
        offset, mask, axis, keepdims=True, ddof=_DDOF[std])
    centered = masked.divide(centered, eps + jnp.sqrt(variance))
  return masked.select(centered, mask)
