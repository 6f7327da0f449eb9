"""Group-relative objectives: GRPO, Dr. GRPO, RLOO, DAPO; pure functions.

From scored rollouts to an updated state. The objective

    J = E[min(rho A, clip(rho, 1 - low, 1 + high) A) - beta KL(pi || ref)]

is maximised, with rho = pi / pi_old (DeepSeekMath, arXiv 2402.03300, eq. 3).
pi_old is the sampler's own log-probability: no scoring pass is spent on it.
With a `correction`, pi_old is scored as the update scores, and the surrogate of
each token is weighted by pi_old / pi_sampler (kernels/importance.py). A rollout
that has its tokens' experts is replayed: pi and a scored pi_old use them, while
the reference routes for itself.

Where the sampler is truncated (top_k, top_p), so are pi, pi_old and ref: each
is a softmax over the tokens that the sampler kept in that place, whatever they
would keep themselves. So rho is 1 at the first update, and the expectation is
over the policy whose ratio is taken ("keep sampling mask", DeepSeek-V3.2, arXiv
2512.02556, sec. 3.1). Of softmaxes over all tokens the ratio would be the mass
of those kept, and the gradient would change tokens that could not be drawn.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.kernels import advantages
from r1jax.kernels import importance
from r1jax.kernels import kl
from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.kernels import masked
from r1jax.kernels import packing
from r1jax.models import lora
from r1jax.stages import micro_batches
from r1jax.training import accumulate
from r1jax.training import optim
from r1jax.types import Array, Experience, Rollout, Steps, TrainState


class Objective(NamedTuple):
  """The objective, fields of config.rl. Hashable, static under jit."""
  group: int  # G, responses per prompt
  mini_batches: int  # updates per rollout
  micro_batch: int | None  # rows of responses computed at once; None: all
  temperature: float  # of pi, pi_old and ref
  advantage: str  # A: grpo | rloo | gae
  std: str  # its divisor: population | sample | none (Dr. GRPO)
  aggregate: str  # sequence_mean | token_mean | constant
  clip_low: float  # eps_low
  clip_high: float  # eps_high
  dual_clip: float | None  # bound of rho A where A < 0
  kl: str  # estimator: none | k1 | k2 | k3
  kl_in: str  # loss | reward
  beta: float  # weight of the KL
  drop_equal_groups: bool  # weight 0 for groups of equal rewards (DAPO)
  logp_chunk: int  # tokens whose logits are held at once
  measure_kl: bool = False  # kl/ref where beta is 0, too; keeps a reference
  correction: str | None = None  # of the sampler: importance.weights
  correction_cap: float = 2.  # bounds of its weights
  correction_floor: float = 0.
  ratio: str = 'token'  # rho of a token, or of its sequence (GSPO)
  surrogate: str = 'clip'  # clip | cispo
  entropy_bonus: float = 0.  # weight of the entropy
  packed_rows: int | None = None  # of micro_batches.make

  @property
  def uses_ref(self) -> bool:
    return self.kl != 'none' and (self.beta > 0 or self.measure_kl)


class Estimate(NamedTuple):
  """The result of an advantage estimator."""
  reward: Array  # f32[N], minus the KL penalty of its tokens
  advantage: Array  # f32[N, R]
  value: Array | None = None  # f32[N, R], of a critic
  target: Array | None = None  # f32[N, R], what the critic is regressed on


def by_micro_batch(model, objective: Objective, rollout: Rollout,
                   function: Callable[[Rollout], Array]) -> Array:
  """What a function of rows is of each response token, f32[N, R]."""
  return masked.select(micro_batches.measure(
      rollout, objective.micro_batch, objective.packed_rows, model.place,
      function), rollout.mask)


def scored_logp(model, objective: Objective, params, rollout) -> Array:
  """log p of every response token under a model's parameters, f32[N, R]."""
  return by_micro_batch(
      model, objective, rollout, lambda part: measure_responses(
          model, objective, params, part)[0])


def measure_responses(model, objective: Objective, params, rollout: Rollout
                      ) -> tuple[Array, ...]:
  """logprobs.of_responses, or `of_replayed` where there are experts."""
  support, experts_NRLK = rollout.support, rollout.experts
  settings = dict(temperature=objective.temperature, chunk=objective.logp_chunk,
                  kept_NRK=support and support.tokens,
                  differentiate=objective.entropy_bonus > 0,
                  segment_NR=rollout.segment)
  given = model, params, rollout.prompts, rollout.tokens
  if experts_NRLK is None:
    return logprobs.of_responses(*given, **settings)
  return logprobs.of_replayed(*given, experts_NRLK, **settings)


