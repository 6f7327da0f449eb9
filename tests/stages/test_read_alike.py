"""What every kind of stage reads is compared with what other processes read."""

import json

import pytest

from experiments import r1_zero
from experiments import reward_model
from experiments import sft
from r1jax.data import vocabs
from r1jax.parallel import distributed
from r1jax.stages import lm
from r1jax.stages import preference
from r1jax.stages import rollouts

ROW = {'prompt': 'What is 1 + 1?', 'answer': '2', 'response': '2',
       'chosen': '2', 'rejected': '3', 'steps': ['1', '2'], 'labels': [1, 0]}


def _lm(config, vocab):
  return lm.read_rows(config.data, config.lm, vocab, 'train')


def _prompts(config, vocab):
  return rollouts.read_prompts(config.data, vocab, 64, split='train', count=1)


def _preferences(config, vocab):
  return preference.read_rows(config, vocab, 256, 'train')


@pytest.mark.parametrize('config, read, fields', [
    (sft.mini(), _lm, {}), (r1_zero.mini(), _prompts, {}),
    (reward_model.mini(), _preferences, {}),
    (reward_model.mini(), _preferences, {'preference.loss': 'stepwise'})])
def test_what_is_read_is_compared(tmp_path, monkeypatch, config, read, fields):
  path, checked = tmp_path / 'rows.jsonl', []
  path.write_text(json.dumps(ROW) + '\n')
  monkeypatch.setattr(distributed, 'check_rows',
                      lambda *given: checked.append(given))
  config = config.unlock()
  config.update_from_flattened_dict(
      fields | {'data.task': f'jsonl:{path}', 'data.options': {}})
  rows = read(config, vocabs.load_vocab('sentencepiece', 'mini'))
  (split, seen), = checked
  assert split == 'train' and seen is rows
