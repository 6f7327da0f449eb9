"""Vocabularies of all kinds; padding is the end token in each."""

import pytest

from r1jax.data import vocabs

import small_vocabs


@pytest.fixture(scope='session')
def sentencepiece_path(tmp_path_factory):
  return small_vocabs.sentencepiece_model(
      str(tmp_path_factory.mktemp('spm') / 'small'))


@pytest.fixture(scope='session')
def huggingface_path(tmp_path_factory):
  return small_vocabs.save(
      tmp_path_factory.mktemp('hf'), small_vocabs.tokenizer(),
      tokenizer_config={'eos_token': small_vocabs.END,
                        'pad_token': small_vocabs.END})


@pytest.fixture(scope='session')
def gguf_path(tmp_path_factory):
  return small_vocabs.gguf_file(
      tmp_path_factory.mktemp('gguf') / 'small.gguf',
      small_vocabs.byte_level_fields())


@pytest.fixture(scope='session')
def gguf_sentencepiece_path(tmp_path_factory, sentencepiece_path):
  return small_vocabs.gguf_file(
      tmp_path_factory.mktemp('gguf') / 'small.gguf',
      small_vocabs.sentencepiece_fields(sentencepiece_path))


@pytest.fixture(params=['sentencepiece', 'huggingface', 'gguf',
                        'gguf_sentencepiece'])
def vocabulary(request):
  path = request.getfixturevalue(f'{request.param}_path')
  return vocabs.load_vocab(request.param.partition('_')[0], path)