def group_relative(objective: Objective, value_NR: None, rollout,
                   reward: Array, penalty_NR: Array
                   ) -> tuple[Estimate, dict[str, Array]]:
  """Group-relative advantages, one per response; there is no critic."""
  del value_NR
  reward = reward - masked.total(penalty_NR, rollout.mask, axis=1)
  reward_BG = reward.reshape(-1, objective.group)
  if objective.advantage == 'rloo':
    advantage_BG = advantages.rloo(reward_BG)
  else:
    advantage_BG = advantages.grpo(reward_BG, objective.std)
  return Estimate(reward, jnp.broadcast_to(
      advantage_BG.reshape(-1, 1), rollout.mask.shape)), {}


class Measured(NamedTuple):
  """What is known of a rollout before its rewards are; None: not needed."""
  ref_logp: Array | None = None  # f32[N, R], of the reference
  old_logp: Array | None = None  # f32[N, R], scored as an update scores
  value: Array | None = None  # f32[N, R], of a critic


def measure(model, objective: Objective, ref, rollout, critic=None, policy=None,
            values=None) -> Measured:
  """Log-probabilities and values of a rollout; pure.

  Args:
    model, objective: static.
    ref, critic: parameters; None where there are none.
    rollout: of N responses.
    policy: parameters that sampled, for a correction.
    values: function of (objective, critic, rollout), ppo.values; static.
  """
  found = Measured()
  if objective.correction is not None:
    found = found._replace(
        old_logp=scored_logp(model, objective, policy, rollout))
  if objective.uses_ref:
    found = found._replace(ref_logp=scored_logp(
        model, objective, ref, rollout._replace(experts=None)))
  if values is not None:
    found = found._replace(value=values(objective, critic, rollout))
  return found


def estimate_advantages(
    objective: Objective, rollout, reward: Array, measured: Measured,
    beta: Array | None = None, steps: Steps | None = None,
    finished: Array | None = None, estimate=group_relative
    ) -> tuple[Experience, dict[str, Array]]:
  """From rewards to advantages; pure, and without a model.

  A response that is dropped (weight 0) has no tokens in the experience: every
  later mean and loss, on the tokens of its mask, is over what is learned from.

  Args:
    objective: static.
    rollout: of N responses.
    reward: f32[N].
    measured: of the rollout.
    beta: f32[] of a KL penalty in the reward, where it adapts; None: the
      objective's.
    steps: rewards of steps, whose advantages are added to those of responses
      (process supervision).
    finished: bool[N], which responses are learned from; None: all. The rewards
      of the others and of their steps count in the statistics of their group
      alone (DAPO, arXiv 2503.14476, sec. 3.4, masks their loss).
    estimate: the advantage estimator, `group_relative` or ppo.gae; static.

  Returns:
    The experience, and the metrics of sampler, reference and critic.
  """
  weight_N = _weights(objective, reward, finished)
  rollout = rollout._replace(mask=rollout.mask & (weight_N > 0)[:, None])
  mask, logp, metrics = rollout.mask, rollout.logp, {}
  measured = jax.tree.map(lambda x: masked.select(x, mask), measured)
  if rollout.support is not None:
    kept = jnp.sum(rollout.support.tokens >= 0, -1, dtype=jnp.float32)
    metrics = {'sampling/kept_mass': masked.mean(rollout.support.mass, mask),
               'sampling/kept_tokens': masked.mean(kept, mask)}
  ref_logp = penalty = jnp.zeros_like(logp)
  correction = None
  if objective.correction is not None:
    logp = measured.old_logp
    correction, more = correct(objective, logp, rollout)
    metrics |= more
  if objective.uses_ref:
    ref_logp = measured.ref_logp
    metrics['kl/response'] = masked.mean(
        masked.total(kl.k1(logp, ref_logp), mask, axis=1), weight_N > 0)
    if objective.kl_in == 'reward':
      beta = objective.beta if beta is None else beta
      penalty = beta * kl.estimate(objective.kl, logp, ref_logp)
  estimated, critic_metrics = estimate(
      objective, measured.value, rollout, reward, penalty)
  if steps is not None:
    estimated = estimated._replace(
        advantage=estimated.advantage + advantages.process(
            steps.reward, steps.end, objective.group, objective.std))
  return Experience(
      rollout, estimated.reward, estimated.advantage, logp, ref_logp, weight_N,
      estimated.value, estimated.target, correction), metrics | critic_metrics


