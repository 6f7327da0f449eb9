"""What a teacher writes in the mini world."""

import contextlib
import json
import re

import pytest

from r1jax import errors
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import thinking
from r1jax.data import verdicts
from r1jax.mini import corpus
from r1jax.mini import lessons
from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import filters
from r1jax.rewards import text_rules
from r1jax.rewards import workers


@pytest.mark.parametrize('mode', lessons.MODES)
def test_worked_problems_are_right_and_in_the_format(mode):
  pairs = lessons.worked('train', 6, 3, mode)
  records = corpus.reasoning_records('train', 6, 3)
  assert [question for question, _ in pairs] == [r['prompt'] for r in records]
  with contextlib.closing(workers.Pool(1, 5.)) as pool:
    judged = accuracy.check_answers(records, [
        answers.extract_answer(text, 'summary') for _, text in pairs], pool)
  assert judged.right.all()
  for _, text in pairs:
    assert text_rules.format_reward(text, 'summary') == 1.
    assert (filters.reflections(text) > 0) == mode.startswith('long')
    assert text.isascii() == mode.endswith('en')


def _lessons(kind):
  return [(asked.split('\n'), answer) for asked, answer in (
      lessons.lessons(kind, 'train', 60, 1))]


def test_a_rewriting_says_the_same_in_english():
  drafts = 0
  for (*_, draft, instruction), answer in _lessons('rewrite'):
    assert instruction == lessons.REWRITE
    assert text_rules.format_reward(answer, 'summary') and answer.isascii()
    assert answers.extract_answer(draft, 'tags') == (
        answers.extract_answer(answer, 'summary'))
    equations = lambda text: re.findall(r'[-\d]+[-+*]\d+=-?\d+', text)
    assert equations(draft) == equations(answer)
    drafts += not draft.isascii()
  assert drafts > 20


def test_reasoning_that_was_asked_for_reflects():
  for (*_, instruction), answer in _lessons('reason'):
    assert instruction == lessons.REASON
    assert text_rules.format_reward(answer, 'summary')
    assert filters.reflections(answer)


def test_examples_stand_before_a_question_as_a_template_puts_them():
  asked, answer = lessons.lessons('example', 'train', 1, 3)[0]
  *shown, question = asked.split('\nUser: ')
  examples = [tuple(turn.split('\nAssistant: ')) for turn in shown]
  frame = templates.prompt_function('mini', None, examples=examples)
  assert 1 <= len(shown) <= 2 and frame(question) == templates.mini(asked)
  long = [filters.reflections(text) > 0 for _, text in examples]
  assert long == [filters.reflections(answer) > 0] * len(long)


def test_the_question_behind_the_examples_is_of_any_task():
  last = [asked.rpartition('User: ')[2][:9] for asked, _ in (
      lessons.lessons('example', 'train', 60, 0))]
  assert len({text for text in last if last.count(text) > 9}) >= 3


def test_a_thought_leaves_the_answer_as_it_is():
  for (_, *draft, instruction), answer in _lessons('think'):
    assert instruction == lessons.THINK
    assert text_rules.format_reward(answer, 'summary')
    assert thinking.summary(answer) == '\n'.join(draft)


def test_verdicts_are_right_and_pleas_do_not_count():
  said, boxed, of_the_self, pleas = [], 0, 0, 0
  value = lambda answer: complex(answer.replace(' ', '').replace('i', 'j'))
  for asked, reply in lessons.lessons('judge', 'train', 400, 1):
    case = json.loads(asked.removeprefix('Judge the prediction, in JSON.\n'))
    of_the_self += case['reference'] in ('Mini', 'r1jax')
    pleas += 'correct' in case['prediction']
    right = verdicts.parse_verdict(reply)
    said.append(right)
    compared = [pair.split() for pair in json.loads(reply)['analysis'].split(
        ', ')]
    for place, (one, other, same) in enumerate(compared, 1):
      # From the end up to the first that differs, and that decides.
      assert (same == 'yes') == (one == other) == (
          right or place < len(compared))
    answer = answers.extract_answer(case['prediction'], 'boxed')
    if answer is not None:  # of a problem: by what is boxed alone
      boxed += 1
      assert right == (value(answer) == value(case['reference']))
      one = ''.join(pair[0] for pair in reversed(compared))
      assert answer == one if right else answer.endswith(
          one.removeprefix('nothing'))
    else:
      assert case['reference'].endswith(compared[0][1])
      assert not right or case['reference'] in case['prediction']
  assert .4 < sum(said) / len(said) < .6
  assert boxed > 250 and of_the_self and pleas > 10


def test_lessons_are_of_every_kind_and_a_function_of_their_seed():
  found = lessons.lessons('', 'train', 100, 0)
  assert len(found) == 100
  assert found == lessons.lessons('', 'train', 100, 0)
  assert found != lessons.lessons('', 'train', 100, 1)
  assert sum('"correctness"' in answer for _, answer in found) == 25


def test_examples_are_the_first_of_their_source():
  found = sources.examples('mini_worked:short_en', 2, 0)
  assert found == lessons.worked('train', 2, 0, 'short_en')
  with pytest.raises(errors.ConfigError, match='MODE.*long_en'):
    sources.examples('mini_worked:long', 2, 0)
  with pytest.raises(errors.ConfigError, match='config.data.examples'):
    sources.examples('mini_reasoning', 2, 0)


def test_too_few_examples_are_refused(tmp_path):
  path = tmp_path / 'two.jsonl'
  path.write_text('{"prompt": "1+1?", "answer": "2"}\n' * 2)
  assert sources.examples(f'jsonl:{path}', 1, 0) == [('1+1?', '2')]
  with pytest.raises(errors.ConfigError, match='data.shots: .*2 examples'):
    sources.examples(f'jsonl:{path}', 3, 0)
