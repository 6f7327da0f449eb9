"""Reinforcement learning: R1-Zero, reasoning RL, secondary RL, PPO.

A step (`Learner.__call__`) is

    sample      a group of G responses to each prompt     rollouts.py, or over
                several steps                             partial.py
    score       rules, reward models, a judge             scoring.py
    measure     the reference's log p, while rules score  grpo.py, ppo.py
    experience  advantages                                grpo.py, ppo.py
    update      mini_batches * epochs updates             grpo.py, ppo.py
    metrics     everything that is logged of the step
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import models
from r1jax.data import batches
from r1jax.kernels import kl
from r1jax.kernels import splash_segments
from r1jax.models import lora
from r1jax.models import row_attention
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.reports import rl as rl_report
from r1jax.stages import dynamic_sampling
from r1jax.stages import evaluation
from r1jax.stages import grpo
from r1jax.stages import partial as partial_lib
from r1jax.stages import pieces
from r1jax.stages import ppo
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import step_programs
from r1jax.stages import train_state
from r1jax.training import accumulate
from r1jax.training import loop
from r1jax.training import optim
from r1jax.training import timing
from r1jax.types import Experience, Rollout, TrainState

Metrics = dict[str, Any]  # name -> scalar, on the device or the host


class Settings(NamedTuple):
  """What a step does besides the objective; fields of config.rl."""
  epochs: int = 1  # over the mini-batches of a rollout
  ref_every_steps: int = 0  # the reference becomes the policy; 0: never
  sampling_rounds: int = 0  # DAPO's dynamic sampling; 0: none
  kl_target: float | None = None  # nats per response, for an adaptive beta
  seed: int = 0
  mask_truncated: bool = False  # nothing is learned from what was cut
  parts: int = 1  # of a rollout, measured at once


class Learner:
  """The compiled parts of a step, in their order."""

  def __init__(self, placed: train_state.PlacedModel,
               optimizer: optim.Optimizer, abstract: TrainState,
               objective: grpo.Objective, settings: Settings,
               sampler: rollouts.Sampler,
               scorer: scoring.RolloutScorer,
               draw: Callable[[int], batches.PromptBatch],
               critic: ppo.PlacedCritic | None = None,
               partial: partial_lib.Sampler | None = None):
    """Compiles nothing yet.

    Args:
      placed, optimizer: of the policy.
      abstract: shapes and shardings of the whole state.
      objective, settings: what a step does.
      sampler, scorer: make its rollouts and their rewards.
      draw: number -> a batch of prompts; a step takes one, or one per round of
        dynamic sampling.
      critic: of PPO.
      partial: samples over several steps, in place of `sampler` and `draw`.
    """
    self._partial = partial
    self._placed, self._objective, self._settings = placed, objective, settings
    self._sampler, self._scorer, self._draw = sampler, scorer, draw
    (self._measure, self._experience, self._update,
     self._update_critic) = step_programs.jitted(
         placed, optimizer, abstract, objective, critic,
         settings.parts)
    self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

  def __call__(self, state: TrainState, step: int
               ) -> tuple[TrainState, Metrics, list[dict[str, Any]]]:
    """One step: the new state, its metrics, and a row for each response."""
    if self._partial is None:
      taken, (rollout, batch) = None, self.sample(state, step)
      times = {timing.BEGAN: timing.wait_for(state.params)}
    else:
      taken = self._partial(
          lora.join(state.ref, state.params), state.in_flight, step)
      rollout, batch = taken.rollout, taken.batch
      times = {timing.BEGAN: taken.began}
    meanwhile = functools.partial(self.measure, state)
    if self._settings.sampling_rounds:
      meanwhile = None  # groups are chosen first
    scored = self.score(rollout, batch, meanwhile)
    if taken is not None:
      scored = taken.of(scored)
    if self._settings.sampling_rounds:
      scored = dynamic_sampling.replace_equal_groups(
          scored, self._objective.group, self._settings.sampling_rounds,
          lambda round_index: self.score(
              *self.sample(state, step, round_index)))
    times[timing.ROLLED_OUT] = timing.now()
    distributed.check_stopped()  # the update donates the state
    experience, measured = self.experience(state, scored)
    kept = scoring.learned_from(scored, self._settings.mask_truncated)
    state, updated = self.update(state, step, experience, measured, kept)
    metrics = times | step_metrics(
        scored, self._objective.group, measured, updated)
    if taken is not None:
      state = state._replace(in_flight=taken.in_flight)
      metrics |= taken.metrics
    return state, metrics, scored.rows

  def sample(self, state: TrainState, step: int, round_index: int = 0
             ) -> tuple[Rollout | pieces.Drawing, batches.PromptBatch]:
    """The policy's responses to the prompts of a step, and these prompts.

    `round_index` counts the rounds of DAPO's dynamic sampling.
    """
    number = step * max(self._settings.sampling_rounds, 1) + round_index
    batch = batches.with_step(self._draw(number), step)
    params = lora.join(state.ref, state.params)
    return self._sampler(params, batch, self._settings.seed, number), batch

  def score(self, rollout: Rollout | pieces.Drawing,
            batch: batches.PromptBatch,
            meanwhile: Callable[[Rollout], grpo.Measured] | None = None
            ) -> scoring.Scored:
    """The rewards of a rollout of `batch`; see RolloutScorer.__call__."""
    return self._scorer(rollout, batch, meanwhile)

  def measure(self, state: TrainState, rollout: Rollout) -> grpo.Measured:
    """What the objective needs to know of a rollout besides its rewards."""
    critic = state.critic
    return self._measure(
        state.ref, rollout, critic and lora.join(critic.ref, critic.params),
        lora.join(state.ref, state.params)
        if self._objective.correction is not None else None)

  def experience(self, state: TrainState, scored: scoring.Scored
                 ) -> tuple[Experience, Metrics]:
    """Advantages of a scored rollout; metrics of what was computed for them."""
    put = functools.partial(sharding.from_host, mesh=self._placed.mesh)
    learned = scoring.learned_from(scored, self._settings.mask_truncated)
    if self._partial is None and not self._settings.mask_truncated:
      learned = None  # what is dropped has equal rewards
    experience, figures = self._experience(
        scored.rollout, put(scored.reward),
        scored.measured or self.measure(state, scored.rollout), state.beta,
        scored.steps and put(scored.steps),
        None if learned is None else put(learned))
    return experience, figures | (
        {} if state.beta is None else {'kl/beta': state.beta})

  def update(self, state: TrainState, step: int, experience: Experience,
             measured: Metrics, kept: np.ndarray | None = None
             ) -> tuple[TrainState, list[Metrics]]:
    """The updates of policy and critic, of beta and the reference.

    Of `scoring.learned_from`: a mini-batch of which nothing is `kept` changes
    nothing, and has no metrics.
    """
    policy, critic, beta = step_programs.split_state(state)
    updated, parts = [], range(self._objective.mini_batches)
    if kept is not None:
      kept_B = kept.reshape(-1, self._objective.group).any(1)
      kept_of = accumulate.split(kept_B, len(parts))
      parts = [part for part in parts if kept_of[part].any()]
    for mini_batch in (*parts,) * self._settings.epochs:
      policy, metrics = self._update(policy, experience, mini_batch)
      if critic:
        critic, more = self._update_critic(critic, experience, mini_batch)
        metrics |= more
      updated.append(metrics)
    if beta is not None and updated:
      beta = kl.adapt(beta, measured['kl/response'], self._settings.kl_target)
    every = self._objective.uses_ref and self._settings.ref_every_steps
    if every and not (step + 1) % every:
      policy = policy._replace(ref=self._copy(policy.params))
    policy = policy._replace(step=policy.step + 1)
    return step_programs.join_state(policy, critic, beta), updated


def step_metrics(scored: scoring.Scored, group: int, measured: Metrics,
                 updated: list[Metrics]) -> Metrics:
  """All metrics of a step; r1jax/README.md explains each.

  Args:
    scored: its rollout. With dynamic sampling its rows and counters are of all
      rounds; statistics are of the groups that are trained on.
    group: G, responses per prompt.
    measured: of reference and critic, before the updates.
    updated: of each update; their means are logged. Without any, there is
      nothing that a statistic could be of.
  """
  metrics = scoring.scorer_metrics(scored) | {
      'perf/tokens': sum(row['tokens'] for row in scored.rows)}
  if scored.drawn is not None:
    metrics |= {'sampling/groups_drawn': scored.drawn,
                'sampling/groups_dropped': scored.dropped}
  if not updated:
    return metrics
  rows = scored.rows if scored.kept is None else scored.kept_rows
  kept = slice(None) if scored.kept is None else scored.kept
  metrics |= rollout_metrics(
      scored.reward[kept], scored.length[kept], group) | {
          'response_length/clip_ratio': 1 - np.mean(
              [row['finished'] for row in rows]),
          'sampling/logp_difference': updated[0]['policy/logp_drift']}
  metrics |= {f'reward/{name}': part[kept].mean()
              for name, part in scored.parts.items()}
  return metrics | scoring.step_metrics(scored.steps) | measured | {
      name: sum(one[name] for one in updated) / len(updated)
      for name in updated[0]}


def rollout_metrics(reward: np.ndarray, length: np.ndarray, group: int
                    ) -> Metrics:
  """Metrics of N responses in groups: `reward` f32[N], `length` i32[N]."""
  reward_BG = reward.reshape(-1, group)
  return {
      'reward/mean': reward_BG.mean(),
      'reward/std': reward_BG.std(1).mean(),
      'reward/frac_zero_std': dynamic_sampling.equal_groups(
          reward_BG).mean(),
      'response_length/mean': length.mean(),
      'response_length/min': length.min(),
      'response_length/max': length.max(),
  }


def abstract_state(placed: train_state.PlacedModel, optimizer: optim.Optimizer,
                   objective: grpo.Objective,
                   critic: ppo.PlacedCritic | None = None,
                   adaptive: bool = False) -> TrainState:
  """The shapes and shardings of the whole state.

  Args:
    placed, optimizer: of the policy.
    objective: whether it needs a reference.
    critic: of PPO.
    adaptive: whether beta adapts, and so is part of the state.
  """
  policy = train_state.abstract_state(placed, optimizer, ref=objective.uses_ref)
  beta = jax.ShapeDtypeStruct(
      (), jnp.float32, sharding=placed.replicated) if adaptive else None
  return step_programs.join_state(policy, critic and critic.abstract, beta)


def state_from_params(placed: train_state.PlacedModel,
                      optimizer: optim.Optimizer, abstract: TrainState, params,
                      objective: grpo.Objective,
                      critic: ppo.PlacedCritic | None = None, seed: int = 0
                      ) -> TrainState:
  """The whole state at step 0, from the policy's parameters."""
  policy = train_state.state_from_params(
      placed, optimizer, step_programs.split_state(abstract)[0], params, seed)
  beta = None if abstract.beta is None else jax.device_put(
      np.float32(objective.beta), placed.replicated)
  return step_programs.join_state(policy, critic and critic.init(), beta)


