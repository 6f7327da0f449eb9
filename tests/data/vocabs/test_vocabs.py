"""Tests of what all vocabularies share: ids, files, refusals."""

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import vocabs

import small_vocabs

TEXTS = ['', 'Natalia sold 48 clips.', '<think> 48 + 24 = 72 </think>\n ',
         'naïve 北京 ∑']


@pytest.mark.parametrize('text', TEXTS)
def test_text_survives(vocabulary, text):
  ids = vocabulary.encode(text)
  assert all(isinstance(i, int) and 0 <= i < vocabulary.size for i in ids)
  assert vocabulary.decode(ids) == text
  assert vocabulary.decode(np.array(ids, np.int32)) == text


def test_encode_adds_nothing(vocabulary):
  assert vocabulary.eos_id not in vocabulary.encode('Natalia')
  assert vocabulary.encode('') == []


def test_decode_leaves_out_the_end_and_ids_the_model_pads_with(vocabulary):
  ids = vocabulary.encode('72')
  ids += [vocabulary.eos_id, vocabulary.size + 5]
  assert vocabulary.decode(ids) == '72'


def test_padding_may_be_the_end(vocabulary):
  assert vocabulary.pad_id == vocabulary.eos_id


def test_the_shipped_vocabulary():
  found = vocabs.load_vocab('sentencepiece', 'mini')
  text = 'User: 12 * 34 = ?\nAssistant: <think> 408 </think>'
  assert found.decode(found.encode(text)) == text
  assert found.eos_id != found.pad_id


def test_one_token_ends_where_the_files_name_one(vocabulary):
  assert vocabulary.eos_ids == (vocabulary.eos_id,)
  assert vocabulary.decode(vocabulary.eos_ids) == ''
  assert vocabulary.tokens['eos_token'] in (small_vocabs.END, '</s>')


def _same(found, other):
  names = ('size', 'bos_id', 'eos_ids', 'pad_id', 'tokens', 'chat_template')
  return all(getattr(found, n) == getattr(other, n) for n in names) and all(
      found.encode(t) == other.encode(t)
      for t in [*TEXTS, '</s>', '<|end|>', '  two\t\tof  '])


@pytest.mark.parametrize('template', [None, '{{ bos_token }} 你好\n'])
def test_saving_and_reading_changes_nothing(vocabulary, tmp_path, template):
  vocabulary.chat_template = template
  vocabulary.save(tmp_path / 'once')
  kind = ('sentencepiece' if (tmp_path / 'once/tokenizer.model').exists()
          else 'huggingface')
  found = vocabs.load_vocab(kind, tmp_path / 'once')
  assert _same(found, vocabulary)
  found.save(tmp_path / 'twice')
  files = sorted(f.name for f in (tmp_path / 'once').iterdir())
  assert files == sorted(f.name for f in (tmp_path / 'twice').iterdir())
  for name in files:
    assert ((tmp_path / 'once' / name).read_bytes()
            == (tmp_path / 'twice' / name).read_bytes()), name
  # transformers reads the tokenizer.json, whatever stands beside it.
  assert _same(vocabs.load_vocab('huggingface', tmp_path / 'once'), vocabulary)


def test_an_end_asked_for_is_saved(tmp_path, huggingface_path):
  asked = vocabs.load_vocab('huggingface', huggingface_path, small_vocabs.BEGIN)
  assert asked.eos_ids == (1,)
  asked.save(tmp_path)
  assert _same(vocabs.load_vocab('huggingface', tmp_path), asked)


@pytest.mark.parametrize('kind, path, eos, message', [
    ('sentencepeice', 'x', None, 'vocab.kind: .*did you mean sentencepiece'),
    ('sentencepiece', None, None, "vocab.path: expected .*'mini'"),
    ('huggingface', '', None, 'vocab.path: expected'),
    ('sentencepiece', '.', None, 'vocab.path: no such.*tokenizer.model'),
    ('gguf', 'absent.gguf', None, 'vocab.path: .*no such file'),
    ('gguf', '.', None, 'vocab.path: .*no such file'),
    ('gguf', 'text', None, 'vocab.path: .*not a GGUF file'),
    ('gguf', 'mini', None, 'vocab.kind: '),
    ('gguf', 'small.gguf', '<|absent|>', 'vocab.eos: '),
    ('huggingface', 'small.gguf', None, 'vocab.path: .*Hugging Face'),
    ('sentencepiece', 'absent.model', None, 'vocab.path: no such'),
    ('huggingface', 'absent', None, 'vocab.path: no such'),
    ('huggingface', '.', None, 'vocab.path: no such.*tokenizer.json'),
    ('sentencepiece', 'text', None, 'vocab.path: .*SentencePiece.*vocab.kind'),
    ('huggingface', 'text', None, 'vocab.path: .*Hugging Face.*vocab.kind'),
    ('huggingface', 'mini', None, 'vocab.kind: '),
    ('huggingface', 'bare', None, 'vocab.eos: '),
    ('huggingface', 'bare', '<|absent|>', 'vocab.eos: '),
    ('sentencepiece', 'small.model', '<|absent|>', 'vocab.eos: '),
    ('huggingface', 'small.model', None, 'vocab.path: .*vocab.kind'),
])
def test_refusals_name_the_field(
    tmp_path, monkeypatch, sentencepiece_path, gguf_path, kind, path, eos,
    message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'text').write_text('not a vocabulary')
  (tmp_path / 'small.model').symlink_to(sentencepiece_path)
  (tmp_path / 'small.gguf').symlink_to(gguf_path)
  small_vocabs.save(tmp_path / 'bare', small_vocabs.tokenizer())
  with pytest.raises(errors.ConfigError, match=message):
    vocabs.load_vocab(kind, path, eos)
