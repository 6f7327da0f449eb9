"""Prompts as stages that sample are given them."""

import pytest

from experiments import r1_zero
from r1jax import config as config_lib
from r1jax.data import vocab as vocab_lib
from r1jax.stages import prompts


def _read(tmp_path, **data):
  path = tmp_path / 'asked.jsonl'
  path.write_text('{"prompt": "Name a city.", "answer": "Paris"}\n')
  config = r1_zero.get_config('mini').unlock()
  config.data.update(dict(task=f'jsonl:{path}') | data)
  config.rl.prompt_tokens = 200
  vocab = vocab_lib.load('sentencepiece', 'mini')
  found = prompts.read(config, vocab, 'train', 9)
  return vocab.decode(found.tokens[0, :found.length[0]].tolist())


def test_examples_and_an_instruction_reach_the_tokens(tmp_path):
  text = _read(tmp_path, shots=1, examples='mini_worked:short_en',
               instruction='Think.')
  assert text.count('User:') == text.count('Assistant:') == 2
  assert text.endswith('.\nUser: Name a city.\nThink.\nAssistant:')


def test_what_only_a_judge_can_tell_needs_one(tmp_path):
  with pytest.raises(config_lib.ConfigError, match='rewards.judge.init_from'):
    _read(tmp_path, options=dict(verifier='judge'))
