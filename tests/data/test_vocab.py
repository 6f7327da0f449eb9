"""Tests of the vocabularies: ids, special tokens, refusals."""

import numpy as np
import pytest

from r1jax import config as config_lib
from r1jax.data import vocab

import small_vocabs

TEXTS = ['', 'Natalia sold 48 clips.', '<think> 48 + 24 = 72 </think>\n ',
         'naïve 北京 ∑']


@pytest.fixture(params=vocab.KINDS)
def loaded(request):
  path = request.getfixturevalue(f'{request.param}_path')
  return vocab.load(request.param, path)


@pytest.mark.parametrize('text', TEXTS)
def test_text_survives(loaded, text):
  ids = loaded.encode(text)
  assert all(isinstance(i, int) and 0 <= i < loaded.size for i in ids)
  assert loaded.decode(ids) == text
  assert loaded.decode(np.array(ids, np.int32)) == text


def test_encode_adds_nothing(loaded):
  assert loaded.eos_id not in loaded.encode('Natalia')
  assert loaded.encode('') == []


def test_decode_leaves_out_the_end_and_ids_the_model_pads_with(loaded):
  ids = loaded.encode('72')
  assert loaded.decode([*ids, loaded.eos_id, loaded.size + 5]) == '72'


def test_padding_may_be_the_end(loaded):
  assert loaded.pad_id == loaded.eos_id


def test_the_shipped_vocabulary():
  found = vocab.load('sentencepiece', 'mini')
  text = 'User: 12 * 34 = ?\nAssistant: <think> 408 </think>'
  assert found.decode(found.encode(text)) == text
  assert found.eos_id != found.pad_id


def test_end_of_sentencepiece_can_be_another_piece(sentencepiece_path):
  found = vocab.load('sentencepiece', sentencepiece_path, small_vocabs.END)
  assert found.decode([found.eos_id]) == small_vocabs.END
  assert found.eos_id != vocab.load('sentencepiece', sentencepiece_path).eos_id


@pytest.mark.parametrize('files, eos, pad', [
    (dict(tokenizer_config={'eos_token': {'content': '<|begin|>'}}), 1, 1),
    (dict(generation_config={'eos_token_id': [2, 0]}), 2, 2),
    (dict(config={'eos_token_id': 0, 'pad_token_id': 2}), 0, 2),
    (dict(tokenizer_config={'eos_token': None},
          config={'eos_token_id': 1}), 1, 1),
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          generation_config={'eos_token_id': 1, 'pad_token_id': 2}), 0, 2),
])
def test_special_tokens_of_a_folder(tmp_path, files, eos, pad):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(), **files)
  found = vocab.load('huggingface', path)
  assert (found.eos_id, found.pad_id, found.bos_id) == (eos, pad, None)
  override = vocab.load('huggingface', path, small_vocabs.BEGIN)
  assert override.eos_id == 1


def test_the_file_itself_can_be_named(huggingface_path):
  folder = vocab.load('huggingface', huggingface_path)
  file = vocab.load('huggingface', f'{huggingface_path}/tokenizer.json')
  assert (file.eos_id, file.size) == (folder.eos_id, folder.size)


def test_beginning_token_is_told_and_not_encoded(tmp_path):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(begin=True))
  found = vocab.load('huggingface', path, small_vocabs.END)
  assert found.bos_id == 1
  assert 1 not in found.encode('Natalia')


def test_truncation_in_the_file_is_switched_off(tmp_path, huggingface_path):
  made = small_vocabs.tokenizer()
  made.enable_truncation(2)
  made.enable_padding(length=64)
  found = vocab.load(
      'huggingface', small_vocabs.save(tmp_path, made), small_vocabs.END)
  whole = vocab.load('huggingface', huggingface_path)
  assert found.encode(TEXTS[1]) == whole.encode(TEXTS[1])


@pytest.mark.parametrize('kind, path, eos, message', [
    ('sentencepeice', 'x', None, "vocab.kind: .*did you mean 'sentencepiece'"),
    ('sentencepiece', None, None, "vocab.path: expected .*'mini'"),
    ('huggingface', '', None, 'vocab.path: expected'),
    ('sentencepiece', '.', None, 'vocab.path: .*SentencePiece'),
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
    tmp_path, monkeypatch, sentencepiece_path, kind, path, eos, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'text').write_text('not a vocabulary')
  (tmp_path / 'small.model').symlink_to(sentencepiece_path)
  small_vocabs.save(tmp_path / 'bare', small_vocabs.tokenizer())
  with pytest.raises(config_lib.ConfigError, match=message):
    vocab.load(kind, path, eos)
