"""The programs that a step of reinforcement learning runs on the devices.

Those that a plan compiles for another machine, too (plan/programs.py); the
sampler's is in rollouts.py.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from r1jax.parallel import threads
from r1jax.stages import grpo
from r1jax.stages import ppo
from r1jax.stages import train_state
from r1jax.training import optim
from r1jax.types import TrainState


class Programs(NamedTuple):
  """What a step runs on the devices after its samples are drawn; jitted."""
  measure: Callable[..., grpo.Measured]  # grpo.measure, its arrays alone
  experience: Callable[..., Any]  # grpo.estimate_advantages, likewise
  update: Callable[..., Any]  # grpo.update, of the policy
  update_critic: Callable[..., Any] | None  # ppo.update


def jitted(placed: train_state.PlacedModel, optimizer: optim.Optimizer,
           abstract: TrainState, objective: grpo.Objective,
           critic: ppo.PlacedCritic | None = None, parts: int = 1) -> Programs:
  """The programs of a step; the arguments are those of rl.Learner.

  Of a rollout in `parts`, threads.usable ones, each is computed at once.
  """
  policy, _, _ = split_state(train_state.shardings_of(abstract))
  estimate, values, update_critic = grpo.group_relative, None, None
  if critic:
    estimate, values = (functools.partial(function, critic.critic)
                        for function in (ppo.gae, ppo.values))
    update_critic = jitted_update(
        ppo, critic.critic, critic.optimizer, objective,
        train_state.shardings_of(critic.abstract), parts)
  return Programs(
      threads.in_parts(functools.partial(
          grpo.measure, placed.model, objective, values=values), parts, 1),
      jax.jit(functools.partial(
          grpo.estimate_advantages, objective, estimate=estimate)),
      jitted_update(grpo, placed.model, optimizer, objective, policy, parts),
      update_critic)


def jitted_update(
    algorithm, model, optimizer: optim.Optimizer, objective: grpo.Objective,
    shardings: TrainState, parts: int = 1) -> Callable[..., Any]:
  """The update of `algorithm`, grpo or ppo: (state, experience, mini-batch).

  In `parts`, the gradients of each part of a mini-batch are summed at once, and
  there are as many sums of them. The state is donated.
  """
  bind, options = functools.partial, dict(
      donate_argnums=0, out_shardings=(shardings, None))
  if parts == 1:
    return jax.jit(
        bind(algorithm.update, model, optimizer, objective), **options)
  count = objective.mini_batches
  sums = jax.jit(bind(algorithm.gradient_sums, model, objective._replace(
      mini_batches=count * parts)))
  apply = jax.jit(bind(algorithm.apply, optimizer), **options)

  def update(state, experience, mini_batch):
    return apply(state, threads.at_once(lambda part: sums(
        state, experience, mini_batch + count * part), parts))

  return update


def split_state(state: TrainState) -> tuple[TrainState, Any, Any]:
  """The policy's own state, its critic's, and beta where that adapts."""
  return (state._replace(critic=None, beta=None, in_flight=None), state.critic,
          state.beta)


def join_state(policy: TrainState, critic: Any, beta: Any) -> TrainState:
  """The inverse of `split_state`, without what is in flight."""
  return policy._replace(critic=critic, beta=beta)
