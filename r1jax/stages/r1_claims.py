"""What is claimed of R1's recipe, each claim with the figures that decide it.

The claims are the paper's (DeepSeek-R1, arXiv 2501.12948v2, 2 to 4 and its
limitations); the figures are those of policies that took the same tests
(measure.py). A claim holds where the figures' 95 % intervals lie apart in its
direction, and points that way where only the means do.
"""

from collections.abc import Mapping, Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax.rewards import accuracy
from r1jax.rewards import filters
from r1jax.rewards import workers
from r1jax.stages import evaluate
from r1jax.training import jsonl
from r1jax.training import summary as summary_lib

HOLDS, POINTS, FAILS = 'holds', 'points that way', 'does not hold'


class Figure(NamedTuple):
  """A measured value with its 95 % interval."""
  value: float
  low: float
  high: float


class Claim(NamedTuple):
  """What is said, what it is measured by, and what came of it."""
  said: str
  measured: str
  before: Figure
  after: Figure
  verdict: str
  percent: bool = True


Policy = Mapping[str, Figure]

_RULE_SECONDS = 5.  # for one answer
_EVEN = Figure(.5, .5, .5)


def policies(folder: pathlib.Path, names: Sequence[str]) -> dict[str, Policy]:
  """The figures of the policies that took the tests, by their names.

  Shares of responses: 'reasoning', 'general', 'writing', 'requests' are right
  (of writing, as good as the reader says), 'format' and 'mixed' those of the
  reasoning; 'language' is the share of its words that are in the prompt's.
  'tokens' and 'reflections' are means of a reasoning response, 'wins' how often
  a writing is better than one of the fine-tuned model.
  """
  rows = {name: {path.name.removesuffix('_0.jsonl'): jsonl.read(path)
                 for path in (folder / f'measured_{name}').glob('*_0.jsonl')}
          for name in names}
  found = {}
  for name, tests in rows.items():
    reasoning = tests['reasoning']
    found[name] = {test: share([row['accuracy'] for row in part])
                   for test, part in tests.items()}
    found[name] |= {key: share([row[key] for row in reasoning])
                    for key in ('format', 'mixed', 'language')}
    found[name] |= {
        'tokens': mean([row['tokens'] for row in reasoning]),
        'reflections': mean([
            filters.reflections(row['response']) for row in reasoning])}
    if 'sft' in rows and name != 'sft':
      wins = evaluate.win_rate(rows['sft']['writing'], tests['writing'])
      found[name]['wins'] = Figure(
          wins, *evaluate.wilson(wins, len(tests['writing'])))
  return found


def share(values: Sequence[float]) -> Figure:
  """Of values from 0 to 1; Wilson's interval, never too narrow for grades."""
  value = float(np.mean(values))
  return Figure(value, *evaluate.wilson(value, len(values)))


def mean(values: Sequence[float]) -> Figure:
  """Of numbers, with the interval of the normal distribution."""
  value = float(np.mean(values))
  half = 1.96 * float(np.std(values, ddof=1)) / len(values)**.5 if (
      len(values) > 1) else 0.
  return Figure(value, value - half, value + half)


def early_and_late(folder: pathlib.Path, steps: int = 5
                  ) -> dict[str, tuple[Figure, Figure]]:
  """Tokens and reflections of a run's responses, its first and last steps'."""
  rows = jsonl.read(folder / 'rollouts.jsonl')
  last = max(row['step'] for row in rows)
  parts = ([row for row in rows if row['step'] < steps],
           [row for row in rows if row['step'] > last - steps])
  return {
      'tokens': tuple(mean([r['tokens'] for r in part]) for part in parts),
      'reflections': tuple(mean([
          filters.reflections(r['response']) for r in part]) for part in parts)}


def passes(folder: pathlib.Path) -> float:
  """Millions of tokens a run has put through its model, one pass each.

  A backward pass counts as two. Fine-tuning passes three times over its tokens;
  GRPO five times over its responses: sampling, the reference, the update.
  """
  kind = summary_lib.read_json(folder / 'config.json')['stage']
  tokens = sum(row['perf/tokens']
               for row in jsonl.read(folder / 'metrics.jsonl'))
  return {'lm': 3, 'rl': 5}[kind] * tokens / 1e6


def judge(folder: pathlib.Path) -> dict[str, Figure]:
  """What the word of a judge of mathematics is worth, by the rule.

  'agrees': how many of its verdicts on the summaries of `folder`, the workdir
  of a stage of sample.py, are the rule's; 'kept_right': how many of the
  responses that were kept are right by the rule.
  """
  rows = [row for row in jsonl.read(folder / 'rollouts.jsonl')
          if not row['no_verdict']]
  with contextlib.closing(workers.Pool(1, _RULE_SECONDS)) as pool:
    right = accuracy.judge(
        [row | dict(verifier='math') for row in rows],
        [accuracy.extract(row['response'], 'summary') for row in rows],
        pool).right
  kept_right = [ok for ok, row in zip(right, rows) if not row['dropped']]
  return {'agrees': share([float(ok == row['accuracy'])
                           for ok, row in zip(right, rows)]),
          'kept_right': share(kept_right)}


