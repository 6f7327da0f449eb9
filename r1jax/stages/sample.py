"""Samples responses to prompts and scores them; nothing is trained.

Each step samples for the next prompts, in order, and appends one row per
response to rollouts.jsonl. At the end the stage writes a data set:

- with a section `keep`, rejection sampling: the correct and readable responses
  (rewards/filters.py), written to kept-*.jsonl by rejection.py;
- otherwise preferences.jsonl: the responses to each prompt, with their rewards
  as grades, to train a reward model on. With `labels` each grade is a label by
  itself (for a point-wise model).
"""

import collections
from collections.abc import Mapping
import functools
import itertools
import pathlib
from typing import Any

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.rewards import filters
from r1jax.stages import rejection
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop

PREFERENCES = 'preferences.jsonl'


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  rl, seed = config.rl, config.seed
  policy = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(rl),
      needs='a model to sample from')
  vocab = policy.vocabulary(config.vocab)
  sampler = rollouts.Sampler(policy.placed, rollouts.policy_settings(
      rl, vocab, top_k=rl.top_k, top_p=rl.top_p), rl.score_while_sampling)
  scorer = scoring.build(config, vocab, mesh)
  prompts = rollouts.read_prompts(
      config.data, vocab, rl.prompt_tokens, split=config.data.split,
      count=config.data.num_prompts)
  scoring.check_records(config.rewards, prompts)
  keep_rules = filter_rules(config)
  # Not part of the state: they do not change.
  params = functools.cache(lambda: train_state.init_params(
      policy.placed, policy.source, seed))

  size = rl.prompts

  def step(state, index):
    batch = batches.slice_of(prompts, index * size, size)
    scored = scorer(sampler(params(), batch, seed, index), batch)
    rows = scored.rows if keep_rules is None else marked(
        keep_rules, scored.rows)
    mean = lambda name: float(np.mean([row[name] for row in rows]))
    return state._replace(step=state.step + 1), {
        'reward/mean': mean('reward'), 'response_length/mean': mean('tokens'),
        'perf/tokens': sum(row['tokens'] for row in rows)
        } | scoring.scorer_metrics(scored), rows

  if keep_rules is None:
    finish = functools.partial(write_preferences, workdir, config.labels)
  else:
    finish = functools.partial(
        finish_rejection, workdir, config.keep.shard_rows,
        config.keep.per_prompt, {
            'stage': config.name, 'init_from': config.init_from, 'seed': seed})
  return loop.Stage(
      -(-len(prompts.records) // size), *train_state.empty_state(mesh),
      step, finish=finish, makes_rollouts=True,
      progress={'reward/mean': 'reward', 'response_length/mean': 'length',
             'perf/tokens_per_second': 'tok/s'})


def filter_rules(config) -> filters.Rules | None:
  """The filters of a section `keep`; None if there is none."""
  if 'keep' not in config:
    return None
  return filters.Rules(languages=config.rewards.languages, **{
      name: config.keep[name] for name in filters.Rules._fields
      if name != 'languages'})


def marked(rules: filters.Rules, rows: list[dict[str, Any]]
          ) -> list[dict[str, Any]]:
  """The rows, each with the reason it is `dropped` for ('' if it is kept)."""
  return [row | {'dropped': filters.drop_reason(rules, row) or ''}
          for row in rows]


def finish_rejection(workdir: str, shard_rows: int, per_prompt: int | None,
               source: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
  """Writes the kept responses; returns the table of why others are dropped."""
  del summary
  folder = sampled(workdir)
  table = rejection.write_kept(folder, shard_rows, source, per_prompt)
  return (f'{rejection.counts_table(table)}\n{counted(folder)}\n'
          f'kept: {folder / rejection.SHARDS}\n'
          f'next: SFT, --config.data.task=jsonl:{folder / rejection.SHARDS}')


def write_preferences(workdir: str, labels: bool,
                      summary: Mapping[str, Any]) -> str:
  """Writes the preferences, whole or not at all; returns the closing words.

  Duplicate responses to a prompt are left out, and so is a prompt whose
  responses all have the same reward, unless grades are `labels`.
  """
  del summary
  folder = sampled(workdir)
  lines, dropped, equal = [], 0, 0
  rows = files.read_rows(folder / 'rollouts.jsonl')
  for _, group in itertools.groupby(rows, key=lambda row: row['id']):
    group = list(group)
    distinct = {row['response'].strip(): row for row in group}
    dropped += len(group) - len(distinct)
    grades = [row['reward'] for row in distinct.values()]
    if len(set(grades)) < 2 and not labels:
      equal += 1
      continue
    lines.append(dict(prompt=group[0]['prompt'], responses=list(distinct),
                      grades=grades, task=group[0]['task']))
  path = folder / PREFERENCES
  files.write_output(path, lines)
  responses = sum(len(line['responses']) for line in lines)
  return (
      f'sampled: {len(rows)} responses; kept {responses} to {len(lines)} '
      f'prompts. Left out: {dropped} duplicate responses, {equal} prompts '
      f'whose responses all have the same reward\n{counted(folder)}\n'
      f'preferences: {path}\n'
      f'next: a reward model, --config.data.task=jsonl:{path}')


def sampled(workdir: str) -> pathlib.Path:
  """The workdir; ConfigError if its rollouts are gone."""
  folder = pathlib.Path(workdir)
  if not (folder / 'rollouts.jsonl').exists():
    raise errors.ConfigError(
        '--workdir', f'{folder} has no rollouts.jsonl, from which this stage '
        'writes its outputs; restore the file, or give another directory')
  return folder


def counted(folder: pathlib.Path) -> str:
  """The counts of verifiers and judges over all steps, in words."""
  total = collections.Counter()
  for row in files.stream_rows(folder / history.METRICS):
    total.update({name.removeprefix('verifier/'): count
                  for name, count in row.items()
                  if name.startswith('verifier/')})
  return scoring.describe_counters(total)
