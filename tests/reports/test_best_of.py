"""Best of N and majority against all subsets, one by one."""

import collections
import itertools

import numpy as np
import pytest

from r1jax.reports import best_of


def _best(score, right, n):
  found = []
  for chosen in itertools.combinations(range(len(score)), n):
    top = max(score[i] for i in chosen)
    found.append(np.mean([right[i] for i in chosen if score[i] == top]))
  return np.mean(found)


def _majority(answers, right, n):
  found = []
  for chosen in itertools.combinations(range(len(answers)), n):
    votes = collections.Counter(
        'right' if right[i] else answers[i] for i in chosen
        if answers[i] is not None)
    top = [a for a in votes if votes[a] == max(votes.values())]
    found.append(('right' in top) / len(top) if top else 0.)
  return np.mean(found)


@pytest.mark.parametrize('seed', range(6))
def test_all_subsets_one_by_one(seed):
  rng = np.random.default_rng(seed)
  k = 7
  score = rng.integers(0, 4, k).tolist()  # with ties
  answers = [rng.choice(['a', 'b', 'c', None], p=[.4, .3, .2, .1])
             for _ in range(k)]
  answers = [answer and str(answer) for answer in answers]
  right = [float(answer == 'b') for answer in answers]
  votes = best_of.majority(answers, right, range(1, k + 1))
  for n in range(1, k + 1):
    assert best_of.best(score, right, n) == pytest.approx(
        _best(score, right, n))
    assert votes[n - 1] == pytest.approx(_majority(answers, right, n))


def test_by_hand():
  assert [best_of.best([3, 2, 1], [0, 1, 1], n) for n in (1, 2, 3)] == [
      pytest.approx(x) for x in (2 / 3, 1 / 3, 0)]
  assert best_of.best([5, 5], [0, 1], 2) == .5
  assert best_of.majority('aab', [0, 0, 1], [1, 2, 3]) == [
      pytest.approx(x) for x in (1 / 3, 1 / 3, 0)]
  # Right answers written in two ways are one, and beat c.
  assert best_of.majority(['1', '1.0', 'c'], [1, 1, 0], [3]) == [1.]
  assert best_of.majority([None, None], [0, 0], [1, 2]) == [0., 0.]


def test_one_sample_is_the_mean_and_all_are_the_winner():
  rng = np.random.default_rng(0)
  score, right = rng.normal(size=64), (rng.random(64) < .3).astype(float)
  assert best_of.best(score, right, 1) == pytest.approx(right.mean())
  assert best_of.best(score, right, 64) == right[score.argmax()]
