"""Prompts as stages that sample are given them."""

import pytest

from experiments import r1_zero
from r1jax import errors
from r1jax.data import vocabs
from r1jax.stages import rollouts
from r1jax.stages import scoring


def _read(tmp_path, **data):
  path = tmp_path / 'asked.jsonl'
  path.write_text('{"prompt": "Name a city.", "answer": "Paris"}\n')
  config = r1_zero.get_config('mini').unlock()
  config.data.update(dict(task=f'jsonl:{path}') | data)
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  found = rollouts.read_prompts(
      config.data, vocab, 200, split='train', count=9)
  scoring.check_judge(config.rewards, found)
  return vocab.decode(found.tokens[0, :found.length[0]].tolist())


def test_examples_and_an_instruction_reach_the_tokens(tmp_path):
  text = _read(tmp_path, shots=1, examples='mini_worked:short_en',
               instruction='Think.')
  assert text.count('User:') == text.count('Assistant:') == 2
  assert text.endswith('.\nUser: Name a city.\nThink.\nAssistant:')


def test_what_only_a_judge_can_tell_needs_one(tmp_path):
  with pytest.raises(errors.ConfigError, match='rewards.judge.init_from'):
    _read(tmp_path, options=dict(verifier='judge'))
