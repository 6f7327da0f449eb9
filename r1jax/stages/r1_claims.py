"""What is claimed of R1's recipe, each claim with the figures that decide it.

The claims are the paper's (DeepSeek-R1, arXiv 2501.12948v2, 2 to 4 and its
limitations). That something rises holds where the 95 % interval of its change
lies above 0, and points that way where only the mean does; for what falls the
same below 0. That something is kept holds where the interval lies above a loss
of five points, does not where it lies below 0, and is not decided in between.
"""

from collections.abc import Mapping
import functools
from typing import NamedTuple

import numpy as np

from r1jax.stages import r1_figures

HOLDS, POINTS, FAILS, OPEN = (
    'holds', 'points that way', 'does not hold', 'not decided')
MARGIN = .05  # what may be lost of something that is kept
_EVEN = r1_figures.Figure(.5, .5, .5)


class Claim(NamedTuple):
  """What is said, what it is measured by, and what came of it."""
  said: str
  measured: str
  before: r1_figures.Figure
  after: r1_figures.Figure
  change: r1_figures.Figure
  verdict: str
  percent: bool = True


def compared(said: str, measured: str, before: np.ndarray, after: np.ndarray,
             *, rises: bool = True, percent: bool = True, paired: bool = True
            ) -> Claim:
  """A claim that a figure rises, or falls, from one policy to another."""
  change = r1_figures.change(before, after, paired)
  low, value = (change.low, change.value) if rises else (
      -change.high, -change.value)
  verdict = HOLDS if low > 0 else POINTS if value > 0 else FAILS
  return _claim(said, measured, before, after, change, verdict, percent)


def kept(said: str, measured: str, before: np.ndarray, after: np.ndarray
        ) -> Claim:
  """A claim that a share does not fall by more than MARGIN."""
  change = r1_figures.change(before, after)
  verdict = HOLDS if change.low > -MARGIN else FAILS if change.high < 0 else (
      OPEN)
  measured += f', {100 * MARGIN:.0f} points less at most'
  return _claim(said, measured, before, after, change, verdict, True)


def _claim(said, measured, before, after, change, verdict, percent) -> Claim:
  figure = r1_figures.share if percent else r1_figures.mean
  return Claim(
      said, measured, figure(before), figure(after), change, verdict, percent)


Policies = Mapping[str, Mapping[str, r1_figures.Rows]]
_Pair = tuple[np.ndarray, np.ndarray]


def claims(policies: Policies, zero: Mapping[str, _Pair],
           shots: Mapping[str, np.ndarray], base_shots: Mapping[str, np.ndarray]
          ) -> list[Claim]:
  """All of them, in the order of the recipe.

  Args:
    policies: the responses of each to every test.
    zero: of `r1_figures.early_and_late`, R1-Zero's run.
    shots: R1's reasoning with so many examples before the problem.
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
  return (r1_figures.values(policies[before], key),
          r1_figures.values(policies[after], key))


def _of_zero(policies: Policies, zero: Mapping[str, _Pair]) -> list[Claim]:
  """Of RL on the base, without and with the language reward."""
  pair = functools.partial(_pair, policies)
  return [
      compared('RL on a base, without SFT, learns to reason',
               'reasoning, base → Zero', *pair('reasoning', 'base', 'zero')),
      compared('Thinking grows on its own', 'tokens a response, first and last '
               'five steps of Zero', *zero['tokens'],
               percent=False, paired=False),
      compared('Reflection comes by itself', 'reflections a response, first '
               'and last five steps of Zero', *zero['reflections'],
               percent=False, paired=False),
      compared('RL alone leaves the language of the prompt',
               'words in it, base → Zero', *pair('language', 'base', 'zero'),
               rises=False),
      compared('… and mixes languages', 'mixed responses, base → Zero',
               *pair('mixed', 'base', 'zero')),
      compared('The language reward mends that', 'words in the prompt’s, Zero '
               'without → with', *pair('language', 'zero', 'zero_language')),
      kept('… at a small cost in accuracy', 'reasoning, Zero without → with',
           *pair('reasoning', 'zero', 'zero_language')),
      compared('RL on reasoning alone forgets the rest',
               'general tasks, base → Zero',
               *pair('general', 'base', 'zero'), rises=False),
  ]


def _of_r1(policies: Policies) -> list[Claim]:
  """Of the stages from the cold start to R1."""
  pair = functools.partial(_pair, policies)
  wins = r1_figures.wins(policies['sft']['writing'], policies['r1']['writing'])
  return [
      compared('From the cold start the language reward is needed, too',
               'words in the prompt’s, reasoning RL without → with',
               *pair('language', 'no_language', 'reasoning')),
      compared('Reasoning RL takes the cold start further',
               'reasoning, cold start → reasoning RL',
               *pair('reasoning', 'cold_start', 'reasoning')),
      compared('Rejection sampling and SFT bring general skill back',
               'general tasks, reasoning RL → SFT of the base',
               *pair('general', 'reasoning', 'sft')),
      kept('… all that the base had', 'general tasks, base → SFT of it',
           *pair('general', 'base', 'sft')),
      compared('Secondary RL helps helpfulness', 'writings that win over SFT’s,'
               ' its own → R1’s', np.full_like(wins, .5), wins)._replace(
                   before=_EVEN),
      compared('… and harmlessness', 'requests refused and helped rightly, SFT '
               '→ R1', *pair('requests', 'sft', 'r1')),
      kept('… and reasoning is kept', 'reasoning, SFT → R1',
           *pair('reasoning', 'sft', 'r1')),
      kept('… and general skill', 'general tasks, SFT → R1',
           *pair('general', 'sft', 'r1')),
      kept('R1 reasons as well as Zero', 'reasoning, Zero → R1',
           *pair('reasoning', 'zero', 'r1')),
      compared('… in the language of the prompt', 'words in it, Zero → R1',
               *pair('language', 'zero', 'r1')),
  ]


def words(claim: Claim) -> str:
  """A claim on one line."""
  return (f'{claim.said}: {claim.measured}: {_said(claim, claim.before)} → '
          f'{_said(claim, claim.after)}: {claim.verdict}')


def _said(claim: Claim, figure: r1_figures.Figure) -> str:
  if claim.percent:
    return f'{100 * figure.value:.1f} %'
  return f'{figure.value:.2f}'
