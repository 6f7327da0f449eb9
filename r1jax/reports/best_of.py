"""Best of N and majority among k samples, exactly: over all subsets of N.

A problem has k samples. What a rule picks among N of them is right with a
chance that is averaged over all choices of N without drawing any: so the same
samples give the whole curve, each point unbiased.
"""

from collections.abc import Hashable, Sequence
import math

import numpy as np


def best(score: Sequence[float], right: Sequence[float], n: int) -> float:
  """The chance that the sample with the highest of n scores is right.

  Equal scores share their place. Scores 3, 2, 1, of which the first is wrong
  and the others right: 2/3 for n = 1, 1/3 for n = 2, 0 for n = 3.

  Args:
    score, right: of the k samples; right is 0 or 1.
    n: samples among which to choose, 1 to k.
  """
  score, right = np.asarray(score, float), np.asarray(right, float)
  found, below = 0., 0
  for value in np.unique(score):
    equal = score == value
    ways = math.comb(below + int(equal.sum()), n) - math.comb(below, n)
    found += ways * right[equal].mean()
    below += int(equal.sum())
  return found / math.comb(len(score), n)


def majority(answers: Sequence[Hashable | None], right: Sequence[float],
             sizes: Sequence[int]) -> list[float]:
  """The chance that the most frequent answer among n samples is right.

  Answers that tie share their chance. A sample without an answer (None) does
  not vote, and all right answers are one. Answers a, a, b of which b is right:
  1/3 for n = 1 and 2 (one of a and b with chance 2/3, half of it), 0 for n = 3.

  Args:
    answers, right: of the k samples.
    sizes: values of n.
  """
  size = len(answers)
  true = sum(ok > 0 and answer is not None
             for answer, ok in zip(answers, right))
  counts = {}
  for answer, ok in zip(answers, right):
    if answer is not None and not ok:
      counts[answer] = counts.get(answer, 0) + 1
  silent = size - true - sum(counts.values())
  won = np.zeros(size + 1)  # ways to choose n samples that right answers win
  for votes in range(1, true + 1):
    # ways[v, t]: of v votes for others, none above `votes`, t equal to it.
    ways = np.zeros((size + 1, len(counts) + 1))
    ways[:, 0] = [math.comb(silent, v) for v in range(size + 1)]
    for count in counts.values():
      more = np.zeros_like(ways)
      for own in range(min(count, votes) + 1):
        tie = int(own == votes)
        more[own:, tie:] += math.comb(count, own) * (
            ways[:size + 1 - own, :ways.shape[1] - tie])
      ways = more
    shared = ways @ (1 / np.arange(1, ways.shape[1] + 1))
    won[votes:] += math.comb(true, votes) * shared[:size + 1 - votes]
  return [float(won[n] / math.comb(size, n)) for n in sizes]
