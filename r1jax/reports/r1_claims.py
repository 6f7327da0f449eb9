"""Results of the policies of R1's recipe, and the paper's claims tested.

All policies answer the same prompts (stages/evaluate.py), one response each:
two of them are compared prompt by prompt (intervals.py).

The claims are the paper's (DeepSeek-R1, arXiv 2501.12948v2, 2 to 4 and its
limitations). A claim that a result rises or falls holds where the 95 % interval
of its change excludes 0, and is not significant where only the mean points that
way. A claim that a result is kept is a test of non-inferiority with a margin of
five points: it holds where the interval excludes a greater loss, does not where
all of the interval is below 0, and is inconclusive in between.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax.reports import intervals
from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import filters
from r1jax.rewards import workers
from r1jax.training import files

HOLDS, NOT_SIGNIFICANT, FAILS, INCONCLUSIVE = (
    'holds', 'not significant', 'does not hold', 'inconclusive')
MARGIN = .05  # of non-inferiority
_EVEN = intervals.Figure(.5, .5, .5)

Rows = list[dict[str, Any]]
_RULE_SECONDS = 5.  # for one answer
_SEQUENCE = 4  # words


class Kind(NamedTuple):
  """A result: the mean of a value of the responses to a test's prompts."""
  test: str  # '': all of them
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


def responses(folder: pathlib.Path) -> dict[str, Rows]:
  """The responses of every test in the workdir of a stage that evaluates.

  Those of 'writing' get their 'variety'. Earlier versions wrote a file a test.
  """
  tests = {}
  for row in files.read_rows(folder / 'rollouts.jsonl'):
    tests.setdefault(row['test'], []).append(row)
  tests = tests or {path.name.removesuffix('_0.jsonl'): files.read_rows(path)
                    for path in folder.glob('*_0.jsonl')}
  written = tests.get('writing', [])
  for row, value in zip(written, variety([r['response'] for r in written])):
    row['variety'] = value
  return tests


def variety(texts: Sequence[str]) -> list[float]:
  """For each text, the share of its four-word sequences that no other has."""
  found = []
  for text in texts:
    said = text.split()
    found.append({tuple(said[n:n + _SEQUENCE]) for n in range(
        max(len(said) - _SEQUENCE, 0) + 1)})
  count = collections.Counter(itertools.chain(*found))
  return [float(np.mean([count[part] == 1 for part in own])) for own in found]


def values(tests: Mapping[str, Rows], key: str) -> np.ndarray:
  """The values of KINDS[key] of a policy, one per prompt.

  'reasoning', 'general' and 'requests' are 1 for a right response, else 0;
  'writing' is the reader's score; 'language' is the share of words in the
  prompt's language.
  """
  kind = KINDS[key]
  chosen = [tests[kind.test]] if kind.test else tests.values()
  return np.array(
      [kind.value(row) for row in itertools.chain(*chosen)], float)


def wins(before: Rows, after: Rows) -> np.ndarray:
  """1 for each prompt that is answered better than before, .5 for a tie."""
  lead = np.sign([new['accuracy'] - old['accuracy']
                  for old, new in zip(before, after, strict=True)])
  return (lead + 1) / 2


def results(policies: Mapping[str, Mapping[str, Rows]]
            ) -> dict[str, dict[str, intervals.Figure]]:
  """The results of policies by name; 'wins' are over the writings of 'sft'."""
  found = {}
  for name, tests in policies.items():
    found[name] = {
        key: (intervals.share if kind.share else intervals.mean)(
            values(tests, key))
        for key, kind in KINDS.items()}
    if name != 'sft' and 'sft' in policies:
      found[name]['wins'] = intervals.share(
          wins(policies['sft']['writing'], tests['writing']))
  return found


