"""What a teacher writes in the mini world."""

import contextlib

import pytest

from r1jax import config as config_lib
from r1jax.data import mini
from r1jax.data import mini_lessons
from r1jax.data import sources
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
        accuracy.extract(text, 'tags') for _, text in pairs], pool)
  assert judged.right.all()
  for _, text in pairs:
    assert format_reward.score(text) == 1.
    assert (filters.reflections(text) > 0) == mode.startswith('long')
    assert text.isascii() == mode.endswith('en')


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
