"""Samples responses to prompts and scores them: records, no training.

A step takes the next prompts in their order; what it leaves in rollouts.jsonl
is a row a response. At the end, the responses to each prompt with their
rewards as grades stand in preferences.jsonl: pairs made by sampling from a
model and ranking by a rule, which a reward model learns from.
"""

from collections.abc import Mapping
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import config as config_lib
from r1jax.data import batches
from r1jax.stages import origin
from r1jax.stages import prompts as prompts_lib
from r1jax.stages import reward_models
from r1jax.stages import rl
from r1jax.stages import rollouts
from r1jax.stages import setup as setup_lib
from r1jax.training import jsonl
from r1jax.training import loop
from r1jax.types import TrainState

NAME = 'preferences.jsonl'


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  if config.init_from is None:
    raise config_lib.error('init_from', 'a model to sample from', None)
  if config.log.rollouts_every_steps != 1:
    raise config_lib.error('log.rollouts_every_steps', '1: what is sampled is '
                           'what this stage is for',
                           config.log.rollouts_every_steps)
  setup = setup_lib.make(config, mesh)
  vocab = origin.vocabulary(config, setup.model.config)
  sampler = rollouts.Sampler(
      setup, rollouts.Settings(
          group=config.rl.group, response_tokens=config.rl.response_tokens,
          eos_ids=vocab.eos_ids, temperature=config.rl.temperature,
          chunk=config.rl.sample_chunk, top_k=config.rl.top_k,
          top_p=config.rl.top_p),
      vocab, rl.make_scorer(config), reward_models.load(config, mesh))
  prompts = prompts_lib.read(config, vocab, config.data.split,
                             config.data.num_prompts)
  count, size = len(prompts.records), config.rl.prompts
  scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=setup.replicated)
  # The model is no part of the state: it does not change.
  params = functools.cache(lambda: setup_lib.init_params(
      setup, config.init_from, config.seed))

  def init():
    zero = jax.device_put(np.int32(0), setup.replicated)
    return TrainState(zero, {}, {}, None, zero)

  def step(state, index):
    taken = np.arange(index * size, (index + 1) * size)
    scored = sampler(
        params(), batches.take(prompts, taken % count), config.seed, index)
    rows = scored.rows[:int((taken < count).sum()) * config.rl.group]
    mean = lambda name: float(np.mean([row[name] for row in rows]))
    return state._replace(step=state.step + 1), {
        'reward/mean': mean('reward'), 'response_length/mean': mean('tokens'),
        'perf/tokens': sum(row['tokens'] for row in rows)}, rows

  return loop.Stage(
      -(-count // size), init, TrainState(scalar, {}, {}, None, scalar), step,
      finish=functools.partial(write, workdir),
      shown={'reward/mean': 'reward', 'response_length/mean': 'length',
             'perf/tokens_per_second': 'tok/s'})


def write(workdir: str, summary: Mapping[str, Any]) -> str:
  """Writes the preferences, whole or not at all; returns the closing words.

  A response that says the same as another to its prompt is left out, and so
  is a prompt all of whose responses are as good.
  """
  del summary
  folder = pathlib.Path(workdir)
  lines, dropped, equal = [], 0, 0
  rows = jsonl.read(folder / 'rollouts.jsonl')
  for _, group in itertools.groupby(rows, key=lambda row: row['id']):
    group = list(group)
    distinct = {row['response'].strip(): row for row in group}
    dropped += len(group) - len(distinct)
    grades = [row['reward'] for row in distinct.values()]
    if len(set(grades)) < 2:
      equal += 1
      continue
    lines.append(dict(prompt=group[0]['prompt'], responses=list(distinct),
                      grades=grades, task=group[0]['task']))
  path = folder / NAME
  jsonl.write(path, lines)
  responses = sum(len(line['responses']) for line in lines)
  return (
      f'sampled: {len(rows)} responses, kept {responses} to {len(lines)} '
      f'prompts; {dropped} said what another did, {equal} prompts have '
      f'responses that are all as good\npreferences: {path}\n'
      f'next: a reward model, --config.data.task=jsonl:{path}')
