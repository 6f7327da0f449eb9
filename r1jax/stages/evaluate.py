"""A stage that evaluates a policy on several tests, and trains nothing.

Each test has its own prompts, and possibly its own rewards and sampling. A step
samples one batch of problems of one test, those with short prompts first, and
appends a row for each response to rollouts.jsonl; it has the field `test`. What
a problem is answered depends on (seed, its number, the sample) alone: a run
that was stopped goes on with the next batch and ends with the same rows. The
results are computed from the rows.
"""

from collections.abc import Mapping
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.reports import evaluation as evaluation_report
from r1jax.stages import evaluation
from r1jax.stages import model_rewards
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop


class Part(NamedTuple):
  """What a step does: problems of a test, the first of them number `start`."""
  test: str
  start: int


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  policy = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(config.rl),
      needs='a model to evaluate')
  vocab, seed = policy.vocabulary(config.vocab), config.seed
  tests = evaluation.make_tests(config, policy, vocab, model_rewards.load(
      config.rewards, mesh, config.rules, seed))
  samplers = {name: rollouts.Sampler(
      policy.placed, test.settings, config.rl.score_while_sampling)
              for name, test in tests.items()}
  parts = [Part(name, start) for name, test in tests.items()
           for start in range(0, len(test.prompts.records), test.count)]
  # Not part of the state: they do not change.
  params = functools.cache(lambda: train_state.init_params(
      policy.placed, policy.source, seed))

  def step(state, index):
    name, start = parts[index]
    test = tests[name]
    rows, counters = evaluation.sample_batch(
        samplers[name], test.scorer, params(), test.part(start), seed)
    mean = lambda name: float(np.mean([row[name] for row in rows]))
    return state._replace(step=state.step + 1), {
        'reward/accuracy': mean('accuracy'),
        'response_length/mean': mean('tokens'),
        'perf/tokens': sum(row['tokens'] for row in rows)
        } | {f'verifier/{name}': count for name, count in counters.items()}, [
            {'test': name, **row} for row in rows]

  return loop.Stage(
      len(parts), *train_state.empty_state(mesh), step,
      results=lambda: results(pathlib.Path(workdir), tests, parts),
      finish=functools.partial(
          evaluation_report.write_report, config.to_dict(), workdir,
          config.eval.shown),
      makes_rollouts=True,
      progress={'reward/accuracy': 'accuracy', 'response_length/mean': 'length',
                'perf/tokens_per_second': 'tok/s'})


def results(folder: pathlib.Path, tests: Mapping[str, evaluation.Test],
            parts: list[Part]) -> dict[str, dict[str, Any]]:
  """The results of every test, from the rows and metrics of its steps."""
  found = {}
  metrics = {row['step']: row
             for row in files.stream_rows(folder / history.METRICS)}
  rows = files.stream_rows(folder / history.ROLLOUTS)
  for name, part in itertools.groupby(rows, key=lambda row: row['test']):
    test, part = tests[name], list(part)
    _check_complete(name, test, part)
    steps = [metrics[n] for n, at in enumerate(parts)
             if at.test == name and n in metrics]
    found[name] = evaluation.results(part, None, test.settings.group)
    found[name] |= evaluation.means_of_models(test.scorer, part) | {
        'left_out': test.left_out, 'sampling': sampling(test),
        'figures': rewards_lib.column_means(part),
        'verifier': counters(steps)} | cost(part, steps)
  return found


def _check_complete(name: str, test: evaluation.Test, rows: list[dict]) -> None:
  """Raises RunError unless every problem has its rows: all, and only once."""
  problems, group = len(test.prompts.records), test.settings.group
  numbers = sorted(row['id'] for row in rows)
  if numbers != sorted([*range(problems)] * group):
    raise errors.RunError(
        f'{name}: expected {group} rows of each of {problems} problems in '
        f'rollouts.jsonl, found {len(rows)} rows of {len(set(numbers))}; '
        'evaluate again into a new --workdir')


def sampling(test: evaluation.Test) -> dict[str, float]:
  """How a test was sampled."""
  return {name: getattr(test.settings, name) for name in (
      'temperature', 'top_k', 'top_p', 'response_tokens')}


def counters(steps: list[dict]) -> dict[str, int]:
  """The counts of verifiers and judges over steps."""
  return scoring.sum_counters(
      {name.removeprefix('verifier/'): count for name, count in row.items()
       if name.startswith('verifier/')} for row in steps)


def cost(rows: list[dict], steps: list[dict]) -> dict[str, Any]:
  """Tokens of prompts, each read once, and of responses; seconds, tokens/s.

  Time is that of the steps that metrics.jsonl has, compilation included.
  """
  prompts = {row['id']: row['prompt_tokens'] for row in rows}
  said = sum(row['tokens'] for row in rows)
  seconds = sum(row['time/step_seconds'] for row in steps)
  sampled = sum(row['perf/tokens'] for row in steps)
  return {'tokens': {'prompts': sum(prompts.values()), 'responses': said,
                     'total': sum(prompts.values()) + said},
          'time/seconds': round(seconds, 1),
          'perf/tokens_per_second': sampled / seconds if seconds else None}
