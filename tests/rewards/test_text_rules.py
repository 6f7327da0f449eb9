"""Rewards of the text alone: the format, the length, repetition."""

import pytest

from r1jax.mini import lessons
from r1jax.rewards import text_rules


@pytest.mark.parametrize('text', [
    '<think>1 + 1</think><answer>2</answer>',
    '\n <think> 1 < 2\nand so on </think>\n\n<answer>\n2 </answer> \n',
    '<think>caf\ufffd</think> <answer>\ufffd</answer>',
    '<think>' + 'so ' * 100_000 + '</think><answer>2</answer>',
])
def test_the_form(text):
  assert text_rules.format_reward(text) == 1.0


@pytest.mark.parametrize('text', [
    '',
    '2',
    '<answer>2</answer>',
    '<think>1 + 1</think>',
    '<think>1 + 1</think><answer>2</answer> That is all.',
    'Well. <think>1 + 1</think><answer>2</answer>',
    '<think>1 + 1</think> so <answer>2</answer>',
    '<think>a</think><think>b</think><answer>2</answer>',
    '<think>a<think>b</think></think><answer>2</answer>',
    '<think>a</think><answer>1</answer><answer>2</answer>',
    '<think>a <answer>1</answer></think><answer>2</answer>',
    '<think>a <answer>2</answer></think>',
    '<answer>2</answer><think>a</think>',
    '<think>a<answer>2</answer></think>',
    '<think>a</think><answer>2',
    '<think>a<answer>2</answer>',
    '<think>a</think><answer>2</answer><think>',
    '<think> \n</think><answer>2</answer>',
    '<think>a</think><answer> </answer>',
    '<think>a</think><answer></think>2</answer>',
    '<Think>a</Think><answer>2</answer>',
])
def test_not_the_form(text):
  assert text_rules.format_reward(text) == 0.0


@pytest.mark.parametrize('text, expected', [
    ('<think>1 + 1</think> It is \\boxed{2}.', 1.),
    ('\n<think>\n1 + 1 </think>2', 1.),
    ('<think>1 + 1</think><answer>2</answer>', 0.),
    ('<think>1 + 1</think> ', 0.),
    ('<think> </think> 2', 0.),
    ('Well, <think>1 + 1</think> 2', 0.),
    ('<think>1 + 1', 0.),
    ('2', 0.),
    ('', 0.),
    ('<think>a</think>b</think>c', 0.),
    ('<think>a</think> <think>b</think> c', 0.),
])
def test_the_form_with_a_summary(text, expected):
  assert text_rules.format_reward(text, 'summary') == expected


# By hand from DAPO's equation 13.
@pytest.mark.parametrize('tokens, penalty', [
    (1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0),
    (101, -1.0), (500, -1.0)])
def test_the_overlong_penalty_by_hand(tokens, penalty):
  found = text_rules.overlong_penalty(tokens, True, limit=100, cache=20)
  assert found == pytest.approx(penalty, abs=1e-12)


def test_the_papers_limits_of_length():
  assert text_rules.overlong_penalty(16_384, True, 20_480, 4_096) == 0.0
  assert text_rules.overlong_penalty(18_432, True, 20_480, 4_096) == -0.5


def test_a_response_cut_off_pays_in_full():
  assert text_rules.overlong_penalty(100, False, limit=100, cache=20) == -1.0
  assert text_rules.overlong_penalty(40, False, limit=100, cache=20) == -1.0


@pytest.mark.parametrize('text, n, penalty', [
    ('', 2, 0.0),
    ('one', 2, 0.0),
    ('a b c d', 2, 0.0),
    ('a b a b a b', 2, -0.6),
    ('A, b. a b; a (B)', 2, -0.6),
    ('x x x x x', 2, -0.75),
    ('\u6211\u6211\u6211\u6211\u6211', 2, -0.75),
    ('\u6211 x \u6211x', 2, -1 / 3),
])
def test_the_repetition_penalty_by_hand(text, n, penalty):
  found = text_rules.repetition_penalty(text, n)
  assert found == pytest.approx(penalty, abs=1e-12)


LOOPS = ['!' * 5000, '\u3002' * 5000, '= ' * 3000, 'ha' * 3000,
         '\u306a\u3044\u3067\u3059' * 1000, 'wait, let me check ' * 100,
         '\ud800' * 1000, '\x00' * 10**6]


@pytest.mark.parametrize('text, looped', [
    *((text, True) for text in LOOPS),
    ('\n'.join(f'Wait, that is {n % 10}.' for n in range(100)), True),
    ('', False), ('!' * 400, False),
    (''.join(map(str, range(1000))), False),
    ('\n'.join(f'{n}+{n + 1}={2 * n + 1}' for n in range(500)), False),
    ('\n'.join(f'n = {n}: {n}^2 + {n} + 41 = {n * n + n + 41}, which is not '
               'divisible by 43.' for n in range(300)), False),  # 5.5 times
])
def test_a_loop_is_told_whatever_it_says(text, looped):
  assert text_rules.is_loop(text) is looped


def test_worked_solutions_are_no_loops():
  """Not one of them, nor as many in a row as a long thought has steps."""
  for mode in ('long_en', 'long_zh', 'short_zh'):
    texts = [text for _, text in lessons.worked('train', 100, 0, mode)]
    assert not any(map(text_rules.is_loop, [*texts, '\n'.join(texts)]))


def test_ngrams_are_of_four_words_unless_it_is_said():
  assert text_rules.repetition_penalty('a b c d a b c d') == pytest.approx(-.2)


def test_a_loop_nears_minus_one():
  text = 'wait let me check that ' * 1_000
  assert -1.0 < text_rules.repetition_penalty(text) < -0.99
  assert text_rules.repetition_penalty('\ufffd' * 1_000) == 0.0
