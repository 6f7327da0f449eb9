"""The soft overlong penalty, by hand from DAPO's equation 13."""

import pytest

from r1jax.rewards import text_rules


@pytest.mark.parametrize("tokens, penalty", [
    (1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0),
    (101, -1.0), (500, -1.0)])
def test_hand_values(tokens, penalty):
  assert text_rules.overlong_penalty(tokens, True, limit=100, cache=20) == pytest.approx(
      penalty, abs=1e-12)


def test_the_papers_limits():
  assert text_rules.overlong_penalty(16_384, True, 20_480, 4_096) == 0.0
  assert text_rules.overlong_penalty(18_432, True, 20_480, 4_096) == -0.5


def test_a_response_cut_off_pays_in_full():
  assert text_rules.overlong_penalty(100, False, limit=100, cache=20) == -1.0
  assert text_rules.overlong_penalty(40, False, limit=100, cache=20) == -1.0