class Trained(NamedTuple):
  """What is trained, before any data is read."""
  policy: train_state.StageModel
  objective: grpo.Objective
  optimizer: optim.Optimizer
  critic: ppo.PlacedCritic | None
  abstract: TrainState  # shapes and shardings of the whole state


def trained(config, mesh, needs: str | None = None) -> Trained:
  """Policy, critic and optimizers of `config`; computes nothing.

  Args:
    config: of the stage.
    mesh: of all devices.
    needs: as train_state.configured_model.
  """
  rl, longest = config.rl, rollouts.longest_sequence(config.rl)
  policy = train_state.configured_model(config, mesh, longest, needs)
  placed = policy.placed
  check_policy(rl, placed)
  objective = make_objective(rl)
  optimizer = train_state.optimizer(
      config.optim, config.steps * rl.epochs * rl.mini_batches, placed.trained)
  critic = None
  if 'critic' in config:
    critic = ppo.make_critic(config, mesh, longest, placed.model.config.vocab)
    check_packed(rl, critic.critic.model)
  return Trained(policy, objective, optimizer, critic, abstract_state(
      placed, optimizer, objective, critic, adaptive=rl.kl_target is not None))


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  rl, eval_config, seed = config.rl, config.eval, config.seed
  policy, objective, optimizer, critic, abstract = trained(
      config, mesh, "a policy to start from: 'mini', 'smollm2', "
      'a Hugging Face folder, a .gguf or .npz file, or the workdir of a stage')
  placed, vocab = policy.placed, policy.vocabulary(config.vocab)
  scorer = scoring.build(config, vocab, mesh, rl.process)
  prompts, held_out = (
      rollouts.read_prompts(
          config.data, vocab, rl.prompt_tokens, split=split, count=count)
      for split, count in ((config.data.split, config.data.num_prompts),
                           (eval_config.split, eval_config.problems)))
  scoring.check_tasks(config.rewards, prompts)
  if config.steps and rl.process is None:
    scoring.check_weights(config.rewards, prompts)
  for each in (prompts, held_out):
    scoring.check_records(config.rewards, each)
  settings, batch_prompts = rollouts.policy_settings(
      rl, vocab, rl.top_k, rl.top_p, keep_support=rl.top_k > 0), rl.prompts
  settings = settings._replace(keep_experts=rl.replay_routing)
  draw = lambda number: batches.prompt_batch(
      prompts, number, batch_prompts, seed)
  partial = partial_lib.build(rl, placed, settings, draw, seed)
  if partial is not None:
    abstract = abstract._replace(in_flight=partial.abstract)
  learner = Learner(
      placed, optimizer, abstract, objective, Settings(
          epochs=rl.epochs, ref_every_steps=rl.ref_every_steps,
          sampling_rounds=rl.sampling_rounds, kl_target=rl.kl_target,
          mask_truncated=rl.mask_truncated, seed=seed,
          parts=step_programs.measured_at_once(rl, mesh)),
      rollouts.Sampler(placed, settings, rl.score_while_sampling), scorer,
      draw, critic, partial)
  evaluate = evaluation.build(config, policy, vocab, held_out, scorer, workdir)

  def init():
    params = train_state.init_params(placed, policy.source, seed)
    state = state_from_params(
        placed, optimizer, abstract, params, objective, critic, seed)
    return state._replace(in_flight=partial and partial.init())

  return loop.Stage(
      config.steps, init, abstract, learner,
      evaluate=lambda state: evaluate(
          lora.join(state.ref, state.params), int(state.step)),
      finish=functools.partial(
          rl_report.write_report, config.to_dict(), workdir),
      progress={'reward/mean': 'reward', 'reward/accuracy': 'accuracy',
             'response_length/mean': 'length',
             'perf/tokens_per_second': 'tok/s'})


