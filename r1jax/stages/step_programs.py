"""The programs that a step of reinforcement learning runs on the devices.

Those that a plan compiles for another machine, too (plan/programs.py); the
sampler's is in rollouts.py.
"""

from collections.abc import Callable
import functools
import math
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

  A rollout is measured in `parts` at once.
  """
  policy, _, _ = split_state(train_state.shardings_of(abstract))
  estimate, values, update_critic = grpo.group_relative, None, None
  if critic:
    estimate, values = (functools.partial(function, critic.critic)
                        for function in (ppo.gae, ppo.values))
    update_critic = jax.jit(
        functools.partial(
            ppo.update, critic.critic, critic.optimizer, objective),
        donate_argnums=0, out_shardings=(
            train_state.shardings_of(critic.abstract), None))
  return Programs(
      threads.in_parts(functools.partial(
          grpo.measure, placed.model, objective, values=values), parts, 1),
      jax.jit(functools.partial(
          grpo.estimate_advantages, objective, estimate=estimate)),
      jax.jit(
          functools.partial(grpo.update, placed.model, optimizer, objective),
          donate_argnums=0, out_shardings=(policy, None)),
      update_critic)


def measured_at_once(section, mesh: jax.sharding.Mesh) -> int:
  """The parts of a rollout that a section `config.rl` measures at once.

  Each has whole groups, and whole micro-batches of them. Packed rows are few,
  and fill the micro-batches of a whole rollout better than those of parts.
  """
  if section.packed_rows is not None:
    return 1
  rows = section.prompts * section.group
  return threads.usable(mesh, section.cpu_threads, math.gcd(
      section.prompts, rows // (section.micro_batch or 1)))


def split_state(state: TrainState) -> tuple[TrainState, Any, Any]:
  """The policy's own state, its critic's, and beta where that adapts."""
  return (state._replace(critic=None, beta=None, in_flight=None), state.critic,
          state.beta)


def join_state(policy: TrainState, critic: Any, beta: Any) -> TrainState:
  """The inverse of `split_state`, without what is in flight."""
  return policy._replace(critic=critic, beta=beta)
