"""The repetition penalty, by hand."""

import pytest

from r1jax.rewards import repetition


@pytest.mark.parametrize("text, n, penalty", [
    ("", 2, 0.0),
    ("one", 2, 0.0),
    ("a b c d", 2, 0.0),
    ("a b a b a b", 2, -0.6),
    ("A, b. a b; a (B)", 2, -0.6),
    ("x x x x x", 2, -0.75),
    ("\u6211\u6211\u6211\u6211\u6211", 2, -0.75),
    ("\u6211 x \u6211x", 2, -1 / 3),
])
def test_hand_values(text, n, penalty):
  assert repetition.penalty(text, n) == pytest.approx(penalty, abs=1e-12)


def test_a_loop_nears_minus_one():
  assert -1.0 < repetition.penalty("wait let me check that " * 1_000) < -0.99
  assert repetition.penalty("\ufffd" * 1_000) == 0.0
