"""Reinforcement learning in memory: a vocabulary of numbers, a plain reward."""

import jax
import numpy as np

import tiny
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.stages import grpo
from r1jax.stages import partial as partial_lib
from r1jax.stages import ppo
from r1jax.stages import rl
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import loop
from r1jax.training import optim

GROUP, RESPONSE, PROMPTS = 4, 6, 8
OBJECTIVE = grpo.Objective(
    group=GROUP, mini_batches=1, micro_batch=None, temperature=0.8,
    advantage='grpo', std='population', aggregate='sequence_mean', clip_low=.2,
    clip_high=.2, dual_clip=None, kl='k3', kl_in='loss', beta=0.1,
    drop_equal_groups=False, logp_chunk=4)
OPTIMIZER = optim.make_optimizer(lr=1e-2, steps=100, weight_decay=0.01)
SETTINGS = rollouts.Settings(
    group=GROUP, response_tokens=RESPONSE, eos_ids=(tiny.EOS,), temperature=0.8,
    chunk=RESPONSE)


class Vocab:
  """A token is written as its number; padding is EOS."""
  size, eos_ids, pad_id = tiny.SHAPE['vocab'], (tiny.EOS,), tiny.EOS

  def decode(self, ids):
    return ' '.join(map(str, ids))


class Scorer:
  """The share of even tokens, less a tenth if the response was cut."""

  def score(self, records, responses):
    even = np.array([
        np.mean([int(word) % 2 == 0 for word in r.text.split()] or [0.])
        for r in responses], np.float32)
    ended = np.array([r.finished for r in responses], np.float32)
    return rewards_lib.Scores(
        even - np.float32(.1) * (1 - ended),
        {'accuracy': even, 'format': ended}, {'errors': 1})


def prompt_set(count=16) -> batches.PromptSet:
  lengths = np.arange(count) % 5 + 1
  prompts = tiny.prompts(lengths, pad=tiny.EOS)
  records = tuple(
      {'prompt': f'prompt {i}', 'answer': str(i), 'task': f'task {i % 2}',
       'verifier': 'exact'} for i in range(count))
  return batches.PromptSet(
      prompts.tokens, prompts.length, records, records[:2])


def draw(number, count=PROMPTS):
  return batches.prompt_batch(prompt_set(), number, count, seed=0)


class Run:
  """A learner on a mesh and the state that it begins with."""

  def __init__(self, sizes=None, objective=OBJECTIVE, settings=SETTINGS,
               scorer=Scorer(), lora=None, critic=None, models=(), draw=draw,
               process=None, epochs=1, ref_every_steps=0, sampling_rounds=0,
               kl_target=None, mask_truncated=False, partial=None,
               in_pieces=False, **switches):
    self.placed = tiny.setup(sizes, lora, **switches)
    self._switches, self._objective = switches, objective
    self.critic = critic and self._make_critic(critic, sizes)
    self.abstract = rl.abstract_state(
        self.placed, OPTIMIZER, objective, self.critic,
        adaptive=kl_target is not None)
    self.sampler = rollouts.Sampler(self.placed, settings, in_pieces)
    self.partial = partial and partial_lib.Sampler(
        self.placed, settings, partial, draw, 0)
    if partial:
      self.abstract = self.abstract._replace(in_flight=self.partial.abstract)
    self.scorer = scoring.RolloutScorer(
        Vocab(), scorer, models, process)
    self.learner = rl.Learner(
        self.placed, OPTIMIZER, self.abstract, objective, rl.Settings(
            epochs, ref_every_steps, sampling_rounds,
            mask_truncated=mask_truncated, kl_target=kl_target,
            parts=settings.cpu_threads),
        self.sampler, self.scorer, draw, self.critic, self.partial)

  def _make_critic(self, fields, sizes) -> ppo.PlacedCritic:
    """A critic of random weights; `fields` are those of ppo.Critic."""
    placed = tiny.setup(sizes, scalar=True)
    abstract = train_state.abstract_state(placed, OPTIMIZER, ref=False)
    return ppo.PlacedCritic(
        ppo.Critic(placed.model, **fields), OPTIMIZER, abstract,
        lambda: train_state.state_from_params(
            placed, OPTIMIZER, abstract, tiny.placed(placed, scalar=True)))

  def init(self):
    return rl.state_from_params(
        self.placed, OPTIMIZER, self.abstract,
        tiny.placed(self.placed, **self._switches), self._objective,
        self.critic)._replace(in_flight=self.partial and self.partial.init())

  def stage(self, steps, on_step=lambda index: None) -> loop.Stage:
    def step(state, index):
      on_step(index)
      return self.learner(state, index)
    return loop.Stage(steps, self.init, self.abstract, step)


def steps(run, count):
  """The state after `count` steps of a `Run`, and the metrics of each."""
  state, _, history = logged(run, count)
  return state, history


def logged(run, count=3):
  """The state after some steps, and the rows and metrics of each."""
  state, rows, history = run.init(), [], []
  for step in range(count):
    state, metrics, new = run.learner(state, step)
    rows.append(new)
    history.append(jax.device_get(metrics))
  return jax.device_get(state), rows, history


def experience(model, objective, ref, rollout, reward, critic=None, beta=None,
               steps=None, policy=None, estimate=grpo.group_relative,
               values=None):
  """`grpo.measure` and `grpo.estimate_advantages`, as a step has them."""
  measured = grpo.measure(
      model, objective, ref, rollout, critic, policy, values)
  return grpo.estimate_advantages(
      objective, rollout, reward, measured, beta, steps, estimate=estimate)
