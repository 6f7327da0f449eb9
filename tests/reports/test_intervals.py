"""Intervals against hand-computed and published numbers."""

import numpy as np
import pytest

from r1jax.reports import intervals


def _sample(right, of=400):
  """One value a prompt, the first `right` of them 1."""
  return (np.arange(of) < right).astype(float)


def _graded(*grades):
  """Responses, two to a prompt."""
  return [dict(id=n // 2, accuracy=grade) for n, grade in enumerate(grades)]


def test_wilson_s_interval():
  # 81 of 263: .2553 to .3662 (Newcombe, Statistics in Medicine 17, 1998).
  np.testing.assert_allclose(intervals.wilson(81 / 263, 263), [.2553, .3662],
                             atol=1e-4)
  low, high = intervals.wilson(1., 20)
  assert .8 < low < high <= 1.
  assert intervals.wilson(0., 20)[0] == 0.


def test_shares_and_means():
  assert intervals.share([1, 1, 0, 0]) == (.5, *intervals.wilson(.5, 4))
  # The variance of [0, 2] is 2, that of its mean 1.
  assert intervals.mean([0., 2.]) == pytest.approx((1., 1 - 1.96, 1 + 1.96))
  assert intervals.mean([3.]) == (3., 3., 3.)


def test_a_change_is_that_of_each_prompt():
  """Pairs say more than two samples do."""
  before, after = _sample(200), _sample(220)
  paired = intervals.change(before, after)
  assert paired.value == pytest.approx(.05) and paired.low > .02
  unlike = intervals.change(before, after, paired=False)
  assert unlike.value == pytest.approx(.05) and unlike.low < 0.
  # By hand: variances of the means of [0, 2] and [1, 3, 5] are 1 and 4/3.
  by_hand = intervals.change(
      np.array([0., 2.]), np.array([1., 3., 5.]), paired=False)
  assert by_hand.high == pytest.approx(2 + 1.96 * (7 / 3)**.5)
  with pytest.raises(ValueError, match='400 and 2 of them'):
    intervals.change(before, np.zeros(2))


@pytest.mark.parametrize('low, high, said', [
    (.01, .2, 'improved'), (-.2, -.01, 'worse'),
    (-.1, .2, 'no significant change'), (0., 0., 'no significant change')])
def test_a_change_has_a_direction_where_its_interval_excludes_0(low, high, said
                                                               ):
  assert intervals.direction(intervals.Figure(.05, low, high)) == said


def test_the_win_rate_compares_all_responses_to_a_prompt():
  before = _graded(0, 1, .5, .5)
  assert intervals.win_rate(before, before) == .5
  # 1 and .5 against 0, 1: 1, 1/2, 1, 0; and .5, 0 against .5, .5: 1/2, 0.
  assert intervals.win_rate(before, _graded(1, .5, .5, 0)) == pytest.approx(
      (2.5 / 4 + 1 / 4) / 2)


@pytest.mark.parametrize('figure, form, text', [
    ((.936, .901, .96), {}, '93.6 %'),
    ((.936, .901, .96), dict(interval=True), '93.6 % [90.1, 96.0]'),
    ((.5,), dict(interval=True), '50.0 %'),
    ((.035, -.01, .08), dict(interval=True, signed=True),
     '+3.5 pp [-1.0, +8.0]'),
    ((1.234, 1., 2.), dict(fraction=False), '1.23'),
    ((12.34, 1., 2.), dict(fraction=False), '12'),
    ((10., 1., 2.), dict(fraction=False), '10'),
    ((-12.34, -13., -11.), dict(fraction=False, interval=True),
     '-12 [-13, -11]')])
def test_figures_as_text(figure, form, text):
  assert intervals.text(intervals.Figure(*figure), **form) == text
