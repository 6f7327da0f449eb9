"""Where no answer is looked for: drafts of the thinking, and what was cut."""

import pytest

from r1jax.data import thinking
from r1jax.rewards import answers
from r1jax.rewards import text_rules

MARKED = ('tags', 'boxed', 'any', 'last', 'summary')
UNMARKED = ('number', 'last', 'summary', 'whole')


@pytest.mark.parametrize('mode', answers.ANSWERS)
@pytest.mark.parametrize('text', [
    '<think> so \\boxed{3} ', '<think> <answer> 3 </answer> no, wait',
    '<think> it is 3', 'a</think> b <think> then \\boxed{3}'])
def test_a_thinking_that_never_ends_gives_no_answer(mode, text):
  for finished in (True, False):
    assert answers.extract_answer(text, mode, finished) is None


@pytest.mark.parametrize('mode', ['boxed', 'any', 'last', 'summary', 'number'])
def test_a_draft_in_the_thinking_is_not_the_answer(mode):
  draft = '<think> \\boxed{3}, no, it is more than 3 </think> '
  assert answers.extract_answer(draft + 'So \\boxed{4}.', mode) == '4'
  assert answers.extract_answer(draft + 'It is a secret.', mode) == (
      'It is a secret.' if mode == 'summary' else None)


@pytest.mark.parametrize('mode', UNMARKED)
def test_an_unmarked_answer_of_a_response_that_was_cut_does_not_count(mode):
  text = 'First 3 + 4 = 7, then 7 * 1'
  assert answers.extract_answer(text, mode) is not None
  assert answers.extract_answer(text, mode, finished=False) is None


@pytest.mark.parametrize('mode', MARKED)
def test_a_whole_mark_counts_where_the_response_was_cut(mode):
  text = {'tags': 'a <answer> 7 </answer>'}.get(mode, 'so \\boxed{7} sin')
  assert answers.extract_answer(text, mode, finished=False) == '7'


@pytest.mark.parametrize('text', [
    'so \\boxed{7', 'a <answer> 7', 'so \\boxed 7', 'so \\boxed{\\frac{1}{2}'])
@pytest.mark.parametrize('mode', MARKED)
def test_a_mark_that_was_cut_itself_does_not(text, mode):
  assert answers.extract_answer(text, mode, finished=False) is None


def test_a_number_is_the_last_resort_of_last():
  assert answers.extract_answer('\\boxed{3} of 4', 'last') == '3'
  assert answers.extract_answer('It is 3 of 4.', 'last') == '4'
  assert answers.extract_answer('None.', 'last') is None


def test_a_block_ends_the_thinking_where_its_tag_is_missing():
  """R1-Zero's reward of accuracy; the format reward asks for all tags."""
  text = '<think> 3 + 4 <answer> 7 </answer>'
  assert answers.extract_answer(text, 'tags') == '7'
  assert text_rules.format_reward(text) == 0.


@pytest.mark.parametrize('prompt, opened', [
    ('<|Assistant|><think>\n', True), ('a <think>', True),
    ('<think> </think> Assistant:', False),
    ('What does <think> mean?\nAssistant:', False),
    ('<think>\n\n</think>\n\n', False),
    ('', False)])
def test_which_prompts_open_the_thinking(prompt, opened):
  assert thinking.opened(prompt) == opened
