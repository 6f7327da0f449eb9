"""The figures of R1's recipe: what its stages have left, as numbers.

All policies answer the same prompts (measure.py), one response each: what two
of them differ by is measured prompt by prompt, with its 95 % interval. The
intervals are over prompts. What another seed of training changes is not in
them; for that, run the pipeline with other seeds.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import contextlib
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import filters
from r1jax.rewards import workers
from r1jax.stages import evaluation
from r1jax.training import files


class Figure(NamedTuple):
  """A measured value with its 95 % interval."""
  value: float
  low: float
  high: float


class Kind(NamedTuple):
  """What a figure is of: a value of every response to the prompts of a test."""
  test: str  # '': of all of them
  value: Callable[[Mapping[str, Any]], float]
  share: bool = True


KINDS = {
    name: Kind(name, lambda row: row['accuracy'])
    for name in ('reasoning', 'general', 'writing', 'requests')
} | {
    name: Kind('reasoning', lambda row, name=name: row[name])
    for name in ('format', 'mixed', 'language')
} | {
    'tokens': Kind('reasoning', lambda row: row['tokens'], share=False),
    'reflections': Kind('reasoning', lambda row: filters.reflections(
        row['response']), share=False),
    'variety': Kind('writing', lambda row: row['variety']),
    'unfinished': Kind('', lambda row: not row['finished'])}

Rows = list[dict[str, Any]]
_RULE_SECONDS = 5.  # for one answer
_SEQUENCE = 4  # words


def rows(folder: pathlib.Path) -> dict[str, Rows]:
  """The responses of every test in the workdir of a stage of measure.py.

  Those of 'writing' get their 'variety'.
  """
  tests = {path.name.removesuffix('_0.jsonl'): files.read_rows(path)
           for path in folder.glob('*_0.jsonl')}
  written = tests.get('writing', [])
  for row, value in zip(written, variety([r['response'] for r in written])):
    row['variety'] = value
  return tests


def variety(texts: Sequence[str]) -> list[float]:
  """Of each text, the share of its four-word sequences that no other has."""
  found = []
  for text in texts:
    said = text.split()
    found.append({tuple(said[n:n + _SEQUENCE]) for n in range(
        max(len(said) - _SEQUENCE, 0) + 1)})
  count = collections.Counter(itertools.chain(*found))
  return [float(np.mean([count[part] == 1 for part in own])) for own in found]


def values(tests: Mapping[str, Rows], key: str) -> np.ndarray:
  """What a policy has of KINDS[key], one value a prompt.

  Accuracy of 'reasoning', 'general' and 'requests' is whether it is right, of
  'writing' how good the reader says it is; 'language' is the share of the
  words that are in the prompt's.
  """
  kind = KINDS[key]
  chosen = [tests[kind.test]] if kind.test else tests.values()
  return np.array(
      [kind.value(row) for row in itertools.chain(*chosen)], float)


def wins(before: Rows, after: Rows) -> np.ndarray:
  """1 for every prompt that is answered better than before, .5 as well."""
  lead = np.sign([new['accuracy'] - old['accuracy']
                  for old, new in zip(before, after, strict=True)])
  return (lead + 1) / 2


def table(policies: Mapping[str, Mapping[str, Rows]]
         ) -> dict[str, dict[str, Figure]]:
  """The figures of policies by name; 'wins' over the writings of 'sft'."""
  found = {}
  for name, tests in policies.items():
    found[name] = {
        key: (share if kind.share else mean)(values(tests, key))
        for key, kind in KINDS.items()}
    if name != 'sft' and 'sft' in policies:
      found[name]['wins'] = share(
          wins(policies['sft']['writing'], tests['writing']))
  return found


def share(sample: Sequence[float]) -> Figure:
  """Of values from 0 to 1; Wilson's interval, never too narrow for grades."""
  value = float(np.mean(sample))
  return Figure(value, *evaluation.wilson(value, len(sample)))


def mean(sample: Sequence[float]) -> Figure:
  """Of numbers, with the interval of the normal distribution."""
  return _figure(float(np.mean(sample)), _variance(sample))


def change(before: np.ndarray, after: np.ndarray, paired: bool = True
          ) -> Figure:
  """after - before: of the same prompts, or of two unlike samples."""
  if paired:
    if len(before) != len(after):
      raise ValueError(f'expected answers to the same prompts, received '
                       f'{len(before)} and {len(after)} of them')
    return mean(after - before)
  return _figure(float(np.mean(after) - np.mean(before)),
                 _variance(before) + _variance(after))


def _variance(sample: Sequence[float]) -> float:
  """Of the sample's mean."""
  size = len(sample)
  return float(np.var(sample, ddof=1)) / size if size > 1 else 0.


def _figure(value: float, variance: float) -> Figure:
  half = 1.96 * variance**.5
  return Figure(value, value - half, value + half)


def early_and_late(folder: pathlib.Path, steps: int = 5
                  ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """'tokens' and 'reflections' in a run's first and last steps, by prompt.

  A group's responses are no independent ones: its mean is one value.
  """
  sampled = files.read_rows(folder / 'rollouts.jsonl')
  last = max(row['step'] for row in sampled)
  parts = ([row for row in sampled if row['step'] < steps],
           [row for row in sampled if row['step'] > last - steps])
  place = lambda row: (row['step'], row['id'])
  groups = [[list(group) for _, group in itertools.groupby(
      sorted(part, key=place), key=place)] for part in parts]
  return {key: tuple(np.array([
      np.mean([KINDS[key].value(row) for row in group]) for group in part])
                     for part in groups)
          for key in ('tokens', 'reflections')}


def passes(folder: pathlib.Path) -> float:
  """Millions of tokens a run has put through its model, one pass each.

  A backward pass counts as two. Fine-tuning passes three times over its tokens;
  GRPO five times over its responses: sampling, the reference, the update.
  """
  kind = files.read_json(folder / 'config.json')['stage']
  tokens = sum(row['perf/tokens']
               for row in files.read_rows(folder / 'metrics.jsonl'))
  return {'lm': 3, 'rl': 5}[kind] * tokens / 1e6


def judge(folder: pathlib.Path) -> dict[str, Figure]:
  """What the word of a judge of mathematics is worth, by the rule.

  'agrees': how many of its verdicts on the summaries of `folder`, the workdir
  of a stage of sample.py, are the rule's; 'kept_right': how many of the
  responses that were kept are right by the rule.
  """
  told = [row for row in files.read_rows(folder / 'rollouts.jsonl')
          if not row['no_verdict']]
  with contextlib.closing(workers.Pool(1, _RULE_SECONDS)) as pool:
    right = accuracy.check_answers(
        [row | dict(verifier='math') for row in told],
        [answers.extract_answer(row['response'], 'summary', row['finished'])
         for row in told],
        pool).right
  return {'agrees': share([float(ok == row['accuracy'])
                           for ok, row in zip(right, told)]),
          'kept_right': share([
              ok for ok, row in zip(right, told) if not row['dropped']])}
