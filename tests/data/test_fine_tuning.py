"""Conversations as rows of fine-tuning: what is learned, what is left out."""

import json

import numpy as np
import pytest

import chat_cases
import small_vocabs
from experiments import sft
from r1jax import errors
from r1jax.data import vocabs
from r1jax.stages import lm

_ANSWERS = ['48', '48 + 24 = 72', 'Natalia sold 48 clips in April. ' * 9]


@pytest.fixture(name='config')
def _config(tmp_path):
  """SFT on three conversations, the last of them long."""
  tokenizer = small_vocabs.save(
      tmp_path / 'llama', small_vocabs.tokenizer(begin=True), tokenizer_config={
          'chat_template': chat_cases.TEMPLATES['llama3'],
          **chat_cases.TOKENS})
  (tmp_path / 'train.jsonl').write_text('\n'.join(
      json.dumps(dict(question='How many clips?', answer=answer))
      for answer in _ANSWERS))
  config = sft.get_config('smollm2').unlock()
  config.data.task = f'jsonl:{tmp_path}/train.jsonl'
  config.vocab = dict(kind='huggingface', path=tokenizer,
                      eos=small_vocabs.END)
  return config


def _rows(config, length, prompt_weight=0.):
  config.lm.update(length=length, prompt_weight=prompt_weight)
  vocab = vocabs.load_vocab(
      config.vocab.kind, config.vocab.path, config.vocab.get('eos'))
  packed = lm.read_rows(config.data, config.lm, vocab, 'train')
  return packed, packed.batch(0, len(packed.first) - 1, 0)


def test_only_what_the_assistant_says_is_learned(config):
  words = vocabs.load_vocab('huggingface', config.vocab.path, small_vocabs.END)
  _, rows = _rows(config, 512)
  learned = [words.decode(row[weight > 0])
             for segment in range(1, 4)
             for row, weight in zip(
                 rows.tokens, rows.weight * (rows.segment == segment))]
  assert sorted(text.strip() for text in learned if text) == sorted(
      answer.strip() for answer in _ANSWERS)
  _, half = _rows(config, 512, prompt_weight=0.5)
  inside = (rows.segment > 0) & (rows.position > 0)
  np.testing.assert_array_equal(
      half.weight, np.where(rows.weight > 0, 1, 0.5 * inside))


def test_long_conversations_are_left_out_and_counted(config, capsys):
  packed, _ = _rows(config, 100)
  assert packed.counts['documents'] == 2 and packed.counts['split'] == 0
  assert '1 of 3 conversations are longer' in capsys.readouterr().out
  _, rows = _rows(config, 512)
  lengths = sorted(int((rows.segment == n).sum(1).max()) for n in (1, 2, 3))
  for length, count in ((lengths[2], 3), (lengths[2] - 1, 2)):
    assert _rows(config, length)[0].counts['documents'] == count
  with pytest.raises(errors.ConfigError, match=(
      f'lm.length: expected at least {lengths[0]}, ')):
    _rows(config, lengths[0] - 1)


def test_without_a_chat_template_a_question_and_its_answer_are_framed(config):
  words = vocabs.load_vocab('sentencepiece', 'mini')
  config.data.template = 'mini'
  config.vocab = dict(kind='sentencepiece', path='mini')
  packed, rows = _rows(config, 512)
  assert packed.counts['documents'] == 3
  learned = [words.decode(rows.tokens[0][(rows.weight[0] > 0)
                                         & (rows.segment[0] == segment)])
             for segment in range(1, 4)]
  assert sorted(text.strip() for text in learned) == sorted(
      answer.strip() for answer in _ANSWERS)
  assert 'User: How many clips?\nAssistant: 48' in words.decode(rows.tokens[0])


def test_messages_of_more_than_two_turns_need_a_chat_template(config, tmp_path):
  turns = [dict(role=role, content='Hi') for role in ('user', 'assistant') * 2]
  (tmp_path / 'train.jsonl').write_text(json.dumps(dict(messages=turns)))
  config.data.template = 'mini'
  config.vocab = dict(kind='sentencepiece', path='mini')
  with pytest.raises(errors.ConfigError, match='data.template'):
    _rows(config, 100)
