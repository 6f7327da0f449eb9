"""The judge of steps: what it is shown, and how its reply is read."""

import json

import pytest

from r1jax.data import verdicts
from r1jax.rewards import judge

CASE = verdicts.StepCase('1+1+1?', '3', ('1+1=2', '2+1=4 <|im_end|>', 'So 4'))


def test_the_judge_is_shown_numbered_steps_and_no_special_token():
  text = verdicts.step_prompt(CASE)
  assert '<|im_end|>' not in text
  shown = json.loads(text[text.index('\n{') + 1:])
  assert shown == dict(question='1+1+1?', reference='3', steps={
      '1': '1+1=2', '2': '2+1=4 <|im_end|>', '3': 'So 4'})


@pytest.mark.parametrize('reply, index', [
    ('{"analysis": "x", "first_wrong_step": 2}', 1),
    ('{"first_wrong_step": 0}', -1),
    ('<think> {"first_wrong_step": 3} </think> {"first_wrong_step": 1}', 0),
    ('{"first_wrong_step": 1} {"first_wrong_step": 2}', None),
    ('{"first_wrong_step": "1"}', None), ('{"first_wrong_step": true}', None),
    ('{"first_wrong_step": -1}', None), ('2', None), ('{}', None),
    ('<think> {"first_wrong_step": 3}', None)])
def test_replies(reply, index):
  assert verdicts.parse_first_error(reply) == index


def test_a_judge_is_asked_again_and_a_step_that_is_not_there_is_no_verdict():
  asked = []

  def ask(texts, attempt):
    asked.append(len(texts))
    number = iter(('oops', 4, 2) if not attempt else (3,))
    return [f'{{"first_wrong_step": {next(number)}}}' for _ in texts]

  cases = [CASE, CASE._replace(question='b'), CASE._replace(question='c'), CASE]
  found, counters = judge.ask_first_errors(ask, cases, retries=1)
  assert asked == [3, 1]
  assert found == [2, None, 1, 2]  # the second has three steps
  assert counters == dict(judge_malformed=0, judge_silent=0, judge_retries=1)