def compared(said: str, measured: str, before: Figure, after: Figure, *,
             rises: bool = True, percent: bool = True) -> Claim:
  """A claim that a figure rises, or falls, from one policy to another."""
  first, second = (before, after) if rises else (after, before)
  verdict = FAILS
  if second.value > first.value:
    verdict = HOLDS if second.low > first.high else POINTS
  return Claim(said, measured, before, after, verdict, percent)


def kept(said: str, measured: str, before: Figure, after: Figure) -> Claim:
  """A claim that a figure does not fall: the intervals meet, or it rises."""
  return Claim(said, measured, before, after,
               HOLDS if after.high >= before.low else FAILS)


def claims(table: Mapping[str, Policy], zero: Mapping[str, tuple],
           shots: Mapping[str, Figure]) -> list[Claim]:
  """All of them, in the order of the recipe.

  Args:
    table: of `policies`.
    zero: of `early_and_late`, R1-Zero's run.
    shots: R1's reasoning with so many examples before the problem.
  """
  of = lambda name, key: table[name][key]
  pair = lambda key, before, after: (of(before, key), of(after, key))
  return [
      compared('RL on a base, without SFT, learns to reason',
               'reasoning, base → Zero', *pair('reasoning', 'base', 'zero')),
      compared('Thinking grows on its own', 'tokens a response, first and last '
               'steps of Zero', *zero['tokens'], percent=False),
      compared('Reflection comes by itself', 'reflections a response, first '
               'and last steps of Zero', *zero['reflections'],
               percent=False),
      compared('Zero mixes languages; R1 does not',
               'mixed responses, Zero → R1', *pair('mixed', 'zero', 'r1'),
               rises=False),
      compared('… and thinks in the language of the prompt',
               'words in it, Zero → R1', *pair('language', 'zero', 'r1')),
      compared('The language reward keeps to one language', 'words in the '
               'prompt’s, reasoning RL from the cold start, without → with',
               *pair('language', 'no_language', 'reasoning')),
      kept('… at a small cost in accuracy', 'reasoning, without → with',
           *pair('reasoning', 'no_language', 'reasoning')),
      compared('… from the base, too', 'words in the prompt’s, Zero without → '
               'with', *pair('language', 'zero', 'zero_language')),
      compared('RL on reasoning alone forgets the rest',
               'general tasks, base → Zero',
               *pair('general', 'base', 'zero'), rises=False),
      compared('Rejection sampling and SFT bring general skill back',
               'general tasks, reasoning RL → SFT',
               *pair('general', 'reasoning', 'sft')),
      compared('Secondary RL helps helpfulness', 'writings that win, SFT over '
               'itself → R1 over SFT', _EVEN, of('r1', 'wins')),
      compared('… and harmlessness', 'requests refused and helped rightly, SFT '
               '→ R1', *pair('requests', 'sft', 'r1')),
      kept('… and reasoning is kept', 'reasoning, SFT → R1',
           *pair('reasoning', 'sft', 'r1')),
      compared('Distillation beats RL on the small model', 'reasoning, student '
               'by RL → by the teacher’s samples',
               *pair('reasoning', 'student_rl', 'student_sft')),
      compared('Less is more', 'reasoning, all examples → few chosen ones, the '
               'same steps', *pair('reasoning', 'all', 'less')),
      compared('Examples in the prompt hurt', 'reasoning of R1, none → one',
               shots['0'], shots['1'], rises=False),
      compared('… more of them more', 'reasoning of R1, none → four',
               shots['0'], shots['4'], rises=False),
  ]


def shots(folder: pathlib.Path) -> dict[str, Figure]:
  """Reasoning by the number of examples, from a stage of measure.py."""
  after = summary_lib.read_json(folder / 'summary.json')['after']
  return {name.removeprefix('shots_'): Figure(
      figures['pass@1'], *figures['ci95']) for name, figures in after.items()}


def words(claim: Claim) -> str:
  """A claim on one line."""
  return (f'{claim.said}: {claim.measured}: {_said(claim, claim.before)} → '
          f'{_said(claim, claim.after)}: {claim.verdict}')


def _said(claim: Claim, figure: Figure) -> str:
  if claim.percent:
    return f'{100 * figure.value:.1f} %'
  return f'{figure.value:.2f}'
