"""Quality values of steps, worked out by hand after the authors' code."""

import pytest

from r1jax.rewards import quality


def test_a_right_response_comes_nearer_to_1_by_equal_parts():
  assert quality.values(['abcd'], [True]) == [
      pytest.approx([.25, .5, .75, 1.])]


def test_a_wrong_step_takes_away_what_a_right_one_would_add():
  """After a, 3 steps are left; b is right, x is not, and all after it."""
  right, wrong = quality.values(['abcd', 'axyz'], [True, False])
  assert right == pytest.approx([.25, .5, .75, 1.])
  # m = 3 from a on: 1/4 - (3/4)/4 = 1/16; then 1/16 - (15/16)/4 < 0.
  assert wrong == pytest.approx([.25, 1 / 16, 0., 0.])
  # A wrong first step: nothing to take away.
  assert quality.values(['ab', 'xb'], [True, False])[1] == [0., 0.]


def test_the_distance_is_that_to_the_nearest_right_end():
  long, short = quality.values(['abcd', 'ae'], [True, True])
  assert short == pytest.approx([.5, 1.])
  # m is 1 at a, but 2, 1 and 0 after it.
  assert long == pytest.approx([.5, .5 + .5 / 3, .5 + .5 / 3 + (
      .5 - .5 / 3) / 2, 1.])


def test_without_a_right_response_nothing_is_known():
  assert quality.values(['ab', 'c'], [False, False]) == [[None, None], [None]]
  assert quality.values([], []) == []


def test_a_wrong_response_may_end_where_others_go_on():
  ended, other = quality.values(['ab', 'abc'], [False, True])
  assert ended == pytest.approx([1 / 3, 2 / 3]) and other[-1] == 1.
