"""What every kind of stage reads is compared with what other processes read."""

import json

import numpy as np
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
OTHER = {'prompt': 'What is 1 + 2?', 'response': '3', 'labels': [1, 1]}


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
  """Other rows, or other labels of the same, are other arrays."""
  checked, path = [], tmp_path / 'rows.jsonl'
  monkeypatch.setattr(distributed, 'check_rows', lambda split, arrays: (
      checked.append((split, np.concatenate([*arrays], None).tolist()))))
  config = config.unlock()
  config.update_from_flattened_dict(
      fields | {'data.task': f'jsonl:{path}', 'data.options': {}})
  for row in (ROW, ROW, ROW | OTHER):
    path.write_text(json.dumps(row) + '\n')
    read(config, vocabs.load_vocab('sentencepiece', 'mini'))
  assert checked[0] == checked[1] != checked[2]
  assert [split for split, _ in checked] == ['train'] * 3
