"""The repetition penalty, by hand."""

import pytest

from r1jax.mini import lessons
from r1jax.rewards import text_rules


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
  assert text_rules.repetition_penalty(text, n) == pytest.approx(penalty, abs=1e-12)


LOOPS = ["!" * 5000, "\u3002" * 5000, "= " * 3000, "ha" * 3000,
         "\u306a\u3044\u3067\u3059" * 1000, "wait, let me check " * 100,
         "\ud800" * 1000, "\x00" * 10**6]


@pytest.mark.parametrize("text, looped", [
    *((text, True) for text in LOOPS),
    ("", False), ("!" * 400, False),
    ("".join(map(str, range(1000))), False),
    ("\n".join(f"{n}+{n + 1}={2 * n + 1}" for n in range(500)), False),
    ("\n".join(f"n = {n}: {n}^2 + {n} + 41 = {n * n + n + 41}, which is not "
               "divisible by 43." for n in range(300)), False),  # 5.5 times
])
def test_a_loop_is_told_whatever_it_says(text, looped):
  assert text_rules.is_loop(text) is looped


def test_worked_solutions_are_no_loops():
  """Not one of them, nor as many in a row as a long thought has steps."""
  for mode in ("long_en", "long_zh", "short_zh"):
    texts = [text for _, text in lessons.worked("train", 100, 0, mode)]
    assert not any(map(text_rules.is_loop, [*texts, "\n".join(texts)]))


def test_a_loop_nears_minus_one():
  assert -1.0 < text_rules.repetition_penalty("wait let me check that " * 1_000) < -0.99
  assert text_rules.repetition_penalty("\ufffd" * 1_000) == 0.0