def check_policy(section, placed: train_state.PlacedModel) -> None:
  """Raises `ConfigError` for what this policy of `config.rl` has no use for."""
  if placed.lora and section.ref_every_steps:
    raise errors.expected(
        'rl.ref_every_steps', '0 with config.lora: the reference is the frozen '
        'base', section.ref_every_steps)
  if section.replay_routing and placed.model.config.moe is None:
    raise errors.expected(
        'rl.replay_routing', 'False: the model has no experts', True)
  check_packed(section, placed.model)


def check_packed(section, model: models.Model) -> None:
  """Raises `ConfigError` where a model's attention takes no packed rows."""
  if section.packed_rows is None:
    return
  whole, packed = (row_attention.kernel(model.config, model.place, packed=x)
                   for x in (False, True))
  if packed != whole:
    raise errors.expected(
        'rl.packed_rows', f'None, or model.attention_kernel={packed!r}: '
        f'{whole} has no packed rows', section.packed_rows)
  most = splash_segments.MAX_TOKENS
  if packed == 'splash' and section.response_tokens > most:
    raise errors.expected(
        'rl.packed_rows', f'None where rl.response_tokens exceeds {most}',
        section.packed_rows)


def make_objective(section) -> grpo.Objective:
  """The objective of a section `config.rl`."""
  fields = {name: section[name] for name in grpo.Objective._fields
            if name != 'drop_equal_groups'}
  return grpo.Objective(
      drop_equal_groups=section.sampling_rounds > 0, **fields)
