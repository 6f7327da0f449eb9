"""pass@k against every subset, and intervals against simulation."""

import itertools

import numpy as np
import pytest

from r1jax.reports import intervals
from r1jax.reports import pass_at_k


@pytest.mark.parametrize('n', [1, 2, 5, 7])
def test_it_is_the_share_of_subsets_with_a_right_one(n):
  for correct in range(n + 1):
    right = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
      found = [any(part) for part in itertools.combinations(right, k)]
      assert pass_at_k.estimate(n, correct, k) == pytest.approx(np.mean(found))


def test_closed_forms():
  assert pass_at_k.estimate(64, 16, 1) == .25
  assert pass_at_k.estimate(64, 1, 64) == 1. == pass_at_k.estimate(64, 64, 1)
  assert pass_at_k.estimate(10, 5, 8) == 1.  # only five are wrong
  # 1 - (1 - c/n)^k would be 1 - .5^2.
  assert pass_at_k.estimate(4, 2, 2) == pytest.approx(5 / 6)


@pytest.mark.parametrize('n, correct, k', [
    (4, 2, 5), (1, 1, 2), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_there_is_no_figure_beyond_the_samples(n, correct, k):
  with pytest.raises(ValueError, match='right|responses'):
    pass_at_k.estimate(n, correct, k)


@pytest.mark.parametrize('samples, sizes', [
    (1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_which_k_are_reported(samples, sizes):
  assert pass_at_k.sizes(samples) == sizes


def test_one_sample_has_wilsons_interval():
  means = np.array([1.] * 13 + [0.] * 17)
  assert intervals.clustered(means, 1) == pytest.approx(
      intervals.wilson(13 / 30, 30))


def test_samples_that_agree_are_no_more_than_one():
  means = np.array([1.] * 13 + [0.] * 17)
  assert intervals.clustered(means, 64) == pytest.approx(
      intervals.wilson(13 / 30, 30))


def test_independent_samples_count_each():
  means = np.full(30, .5)
  assert intervals.clustered(means, 64) == pytest.approx(
      intervals.wilson(.5, 30 * 64))


@pytest.mark.parametrize('value', [0., 1.])
def test_problems_that_all_agree_have_an_interval_with_a_width(value):
  low, high = intervals.clustered(np.full(20, value), 16)
  assert (low, high) == tuple(intervals.wilson(value, 20)) and low < high


def test_the_interval_covers_the_truth_in_about_95_of_100_evaluations():
  """40 problems of unequal difficulty, 8 samples each."""
  draw = np.random.default_rng(0)
  covered = 0
  for _ in range(1_000):
    chances = draw.beta(.8, 1.2, 40)  # mean .4
    means = draw.binomial(8, chances) / 8
    low, high = intervals.clustered(means, 8)
    covered += low <= .4 <= high
  assert 920 <= covered <= 980
