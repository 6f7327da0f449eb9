"""PPO: a critic, and per-token advantages from its values.

Sampler, rewards, loop and the policy's update are those of GRPO (Schulman et
al., arXiv 1707.06347; for language models Ziegler et al., arXiv 1909.08593,
and InstructGPT, arXiv 2203.02155). The reward is the score of a response at its
last token, minus beta log(pi / pi_ref) at every token.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax.numpy as jnp

from r1jax import errors
from r1jax import models
from r1jax.kernels import advantages
from r1jax.kernels import losses
from r1jax.kernels import masked
from r1jax.kernels import values as values_lib
from r1jax.models import lora
from r1jax.stages import grpo
from r1jax.stages import model_source
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import optim
from r1jax.types import Array, Experience, TrainState


class Critic(NamedTuple):
  """The critic's model and objective. Hashable, static under jit."""
  model: models.Model  # its config is `scalar`
  gamma: float
  lam: float  # lambda of GAE
  whiten: bool  # advantages get mean 0 and variance 1 over all tokens
  value_clip: float | None


class PlacedCritic(NamedTuple):
  """A critic on the mesh, its optimizer, and its initial state."""
  critic: Critic
  optimizer: optim.Optimizer
  abstract: TrainState
  init: Callable[[], TrainState]


def make_critic(config, mesh, longest: tuple[str, int], vocab: int
                ) -> PlacedCritic:
  """The critic of `config.critic`: a reward model, or the policy's layers.

  Args:
    config: of the stage.
    mesh: of all devices.
    longest: as train_state.place_model.
    vocab: the size of the policy's vocabulary, which the critic must share.
  """
  section, seed, field = config.critic, config.seed, 'critic.init_from'
  name = section.init_from or config.init_from
  source = name and model_source.find(name, field)
  shape = model_source.configured_architecture(
      {**config.model, 'scalar': True}, source)
  placed = train_state.place_model(
      shape, mesh, config.rules, lora.settings(section.lora), longest)
  if shape.vocab != vocab:
    raise errors.expected(
        field, f"a model of the policy's vocabulary, {vocab} pieces",
        shape.vocab)
  optimizer = train_state.optimizer(
      section.optim, config.steps * config.rl.epochs * config.rl.mini_batches,
      placed.trained, field='critic.optim')
  abstract = train_state.abstract_state(placed, optimizer, ref=False)
  critic = Critic(placed.model, section.gamma, section.lam, section.whiten,
                  section.value_clip)
  init = functools.partial(
      train_state.initial_state, placed, source, optimizer, abstract, seed)
  return PlacedCritic(critic, optimizer, abstract, init)


def token_rewards(reward: Array, penalty_NR: Array, mask_NR: Array) -> Array:
  """-penalty at every token, and the reward at a response's last, f32[N, R]."""
  last_NR = jnp.arange(mask_NR.shape[1]) == mask_NR.sum(1, keepdims=True) - 1
  return masked.select(last_NR * reward[:, None] - penalty_NR, mask_NR)


def values(critic: Critic, objective: grpo.Objective, params, rollout
           ) -> Array:
  """The critic's value before each token of a rollout, f32[N, R]."""
  model = critic.model
  return grpo.by_micro_batch(
      model, objective, rollout, lambda part: values_lib.of_states(
          model, params, part.prompts, part.tokens, part.segment))


def gae(critic: Critic, objective: grpo.Objective, value_NR: Array, rollout,
        reward: Array, penalty_NR: Array
        ) -> tuple[grpo.Estimate, dict[str, Array]]:
  """GAE from `values`; an estimator like grpo.group_relative."""
  mask_NR = rollout.mask
  reward_NR = token_rewards(reward, penalty_NR, mask_NR)
  advantage_NR, target_NR = advantages.gae(
      reward_NR, value_NR, mask_NR, critic.gamma, critic.lam)
  unexplained = masked.variance(target_NR - value_NR, mask_NR)
  metrics = {
      'critic/value': masked.mean(value_NR, mask_NR),
      'critic/explained_variance': 1 - masked.divide(
          unexplained, masked.variance(target_NR, mask_NR)),
  }
  if critic.whiten:
    advantage_NR = advantages.whiten(advantage_NR, mask_NR)
  return grpo.Estimate(masked.total(reward_NR, mask_NR, axis=1), advantage_NR,
                       value_NR, target_NR), metrics


def loss(critic: Critic, params, part: Experience):
  """Sums and denominators of the critic's loss and metrics, one micro-batch."""
  rollout, mask_NR = part.rollout, part.rollout.mask
  value_NR = masked.select(values_lib.of_states(
      critic.model, params, rollout.prompts, rollout.tokens, rollout.segment),
      mask_NR)
  error = losses.value_loss(
      value_NR, part.value, part.target, critic.value_clip)
  pair = losses.aggregate(
      error.loss, mask_NR, part.weight, 'token_mean', mask_NR.shape[1],
      rollout.segment)
  count = masked.count(value_NR, mask_NR).astype(jnp.float32)
  return pair, {
      'critic/clipped': (masked.total(error.clipped, mask_NR), count)}


def update(critic: Critic, optimizer, objective: grpo.Objective,
           state: TrainState, experience: Experience, index
           ) -> tuple[TrainState, dict]:
  """One update of the critic on mini-batch number `index`; pure.

  `state` is the critic's own, TrainState.critic of the policy's.
  """
  grads, metrics = accumulate.gradients_of(
      lambda params, part: loss(critic, lora.join(state.ref, params), part),
      state.params,
      *grpo.mini_batch(critic.model, objective, experience, index))
  state, more = optim.update(optimizer, grads, state)
  metrics['critic/loss'] = metrics.pop('loss')
  metrics |= {f'critic/{name.partition("/")[2]}': value
              for name, value in more.items()}
  return state._replace(step=state.step + 1), metrics
