"""Tests of the prompt templates."""

import pytest

from r1jax import config as config_lib
from r1jax.data import templates


def test_r1_zero_is_the_papers():
  assert templates.apply('r1_zero', 'What is 1+1?') == (
      'A conversation between User and Assistant. The user asks a question, '
      'and the Assistant solves it. The assistant first thinks about the '
      'reasoning process in the mind and then provides the user with the '
      'answer. The reasoning process and answer are enclosed within <think> '
      '</think> and <answer> </answer> tags, respectively, i.e., <think> '
      'reasoning process here </think> <answer> answer here </answer>. '
      'User: What is 1+1?. Assistant:')


@pytest.mark.parametrize('name', templates.TEMPLATES)
def test_a_prompt_is_kept_whole_and_no_space_ends_the_text(name):
  prompt = 'Let {x} = {0}, 100 %.\n\\frac{1}{2}'
  text = templates.apply(name, prompt)
  assert text.count(prompt) == 1
  assert text == text.rstrip()


def test_small_templates():
  assert templates.apply('mini', 'Q') == 'User: Q\nAssistant:'
  assert templates.apply('plain', 'Q') == 'Q'


def test_unknown_name_is_refused_with_the_nearest():
  with pytest.raises(
      config_lib.ConfigError, match="config.data.template.*did you mean 'r1_zero'"):
    templates.apply('r1zero', 'Q')
