"""Confidence intervals: shares, means, paired changes, win rates.

All intervals are 95 % intervals. Those of shares are Wilson's, over problems
where each has several samples; those of means and of changes are normal ones,
over prompts: two policies that answer the same prompts are compared prompt by
prompt. None includes the variation between seeds of training.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

_Z = 1.96  # 95 % of a normal distribution are within so many deviations


class Figure(NamedTuple):
  """A measured value with its 95 % interval, if there is one."""
  value: float
  low: float | None = None
  high: float | None = None


def wilson(share: float, n: float) -> list[float]:
  """Wilson's score interval of a share among n problems, within [0, 1]."""
  centre = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
  half = _Z / (1 + _Z * _Z / n) * math.sqrt(
      share * (1 - share) / n + _Z * _Z / (4 * n * n))
  return [max(0., centre - half), min(1., centre + half)]


def clustered(means: Sequence[float], samples: int) -> list[float]:
  """The interval of the mean over problems, each with several samples.

  Samples of a problem are alike, so that the problems are what varies. The
  variance v of the mean of their means p is that of n' = p (1 - p) / v
  independent samples, for which the interval is Wilson's. They count as at
  least the problems and at most the samples. With one sample it is
  Wilson's of the problems; and unlike the normal interval it has a width where
  all problems agree, and stays within [0, 1].

  Args:
    means: of each problem, 0 to 1.
    samples: of each problem.
  """
  n, value, variance = len(means), float(np.mean(means)), _variance(means)
  most = n * samples
  size = value * (1 - value) / variance if variance else most
  if not 0. < value < 1.:
    size = n  # all problems agree, as few of them might by chance
  return wilson(value, min(max(size, n), most))


def share(sample: Sequence[float]) -> Figure:
  """The mean of values from 0 to 1; the interval is Wilson's.

  It is meant for values of 0 or 1, and never too narrow for grades.
  """
  value = float(np.mean(sample))
  return Figure(value, *wilson(value, len(sample)))


def mean(sample: Sequence[float]) -> Figure:
  """The mean of numbers; the interval is that of the normal distribution."""
  return _normal(float(np.mean(sample)), _variance(sample))


def change(before: np.ndarray, after: np.ndarray, paired: bool = True
           ) -> Figure:
  """after - before: of the same prompts, or of two independent samples."""
  if paired:
    if len(before) != len(after):
      raise ValueError(f'expected answers to the same prompts, received '
                       f'{len(before)} and {len(after)} of them')
    return mean(after - before)
  return _normal(float(np.mean(after) - np.mean(before)),
                 _variance(before) + _variance(after))


def _variance(sample: Sequence[float]) -> float:
  """The variance of the sample's mean."""
  size = len(sample)
  return float(np.var(sample, ddof=1)) / size if size > 1 else 0.


def _normal(value: float, variance: float) -> Figure:
  half = _Z * variance**.5
  return Figure(value, value - half, value + half)


def direction(found: Figure) -> str:
  """Whether the interval of a change, positive for better, excludes 0."""
  if found.low > 0:
    return 'improved'
  return 'worse' if found.high < 0 else 'no significant change'


def win_rate(before: Sequence[Mapping[str, Any]],
             after: Sequence[Mapping[str, Any]]) -> float:
  """How often a response is more accurate than one before to its prompt.

  Every response, {'id': of its prompt, 'accuracy', ...}, is compared with
  every one before to the same prompt; a tie counts half.
  """
  by_prompt = {}
  for side, rows in enumerate((before, after)):
    for row in rows:
      by_prompt.setdefault(row['id'], ([], []))[side].append(row['accuracy'])
  lead = [np.subtract.outer(new, old).ravel()
          for old, new in by_prompt.values()]
  return float(np.mean([np.mean((x > 0) + .5 * (x == 0)) for x in lead]))


def percent(value: float) -> str:
  """0.936 as '93.6 %'."""
  return f'{100 * value:.1f} %'


def text(figure: Figure, fraction: bool = True, *, interval: bool = False,
         signed: bool = False) -> str:
  """'93.6 % [90.1, 96.0]' of a fraction; signed, a change: '+3.5 pp'."""
  sign = '+' if signed else ''
  unit = '' if not fraction else ' pp' if signed else ' %'
  scale, digits = (100, 1) if fraction else (1, 2)
  if not fraction and abs(figure.value) >= 10:
    digits = 0
  value, low, high = (
      '' if x is None else f'{scale * x:{sign}.{digits}f}' for x in figure)
  return value + unit + (f' [{low}, {high}]' if interval and low else '')
