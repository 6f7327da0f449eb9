"""Vocabularies of both kinds; padding is the end token in both."""

import pytest

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
