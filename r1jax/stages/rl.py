"""Reinforcement learning from rewards: the R1-Zero stage and its kin.

A step samples a group of responses to each prompt, scores them on the host,
turns rewards into advantages and makes one or more updates (stages/grpo.py).
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.kernels import advantages
from r1jax.kernels import kl
from r1jax.models import lora
from r1jax.parallel import sharding
from r1jax.stages import evaluation
from r1jax.stages import grpo
from r1jax.stages import model_source
from r1jax.stages import ppo
from r1jax.stages import rl_report
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import loop
from r1jax.training import optim
from r1jax.types import TrainState


class Learner:
  """The compiled parts of a step, and their order."""

  def __init__(self, setup: train_state.PlacedModel, tx, abstract: TrainState,
               objective: grpo.Objective, sampler: rollouts.Sampler, *,
               epochs: int, ref_every_steps: int, sampling_rounds: int,
               kl_target: float | None = None,
               critic: tuple[ppo.Critic, optim.Optimizer] | None = None):
    self._objective, self._sampler = objective, sampler
    self._updates = epochs * objective.mini_batches
    self._ref_every_steps = ref_every_steps
    self._rounds, self._kl_target = sampling_rounds, kl_target
    places = train_state.shardings_of(abstract)
    estimate = grpo.group_relative
    self._update_critic = None
    if critic:
      estimate = functools.partial(ppo.gae, critic[0])
      self._update_critic = jax.jit(
          functools.partial(ppo.update, *critic, objective),
          donate_argnums=0, out_shardings=(places.critic, None))
    self._learn = jax.jit(functools.partial(
        grpo.experience, setup.model, objective, estimate=estimate))
    self._update = jax.jit(
        functools.partial(grpo.update, setup.model, tx, objective),
        donate_argnums=0,
        out_shardings=(places._replace(critic=None, beta=None), None))
    self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

  def __call__(self, state: TrainState, draw, seed: int, step: int
               ) -> tuple[TrainState, dict[str, Any], list[dict]]:
    """One step: rollout, rewards, advantages, updates.

    `draw` gives the batch of prompts of a number: one a step, or
    `sampling_rounds` of them where equal groups are replaced.
    """
    clock = [time.perf_counter()]
    tick = lambda: clock.append(time.perf_counter()) or clock[-1] - clock[-2]
    scored, metrics = self._sample(
        lora.join(state.ref, state.params), draw, seed, step)
    metrics |= {f'reward/{name}': jnp.mean(part)
                for name, part in scored.parts.items()}
    metrics |= rollouts.metrics(scored)
    metrics['timing/rollout_seconds'] = tick()
    state, figures = self._improve(state, scored)
    metrics |= figures
    state = state._replace(step=state.step + 1)
    every = self._objective.uses_ref and self._ref_every_steps
    if every and not (step + 1) % every:
      state = state._replace(ref=self._copy(state.params))
    metrics['perf/tokens'] = sum(row['tokens'] for row in scored.rows)
    finished = sum(row['finished'] for row in scored.rows)
    metrics['response_length/clip_ratio'] = 1 - finished / len(scored.rows)
    jax.block_until_ready(state.params)
    metrics['timing/update_seconds'] = tick()
    return state, metrics, scored.rows

  def _improve(self, state: TrainState, scored: rollouts.Scored
               ) -> tuple[TrainState, dict[str, Any]]:
    """Advantages, and the updates of the policy and of its critic."""
    critic, beta = state.critic, state.beta
    state = state._replace(critic=None, beta=None)
    weights = critic and lora.join(critic.ref, critic.params)
    experience, metrics = self._learn(
        state.ref, scored.rollout, scored.reward, weights, beta)
    history = []
    for index in range(self._updates):
      number = index % self._objective.mini_batches
      state, figures = self._update(state, experience, number)
      if critic:
        critic, more = self._update_critic(critic, experience, number)
        figures |= more
      history.append(figures)
    metrics['sampling/logp_difference'] = history[0]['policy/logp_drift']
    metrics |= {name: sum(f[name] for f in history) / len(history)
                for name in history[0]}
    if beta is not None:
      metrics['kl/beta'] = beta
      beta = kl.adapt(beta, metrics['kl/response'], self._kl_target)
    return state._replace(critic=critic, beta=beta), metrics

  def _sample(self, params, draw, seed: int, step: int
              ) -> tuple[rollouts.Scored, dict[str, int]]:
    """A step's rollout; DAPO's dynamic sampling draws on for equal groups.

    Groups whose rewards are all equal teach nothing. They are replaced by
    those of further batches, up to `sampling_rounds` in all (DAPO, arXiv
    2503.14476, eq. 11); what is still missing then weighs 0. Also returns how
    many groups were drawn and dropped.
    """
    rounds = max(self._rounds, 1)
    every = []
    for number in range(step * rounds, (step + 1) * rounds):
      every.append(self._sampler(params, draw(number), seed, number))
      keep = np.concatenate([
          sharding.to_host(advantages.informative(
              scored.reward.reshape(-1, self._objective.group)))
          for scored in every])
      prompts = len(keep) // len(every)
      if not self._rounds or keep.sum() >= prompts:
        break
    if not self._rounds:
      return every[0], {}
    counts = {'sampling/groups_drawn': len(keep),
              'sampling/groups_dropped': int(len(keep) - min(
                  prompts, keep.sum()))}
    if len(every) == 1:
      return every[0], counts
    chosen = np.sort(np.argsort(~keep, kind='stable')[:prompts])
    return rollouts.select(every, chosen, self._objective.group), counts


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  if config.init_from is None:
    raise errors.expected(
        'init_from', "a policy to begin with: 'mini', a released model or "
        'the workdir of a stage', None)
  rl, setup = config.rl, train_state.place_model(config, mesh)
  vocab = model_source.vocabulary(config, setup.model.config)
  if setup.lora and rl.ref_every_steps:
    raise errors.expected('rl.ref_every_steps', '0 with config.lora: the '
                           'reference is the frozen base', rl.ref_every_steps)
  scorer, judges = scoring.make_scorer(config), scoring.load_model_rewards(config, mesh)
  objective = make_objective(config)
  tx = train_state.optimizer(config, config.steps * rl.epochs * rl.mini_batches)
  abstract = train_state.abstract_state(setup, tx, ref=objective.uses_ref)
  critic = ppo.make_critic(config, mesh, setup) if 'critic' in config else None
  abstract = abstract._replace(
      critic=critic and critic.abstract,
      beta=jax.ShapeDtypeStruct((), jnp.float32, sharding=setup.replicated)
      if rl.get('kl_target') else None)
  settings = rollouts.Settings(
      group=rl.group, response_tokens=rl.response_tokens,
      eos_ids=vocab.eos_ids, temperature=rl.temperature, chunk=rl.sample_chunk)
  learner = Learner(
      setup, tx, abstract, objective,
      rollouts.Sampler(setup, settings, vocab, scorer, judges),
      epochs=rl.epochs, ref_every_steps=rl.ref_every_steps,
      sampling_rounds=rl.sampling_rounds, kl_target=rl.get('kl_target'),
      critic=critic and (critic.critic, critic.tx))
  prompts = scoring.read_prompts(config, vocab, config.data.split,
                             config.data.num_prompts)
  _check_tasks(config, {record['task'] for record in prompts.records})
  held_out = scoring.read_prompts(config, vocab, config.eval.split,
                              config.eval.problems)
  evaluate = evaluation.make_evaluator(
      config, setup, vocab, held_out, scorer, judges, workdir)

  def init():
    params = train_state.init_params(setup, config.init_from, config.seed)
    state = train_state.init_state(
        setup, tx, abstract._replace(critic=None, beta=None), params,
        config.seed)
    beta = None if abstract.beta is None else jax.device_put(
        np.float32(config.rl.beta), setup.replicated)
    return state._replace(critic=critic and critic.init(), beta=beta)

  def step(state, index):
    draw = lambda number: batches.prompt_batch(
        prompts, number, rl.prompts, config.seed)
    return learner(state, draw, config.seed, index)

  return loop.Stage(
      config.steps, init, abstract, step,
      evaluate=lambda state: evaluate(
          lora.join(state.ref, state.params), int(state.step)),
      finish=functools.partial(rl_report.write, config.to_dict(), workdir),
      shown={'reward/mean': 'reward', 'reward/accuracy': 'accuracy',
             'response_length/mean': 'length',
             'perf/tokens_per_second': 'tok/s'})


def _check_tasks(config, known: set[str]):
  """Refuses weights of a task of which there is no prompt to be rewarded."""
  for task in config.rewards.tasks:
    if task not in known:
      where = 'config.rewards.tasks.'
      raise errors.ConfigError(
          f'{where}{task}: config.data has no prompt of this task, but of '
          f'{sorted(known)}' + errors.nearest(task, known, where))


def make_objective(config) -> grpo.Objective:
  fields = config.rl.to_dict()
  return grpo.Objective(
      drop_equal_groups=fields['sampling_rounds'] > 0,
      **{k: fields[k] for k in grpo.Objective._fields if k in fields})
