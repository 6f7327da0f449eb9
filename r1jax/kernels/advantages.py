"""Advantages: how much better a response did than was to be expected.

Than its group (GRPO, RLOO): rewards enter as f32[B, G], the G responses to a
prompt in one row; advantages leave in the same shape. A group has at least two
responses, or there is nothing to compare with (checked with the config). Than
a critic foretold, token by token (PPO): `gae`.
"""

from jax import lax
import jax.numpy as jnp

from r1jax.kernels import masked


def _centered(reward_BG):
  """r - mean(r), exactly 0 in a group of equal rewards.

  The rounded mean of G equal numbers need not be that number, and a division
  by the standard deviation would blow the difference up. Measured from the
  group's first reward, equal rewards are zeros, and their mean is exact.
  """
  reward_BG = jnp.asarray(reward_BG)
  reward_BG = reward_BG.astype(jnp.result_type(reward_BG, jnp.float32))
  offset_BG = reward_BG - reward_BG[..., :1]
  return offset_BG - jnp.mean(offset_BG, axis=-1, keepdims=True)


def grpo(reward_BG, std='population', eps=1e-6):
  """GRPO: A_i = (r_i - mean(r)) / (std(r) + eps) over the group.

  DeepSeekMath, arXiv 2402.03300, section 4.1.2; DeepSeek-R1, arXiv 2501.12948,
  eq. 3. Neither says whose standard deviation it is:
    'population' divides the squares by G. The default: it is what "std of the
      group" says when the group is all there is, and it bounds |A| by
      sqrt(G - 1) and makes the mean of A^2 one for every G, so that a learning
      rate carries over from one group size to another.
    'sample' divides by G - 1, as torch.std does: A is smaller by
      sqrt((G - 1) / G), i.e. 0.71 at G = 2, 0.97 at G = 16.
    'none' divides by nothing: Dr. GRPO.
  Rewards 1, 0, 0, 1 give +-1, +-0.86602 and +-0.5.

  A group of equal rewards gets exactly 0, also with eps = 0. eps is for
  groups whose rewards differ by rounding only: it keeps them near 0.
  """
  advantage_BG = _centered(reward_BG)
  if std == 'none':
    return advantage_BG
  ddof = {'population': 0, 'sample': 1}[std]
  std_B1 = jnp.std(advantage_BG, axis=-1, ddof=ddof, keepdims=True)
  return masked.divide(advantage_BG, std_B1 + eps)


def rloo(reward_BG):
  """RLOO: A_i = r_i - mean of the others' rewards, arXiv 2402.14740.

  Computed as G / (G - 1) * (r_i - mean(r)), which is the same number.
  """
  group = jnp.shape(reward_BG)[-1]
  return group / (group - 1) * _centered(reward_BG)


def keep(reward_BG):
  """DAPO's dynamic sampling: bool[B], which groups have anything to teach.

  False where all rewards are equal, and so all advantages 0: prompts that
  every response solved, or none. arXiv 2503.14476, section 3.2.
  """
  reward_BG = jnp.asarray(reward_BG)
  return jnp.any(reward_BG != reward_BG[..., :1], axis=-1)


def gae(reward_NR, value_NR, mask_NR, gamma, lam):
  """GAE: A_t = sum over l >= 0 of (gamma lam)^l delta_{t + l}.

  delta_t = r_t + gamma V_{t+1} - V_t (arXiv 1506.02438, eq. 16). Entry t of
  value_NR is V of the prompt and the tokens before token t, the state in which
  token t is chosen. After its last token a response is worth 0, also where it
  was cut at the limit. lam = 1 gives the return less the value, lam = 0 the
  one-step error. With gamma = lam = 1, values 1, 2, 3 and a reward of 4 at the
  last token: advantages 3, 2, 1 and returns 4.

  Returns advantage_NR and return_NR = advantage + value, the critic's target;
  both 0 where the mask, true on a response's first tokens, is false.
  """
  reward_NR, value_NR = (
      masked.select(jnp.asarray(x, jnp.result_type(x, jnp.float32)), mask_NR)
      for x in (reward_NR, value_NR))
  later_NR = jnp.pad(value_NR, ((0, 0), (0, 1)))[:, 1:]
  delta_NR = reward_NR + gamma * later_NR - value_NR
  decay_NR = jnp.full_like(delta_NR, gamma * lam)

  def join(later, here):  # of A = delta + decay * (A of the next token)
    return here[0] * later[0], here[1] + here[0] * later[1]

  _, advantage_NR = lax.associative_scan(
      join, (decay_NR, delta_NR), reverse=True, axis=1)
  advantage_NR = masked.select(advantage_NR, mask_NR)
  return advantage_NR, advantage_NR + value_NR


def whiten(advantage_NR, mask_NR, eps=1e-8):
  """Mean 0 and standard deviation 1 over all tokens of the batch.

  On a mesh the statistics are those of all devices together: it is given the
  whole array. Equal advantages become exactly 0: like groups, they are measured
  from one of them.
  """
  offset_NR = advantage_NR - jnp.max(
      advantage_NR, where=mask_NR, initial=-jnp.inf)
  centered_NR = offset_NR - masked.mean(offset_NR, mask_NR)
  std = jnp.sqrt(masked.variance(offset_NR, mask_NR))
  return masked.select(masked.divide(centered_NR, std + eps), mask_NR)
