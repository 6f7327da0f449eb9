"""What a teacher writes in the mini world."""

import contextlib
import json
import re

import pytest

from r1jax import config as config_lib
from r1jax.data import mini
from r1jax.data import mini_lessons
from r1jax.data import preferences
from r1jax.data import sources
from r1jax.data import templates
from r1jax.data import verdicts
from r1jax.rewards import accuracy
from r1jax.rewards import filters
from r1jax.rewards import format as format_reward
from r1jax.rewards import workers


@pytest.mark.parametrize('mode', mini_lessons.MODES)
def test_worked_problems_are_right_and_in_the_format(mode):
  pairs = mini_lessons.worked('train', 6, 3, mode)
  records = mini.records('train', 6, 3)
  assert [question for question, _ in pairs] == [r['prompt'] for r in records]
  with contextlib.closing(workers.Pool(1, 5.)) as pool:
    judged = accuracy.judge(records, [
        accuracy.extract(text, 'summary') for _, text in pairs], pool)
  assert judged.right.all()
  for _, text in pairs:
    assert format_reward.score(text, 'summary') == 1.
    assert (filters.reflections(text) > 0) == mode.startswith('long')
    assert text.isascii() == mode.endswith('en')


def _lessons(kind):
  return [(asked.split('\n'), answer) for asked, answer in (
      mini_lessons.lessons(kind, 'train', 60, 1))]


def test_a_rewriting_says_the_same_in_english():
  drafts = 0
  for (*_, draft, instruction), answer in _lessons('rewrite'):
    assert instruction == mini_lessons.REWRITE
    assert format_reward.score(answer, 'summary') and answer.isascii()
    assert accuracy.extract(draft, 'tags') == (
        accuracy.extract(answer, 'summary'))
    equations = lambda text: re.findall(r'[-\d]+[-+*]\d+=-?\d+', text)
    assert equations(draft) == equations(answer)
    drafts += not draft.isascii()
  assert drafts > 20


def test_reasoning_that_was_asked_for_reflects():
  for (*_, instruction), answer in _lessons('reason'):
    assert instruction == mini_lessons.REASON
    assert format_reward.score(answer, 'summary')
    assert filters.reflections(answer)


def test_examples_stand_before_a_question_as_a_template_puts_them():
  asked, answer = mini_lessons.lessons('example', 'train', 1, 3)[0]
  *shown, question = asked.split('\nUser: ')
  examples = [tuple(turn.split('\nAssistant: ')) for turn in shown]
  frame = templates.frame('mini', None, examples=examples)
  assert 1 <= len(shown) <= 2 and frame(question) == templates.mini(asked)
  long = [filters.reflections(text) > 0 for _, text in examples]
  assert long == [filters.reflections(answer) > 0] * len(long)


def test_the_question_behind_the_examples_is_of_any_task():
  last = [asked.rpartition('User: ')[2][:9] for asked, _ in (
      mini_lessons.lessons('example', 'train', 60, 0))]
  assert len({text for text in last if last.count(text) > 9}) >= 3


def test_a_thought_leaves_the_answer_as_it_is():
  for (_, *draft, instruction), answer in _lessons('think'):
    assert instruction == mini_lessons.THINK
    assert format_reward.score(answer, 'summary')
    assert preferences.summary(answer) == '\n'.join(draft)


def test_verdicts_are_right_and_pleas_do_not_count():
  said, boxed, of_the_self, pleas = [], 0, 0, 0
  value = lambda answer: complex(answer.replace(' ', '').replace('i', 'j'))
  for asked, reply in mini_lessons.lessons('judge', 'train', 400, 1):
    case = json.loads(asked.removeprefix('Judge the prediction, in JSON.\n'))
    of_the_self += case['reference'] in ('Mini', 'r1jax')
    pleas += 'correct' in case['prediction']
    right = verdicts.read(reply)
    said.append(right)
    compared = [pair.split() for pair in json.loads(reply)['analysis'].split(
        ', ')]
    for place, (one, other, same) in enumerate(compared, 1):
      # From the end up to the first that differs, and that decides.
      assert (same == 'yes') == (one == other) == (
          right or place < len(compared))
    answer = accuracy.extract(case['prediction'], 'boxed')
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
  found = mini_lessons.lessons('', 'train', 100, 0)
  assert len(found) == 100
  assert found == mini_lessons.lessons('', 'train', 100, 0)
  assert found != mini_lessons.lessons('', 'train', 100, 1)
  assert sum('"correctness"' in answer for _, answer in found) == 25


def test_examples_are_the_first_of_their_source():
  found = sources.examples('mini_worked:short_en', 2, 0)
  assert found == mini_lessons.worked('train', 2, 0, 'short_en')
  with pytest.raises(config_lib.ConfigError, match='MODE.*long_en'):
    sources.examples('mini_worked:long', 2, 0)
  with pytest.raises(config_lib.ConfigError, match='config.data.examples'):
    sources.examples('mini_reasoning', 2, 0)


def test_too_few_examples_are_refused(tmp_path):
  path = tmp_path / 'two.jsonl'
  path.write_text('{"prompt": "1+1?", "answer": "2"}\n' * 2)
  assert sources.examples(f'jsonl:{path}', 1, 0) == [('1+1?', '2')]
  with pytest.raises(config_lib.ConfigError, match='data.shots: .*2 examples'):
    sources.examples(f'jsonl:{path}', 3, 0)
