"""Rewards from a process reward model: a score for each step of a response.

The chance of each step to be right is made one number for the response: the
least, the last, or the product of all (Let's Verify Step by Step, arXiv
2305.20050, appendix F; Math-Shepherd, arXiv 2312.08935, 3.4, has the least).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from r1jax.data import batches
from r1jax.data import chat
from r1jax.data import templates
from r1jax.rewards import cutting

COMBINATIONS = {'min': np.min, 'last': lambda chances: chances[-1],
                'product': np.prod}
_STEP = 64  # lengths are rounded up to it, so that few programs are compiled


def combine(chances: Sequence[float], how: str) -> float:
  """One number for a response, `how` a key of COMBINATIONS; 0 of no step."""
  return float(COMBINATIONS[how](chances)) if len(chances) else 0.


class StepBatch(NamedTuple):
  """Responses with their prompts, as a process reward model reads them."""
  tokens: np.ndarray  # i32[N, T]
  end: np.ndarray  # i32[N, K], the index in T of each step's last token


class ProcessReward:
  """The scores of steps as a part of the reward."""

  def __init__(self, name: str, weight: Callable[[str], float],
               encode: templates.EncodeSteps,
               chances: Callable[[StepBatch], np.ndarray], *, cut: str,
               combination: str, max_len: int, batch: int):
    """Keeps its arguments; computes nothing.

    Args:
      name: of the part of the reward.
      weight: (task) -> weight of the combined score in the reward.
      encode: (prompt, steps) -> the model's tokens of the prompt and each step.
      chances: (batch) -> f32[N, K]; every process must call it.
      cut: what ends a step, one of cutting.CUTS.
      combination: a key of COMBINATIONS.
      max_len: its longest sequence.
      batch: responses at a time.
    """
    self.name, self._weight, self._cut = name, weight, cut
    self._encode, self._chances = encode, chances
    self._combination, self._max_len, self._batch = combination, max_len, batch

  def steps(self, text: str) -> list[str]:
    """The steps of a response, pieces of its text."""
    return cutting.cut(text, self._cut)

  def apply(self, records: Sequence[Mapping[str, Any]], rows: list[dict]
           ) -> dict[str, int]:
    """Adds the scores to the logged rows of B records' G responses each.

    `name` is the combined score, '<name>/steps' has that of every step. Returns
    {'<name>_cut': how many were not read whole}.
    """
    group = len(rows) // len(records)
    found, cut = self.score([records[n // group]['prompt']
                             for n in range(len(rows))],
                            [self.steps(row['response']) for row in rows])
    for row, chances in zip(rows, found):
      row[f'{self.name}/steps'] = chances
      row[self.name] = combine(chances, self._combination)
      row['reward'] += self._weight(row['task']) * row[self.name]
    return {f'{self.name}_cut': cut}

  def score(self, prompts: Sequence[chat.Prompt],
            responses: Sequence[Sequence[str]]
            ) -> tuple[list[list[float]], int]:
    """The chances of the steps of N responses; how many were cut.

    A prompt is cut at its start, where it leaves no room for a step. A step
    beyond the model's longest sequence is not read, and scores 0.
    """
    rows, ends, cut = [], [], 0
    for prompt, steps in zip(prompts, responses, strict=True):
      asked, said = self._encode(prompt, steps)
      last = np.cumsum([len(ids) for ids in said], dtype=int) - 1
      kept = asked[-max(self._max_len - sum(map(len, said)), 1):]
      tokens = [*kept, *(token for ids in said for token in ids)]
      ends.append(len(kept) + last)
      rows.append(tokens[:self._max_len])
      cut += len(asked) > len(kept) or len(tokens) > self._max_len
    width = max(map(len, ends))
    if not width:
      return [[] for _ in rows], cut
    tokens, _ = batches.pad_right(
        rows, min(-(-max(map(len, rows)) // _STEP) * _STEP, self._max_len))
    end, count = batches.pad_right(ends, -(-width // 8) * 8)
    read = end < self._max_len
    chances = np.concatenate([
        self._chances(StepBatch(tokens[index], np.where(read, end, 0)[index]))
        for index in batches.whole_batches(len(rows), self._batch)])[:len(rows)]
    return [row[:n].tolist() for row, n in zip(
        np.where(read, chances, 0), count)], cut