def _weights(objective: Objective, reward: Array, finished: Array | None
             ) -> Array:
  """1 of a response that is learned from, 0 of another, f32[N]."""
  weight_N = jnp.ones_like(reward) if finished is None else finished.astype(
      reward.dtype)
  if not objective.drop_equal_groups:
    return weight_N
  keep_B = advantages.informative(reward.reshape(-1, objective.group))
  return weight_N * jnp.repeat(keep_B, objective.group)


def correct(objective: Objective, old_logp_NR: Array, rollout
            ) -> tuple[Array, dict[str, Array]]:
  """The importance weights f32[N, R] of a rollout's tokens, and metrics."""
  mask = rollout.mask
  found = importance.weights(
      objective.correction, old_logp_NR, rollout.logp, mask,
      objective.correction_cap, objective.correction_floor)
  return found.weight, importance.figures(old_logp_NR, rollout.logp, mask) | {
      'sampling/weight': masked.mean(found.weight, mask),
      'sampling/cut': masked.mean(found.cut.astype(jnp.float32), mask)}


def loss(model, objective: Objective, params, part: Experience):
  """Sums and denominators of the loss and its metrics, for a micro-batch."""
  rollout, mask = part.rollout, part.rollout.mask
  logp, entropy, *changed = measure_responses(
      model, objective, params, rollout)
  logp = masked.select(logp, mask)
  surrogate = policy_surrogate(objective, logp, part)
  token_loss, metrics = surrogate.loss, {}
  if part.correction is not None:
    token_loss = token_loss * part.correction
  count = masked.count(logp, mask).astype(jnp.float32)
  mean = lambda x: (masked.total(x, mask), count)
  if objective.uses_ref:
    distance = kl.estimate(objective.kl, logp, part.ref_logp)
    metrics['kl/ref'] = mean(distance)
    if objective.kl_in == 'loss':
      token_loss = token_loss + objective.beta * distance
  if objective.entropy_bonus:
    token_loss = token_loss - objective.entropy_bonus * entropy
  metrics |= {
      'policy/entropy': mean(entropy),
      'policy/clipped_low': mean(surrogate.clipped_low),
      'policy/clipped_high': mean(surrogate.clipped_high),
      'policy/logp_drift': mean(jnp.abs(logp - part.old_logp)),
  }
  if changed:
    goes_on = mask[:, 1:]
    if rollout.segment is not None:
      goes_on &= ~packing.begins(rollout.segment)[:, 1:]
    metrics['policy/experts_changed'] = (
        masked.total(changed[0], goes_on),
        masked.count(changed[0], goes_on).astype(jnp.float32))
  if objective.dual_clip is not None:
    metrics['policy/clipped_dual'] = mean(surrogate.clipped_dual)
  pair = losses.aggregate(token_loss, mask, part.weight, objective.aggregate,
                          mask.shape[1], rollout.segment)
  return pair, jax.lax.stop_gradient(metrics)


def policy_surrogate(objective: Objective, logp_NR: Array, part: Experience
                     ) -> losses.Surrogate:
  """The surrogate that `objective` names, of a micro-batch."""
  log_ratio_NR = losses.log_ratio(
      logp_NR, part.old_logp, part.rollout.mask, objective.ratio,
      part.rollout.segment)
  bounds = objective.clip_low, objective.clip_high
  if objective.surrogate == 'cispo':
    return losses.cispo(logp_NR, log_ratio_NR, part.advantage, *bounds)
  return losses.surrogate(
      log_ratio_NR, part.advantage, *bounds, objective.dual_clip)


def mini_batch(model, objective: Objective, experience: Experience, index
               ) -> tuple[int | Array, Callable[[Array], Experience]]:
  """Mini-batch number `index` of a rollout, of whole groups, in micro-batches.

  Where it has fewer prompts than there are devices, its responses (tokens and
  figures of them) move, to be spread over all devices.
  """
  size = experience.reward.shape[0] // objective.mini_batches
  _, take = micro_batches.of_experience(experience, size, None, None)
  return micro_batches.of_experience(
      take(index), objective.micro_batch, objective.packed_rows, model.place)


def update(model, optimizer, objective: Objective, state: TrainState,
           experience: Experience, index) -> tuple[TrainState, dict]:
  """One update on mini-batch number `index` of a rollout; pure."""
  grads, metrics = accumulate.gradients_of(
      lambda params, part: loss(
          model, objective, lora.join(state.ref, params), part), state.params,
      *mini_batch(model, objective, experience, index))
  state, more = optim.update(optimizer, grads, state)
  metrics['policy/loss'] = metrics.pop('loss')
  return state, metrics | more
