"""Tests of the files beside a tokenizer."""

import pytest

from r1jax import errors
from r1jax.data.vocabs import base

_IDS = {'<a>': 0, '<b>': 1}


def test_nothing_need_be_there(tmp_path):
  found = base.read_files(tmp_path)
  assert found == ({}, {}, {}, None)
  assert found.tokens() == {} and found.ids('eos', _IDS.get) == []


@pytest.mark.parametrize('files, ids', [
    (dict(tokenizer={'eos_token': '<b>'}), [1]),
    (dict(tokenizer={'eos_token': '<b>'}, generation={'eos_token_id': [0, 1]}),
     [1, 0]),
    (dict(generation={'eos_token_id': 7}, model={'eos_token_id': 1}), [7]),
    (dict(model={'eos_token_id': [1, 0]}), [1, 0]),
    (dict(tokenizer={'eos_token': '<c>'}), [None]),
    (dict(tokenizer={'eos_token': None}, model={'eos_token_id': None}), []),
])
def test_who_names_an_id(files, ids):
  made = base.Files(**{
      'tokenizer': {}, 'generation': {}, 'model': {}, 'chat_template': None,
      **files})
  assert made.ids('eos', _IDS.get) == ids


def test_what_is_written_is_read(tmp_path):
  files = base.Files({'eos_token': '好', 'b': 1}, {'a': [2]}, {},
                            '{% x %}\n\n好\n')
  base.write_files(tmp_path, files)
  assert base.read_files(tmp_path) == files
  assert not (tmp_path / 'config.json').exists()


@pytest.mark.parametrize('content', [b'{', b'[]', b'\xff', b''])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
  (tmp_path / 'generation_config.json').write_bytes(content)
  with pytest.raises(errors.ConfigError,
                     match='vocab.path: .*JSON object in .*generation_config'):
    base.read_files(tmp_path)
