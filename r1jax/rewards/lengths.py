"""Rewards of a response's length: for short answers, or for a budget.

    kimi      among the responses to a prompt, from 1/2 for the shortest to -1/2
              for the longest; a wrong one gets at most 0 (Kimi k1.5, arXiv
              2501.12599, sec. 2.3.3)
    l1_exact  -|n - n*|, for n tokens where n* are asked for (L1, arXiv
              2503.04697, eq. 1)
    l1_max    accuracy * clip((n* - n) w + 1/2, 0, 1): the shorter, the better,
              up to n* without a cliff (L1, eq. 2)

A length counts the end token. As every part, it is added at its weight
`rewards.weights.length_rule`: for L1-Exact this is alpha, 0.0003. L1-Max is all
of the reward: weight 1, that of accuracy 0, and its own slope w is
`rewards.length_slope`. These rules compare a group or need the verdict on an
answer, so they come after all verifiers, reward models and judges.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1jax import errors

LENGTH = 'length_rule'  # the part of the reward
RULES = ('kimi', 'l1_exact', 'l1_max')
_COLUMN = 'target_tokens'  # of a data row


class LengthReward:
  """The length of responses as a part of the reward."""

  name = LENGTH

  def __init__(self, rule: str, weight: Callable[[str], float],
               target_tokens: int | None, slope: float):
    """Keeps its arguments.

    Args:
      rule: one of RULES.
      weight: (task) -> weight in the reward.
      target_tokens: n*; None: each row's own column `target_tokens`.
      slope: w of 'l1_max'.
    """
    self._rule, self._weight = rule, weight
    self._target, self._slope = target_tokens, slope

  def check(self, records: Sequence[Mapping[str, Any]]) -> None:
    """Refuses prompts without the number of tokens that the rule needs."""
    for record in records if self._rule != 'kimi' else ():
      self._budget(record)

  def apply(self, records: Sequence[Mapping[str, Any]], rows: list[dict]
            ) -> dict[str, int]:
    """Adds the reward to the logged rows of B records' G responses each."""
    group = len(rows) // len(records)
    for b, record in enumerate(records):
      part = rows[b * group:(b + 1) * group]
      for row, value in zip(part, self._of_group(record, part), strict=True):
        row[self.name] = value
        row['reward'] += self._weight(row['task']) * value
    return {}

  def _of_group(self, record: Mapping[str, Any], rows: Sequence[Mapping]
                ) -> list[float]:
    lengths = [row['tokens'] for row in rows]
    right = [row['accuracy'] for row in rows]
    if self._rule == 'kimi':
      return kimi(lengths, right)
    budget = self._budget(record)
    if self._rule == 'l1_exact':
      return [-float(abs(n - budget)) for n in lengths]
    return [l1_max(n, budget, self._slope, value)
            for n, value in zip(lengths, right, strict=True)]

  def _budget(self, record: Mapping[str, Any]) -> int:
    if self._target is not None:
      return self._target
    budget = record.get('row', {}).get(_COLUMN)
    if not (isinstance(budget, int) and budget > 0):
      raise errors.expected(
          'rewards.target_tokens', f'a number of tokens here, or a column '
          f'{_COLUMN!r} with one in every row of config.data: rule '
          f'{self._rule!r} needs it; a row has', budget)
    return budget


def kimi(lengths: Sequence[int], right: Sequence[float]) -> list[float]:
  """Kimi k1.5's length reward of a group's responses, -1/2 to 1/2.

  lambda = 1/2 - (n - min) / (max - min) of a right response, min(0, lambda) of
  another; 0 where all lengths are equal. Example: 10, 20 and 30 tokens, of
  which the first is wrong: 0, 0, -1/2.
  """
  shortest, longest = min(lengths), max(lengths)
  if shortest == longest:
    return [0.] * len(lengths)
  values = [.5 - (n - shortest) / (longest - shortest) for n in lengths]
  return [value if ok >= 1 else min(0., value)
          for value, ok in zip(values, right, strict=True)]


def l1_max(tokens: int, budget: int, slope: float, right: float) -> float:
  """L1-Max, 0 to 1. Example: 100 tokens of 300, slope 0.001: 0.7 if right."""
  return right * min(max((budget - tokens) * slope + .5, 0.), 1.)