def early_and_late(folder: pathlib.Path, steps: int = 5
                   ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """'tokens' and 'reflections' in a run's first and last steps, by prompt.

  A group's responses are not independent: its mean is one value.
  """
  path = folder / 'rollouts.jsonl'
  last = next(files.stream_backwards(path), None) or files.need_rows(path)[-1]
  last = last['step']
  early = itertools.takewhile(
      lambda row: row['step'] < steps, files.stream_rows(path))
  late = itertools.takewhile(
      lambda row: row['step'] > last - steps, files.stream_backwards(path))
  parts = list(early), list(late)[::-1]
  place = lambda row: (row['step'], row['id'])
  groups = [[list(group) for _, group in itertools.groupby(
      sorted(part, key=place), key=place)] for part in parts]
  return {key: tuple(np.array([
      np.mean([KINDS[key].value(row) for row in group]) for group in part])
                     for part in groups)
          for key in ('tokens', 'reflections')}


def tokens_passed(folder: pathlib.Path) -> float:
  """Millions of token passes through a run's model.

  A backward pass counts as two. Fine-tuning makes three passes over its tokens,
  GRPO five over its responses: sampling, the reference, three of the update.
  """
  kind = files.need_json(folder / 'config.json', ['stage'])['stage']
  tokens = sum(row['perf/tokens']
               for row in files.need_rows(folder / 'metrics.jsonl'))
  return {'lm': 3, 'rl': 5}[kind] * tokens / 1e6


def judge_agreement(folder: pathlib.Path) -> dict[str, intervals.Figure]:
  """How far the verdicts of a judge of mathematics agree with the rule's.

  'agrees': the share of its verdicts on the summaries in `folder`, the workdir
  of a `sample` stage, that are the rule's; 'kept_right': the share of the
  responses kept that are right by the rule.
  """
  judged = [row for row in files.need_rows(folder / 'rollouts.jsonl')
            if not row['no_verdict']]
  with contextlib.closing(workers.Pool(1, _RULE_SECONDS)) as pool:
    right = accuracy.check_answers(
        [row | dict(verifier='math') for row in judged],
        [answers.extract_answer(row['response'], 'summary', row['finished'])
         for row in judged],
        pool).right
  return {'agrees': intervals.share([
      float(ok == row['accuracy']) for ok, row in zip(right, judged)]),
          'kept_right': intervals.share([
              ok for ok, row in zip(right, judged) if not row['dropped']])}


class Claim(NamedTuple):
  """A claim, the results that decide it, and its verdict."""
  said: str
  measured: str  # by what, of which policies
  before: intervals.Figure
  after: intervals.Figure
  change: intervals.Figure
  verdict: str
  percent: bool = True


def compared(said: str, measured: str, before: np.ndarray, after: np.ndarray,
             *, rises: bool = True, percent: bool = True, paired: bool = True
             ) -> Claim:
  """A claim that a result rises, or falls, from one policy to another."""
  change = intervals.change(before, after, paired)
  return _claim(said, measured, before, after, change, verdict(change, rises),
                percent)


def verdict(change: intervals.Figure, rises: bool) -> str:
  """Of a claim that a result rises, or falls, by its change."""
  low, value = (change.low, change.value) if rises else (
      -change.high, -change.value)
  return HOLDS if low > 0 else NOT_SIGNIFICANT if value > 0 else FAILS


def kept(said: str, measured: str, before: np.ndarray, after: np.ndarray
         ) -> Claim:
  """A claim that a share does not fall by more than MARGIN."""
  change = intervals.change(before, after)
  verdict = HOLDS if change.low > -MARGIN else FAILS if change.high < 0 else (
      INCONCLUSIVE)
  measured += f', non-inferiority margin of {100 * MARGIN:.0f} points'
  return _claim(said, measured, before, after, change, verdict, True)


def _claim(said, measured, before, after, change, verdict, percent) -> Claim:
  figure = intervals.share if percent else intervals.mean
  return Claim(
      said, measured, figure(before), figure(after), change, verdict, percent)


Policies = Mapping[str, Mapping[str, Rows]]
_Pair = tuple[np.ndarray, np.ndarray]


def claims(policies: Policies, zero: Mapping[str, _Pair],
           shots: Mapping[str, np.ndarray], base_shots: Mapping[str, np.ndarray]
           ) -> list[Claim]:
  """All claims, in the order of the recipe.

  Args:
    policies: the responses of each to every test.
    zero: what `early_and_late` returns for R1-Zero's run.
    shots: R1's accuracy in reasoning, by the number of examples in the prompt.
    base_shots: the base's.
  """
  return [
      *_of_zero(policies, zero), *_of_r1(policies),
      compared('Distillation beats RL on the small model', 'reasoning, student '
               'by RL → by the teacher’s samples',
               *_pair(policies, 'reasoning', 'student_rl', 'student_sft')),
      compared('Less is more', 'reasoning, all examples → few chosen ones, the '
               'same steps', *_pair(policies, 'reasoning', 'all', 'less')),
      compared('Examples in the prompt hurt', 'reasoning of R1, none → one',
               shots['0'], shots['1'], rises=False),
      compared('… more of them more', 'reasoning of R1, one → four',
               shots['1'], shots['4'], rises=False),
      compared('… and the base, too', 'reasoning of the base, none → one',
               base_shots['0'], base_shots['1'], rises=False),
  ]


def _pair(policies: Policies, key: str, before: str, after: str) -> _Pair:
  return values(policies[before], key), values(policies[after], key)


def _of_zero(policies: Policies, zero: Mapping[str, _Pair]) -> list[Claim]:
  """The claims on RL on the base, without and with the language reward."""
  pair = functools.partial(_pair, policies)
  return [
      compared('RL on a base, without SFT, learns to reason',
               'reasoning, base → Zero', *pair('reasoning', 'base', 'zero')),
      compared('Responses grow on their own', 'tokens per response, first and '
               'last five steps of Zero', *zero['tokens'],
               percent=False, paired=False),
      compared('Reflection emerges', 'reflections per response, first and last '
               'five steps of Zero', *zero['reflections'],
               percent=False, paired=False),
      compared('RL alone drifts from the language of the prompt',
               'words in it, base → Zero', *pair('language', 'base', 'zero'),
               rises=False),
      compared('… and mixes languages', 'mixed responses, base → Zero',
               *pair('mixed', 'base', 'zero')),
      compared('The language reward prevents that', 'words in the prompt’s '
               'language, Zero without → with',
               *pair('language', 'zero', 'zero_language')),
      kept('… at a small cost in accuracy', 'reasoning, Zero without → with',
           *pair('reasoning', 'zero', 'zero_language')),
      compared('RL on reasoning alone causes forgetting',
               'general tasks, base → Zero',
               *pair('general', 'base', 'zero'), rises=False),
  ]


def _of_r1(policies: Policies) -> list[Claim]:
  """The claims on the stages from the cold start to R1."""
  pair = functools.partial(_pair, policies)
  won = wins(policies['sft']['writing'], policies['r1']['writing'])
  return [
      compared('The language reward is needed after the cold start, too',
               'words in the prompt’s language, reasoning RL without → with',
               *pair('language', 'no_language', 'reasoning')),
      compared('Reasoning RL improves on the cold start',
               'reasoning, cold start → reasoning RL',
               *pair('reasoning', 'cold_start', 'reasoning')),
      compared('Rejection sampling and SFT bring general skill back',
               'general tasks, reasoning RL → SFT of the base',
               *pair('general', 'reasoning', 'sft')),
      kept('… all of the base’s', 'general tasks, base → SFT of it',
           *pair('general', 'base', 'sft')),
      compared('Secondary RL helps helpfulness', 'texts that win over SFT’s, '
               'its own → R1’s', np.full_like(won, .5), won)._replace(
                   before=_EVEN),
      compared('… and harmlessness', 'requests refused and helped rightly, SFT '
               '→ R1', *pair('requests', 'sft', 'r1')),
      kept('… and keeps reasoning', 'reasoning, SFT → R1',
           *pair('reasoning', 'sft', 'r1')),
      kept('… and general skill', 'general tasks, SFT → R1',
           *pair('general', 'sft', 'r1')),
      kept('R1 reasons as well as Zero', 'reasoning, Zero → R1',
           *pair('reasoning', 'zero', 'r1')),
      compared('… in the language of the prompt', 'words in it, Zero → R1',
               *pair('language', 'zero', 'r1')),
  ]


def row_of(claim: Claim) -> list[Any]:
  """A claim for a table, with the columns verdict, before, after, change."""
  text = lambda figure, **form: intervals.text(figure, claim.percent, **form)
  return [(claim.said, claim.measured), claim.verdict, text(claim.before),
          text(claim.after), text(claim.change, interval=True, signed=True)]


def one_line(claim: Claim) -> str:
  """A claim for the terminal."""
  before, after = (intervals.percent(figure.value) if claim.percent
                   else f'{figure.value:.2f}'
                   for figure in (claim.before, claim.after))
  return (f'{claim.said}: {claim.measured}: {before} → {after}: '
          f'{claim.verdict}')
