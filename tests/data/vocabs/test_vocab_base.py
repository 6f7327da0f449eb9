"""Tests of the files beside a tokenizer."""

import json

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
    (dict(tokenizer={'eos_token': '<b>'}, model={'eos_token_id': 0}), [1, 0]),
    (dict(tokenizer={'eos_token': '<c>'}), [None]),
    (dict(generation={'eos_token_id': -1}, model={'eos_token_id': 1}), [1]),
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


@pytest.mark.parametrize('content', [
    b'{', b'[]', b'\xff', b'', b'{"a": ["\\ud800"]}'])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
  (tmp_path / 'generation_config.json').write_bytes(content)
  with pytest.raises(errors.ConfigError,
                     match='vocab.path: .*JSON object in .*generation_config'):
    base.read_files(tmp_path)


@pytest.mark.parametrize('name', ['tokenizer_config', 'config',
                                  'generation_config', 'special_tokens_map'])
@pytest.mark.parametrize('key, value', [
    ('eos_token', 3), ('eos_token', {}), ('bos_token', {'content': 1}),
    ('pad_token', ['a']), ('unk_token', {'content': 'a', 'lstrip': 'no'}),
    ('extra_special_tokens', 'a'), ('extra_special_tokens', {'a': 1}),
    ('additional_special_tokens', [[]]), ('add_prefix_space', 0),
    ('eos_token_id', '2'), ('eos_token_id', 2.),
    ('eos_token_id', True), ('eos_token_id', [1, None]), ('eos_token_id', {}),
    ('eos_token_id', -2), ('pad_token_id', [0]), ('bos_token_id', 'a'),
    ('add_bos_token', 'yes'), ('add_bos_token', 1),
    ('split_special_tokens', 'no'), ('chat_template', 3),
    ('chat_template', [{'name': 'default'}]), ('chat_template', ['a']),
    ('added_tokens_decoder', []), ('added_tokens_decoder', {'x': {}}),
    ('added_tokens_decoder', {'1': 'a'}), ('added_tokens_decoder', {'1': {}})])
def test_a_key_of_another_type(tmp_path, name, key, value):
  (tmp_path / f'{name}.json').write_text(json.dumps({key: value}))
  with pytest.raises(errors.ConfigError, match=f'{name}.json: expected {key}'):
    base.read_files(tmp_path)
  (tmp_path / f'{name}.json').write_text(json.dumps({key: None}))
  base.read_files(tmp_path)


def test_special_tokens_in_a_file_of_their_own(tmp_path):
  def read(special, **tokenizer):
    (tmp_path / 'special_tokens_map.json').write_text(json.dumps(special))
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(tokenizer))
    return base.read_files(tmp_path).tokens()
  special = {'eos_token': {'content': '<b>'}, 'additional_special_tokens': []}
  assert read(special, bos_token='<a>') == {
      'bos_token': '<a>', 'eos_token': '<b>'}
  assert read(special, eos_token='<b>') == {'eos_token': '<b>'}
  with pytest.raises(errors.ConfigError, match="'<a>' in tok.* and '<b>' in s"):
    read(special, eos_token='<a>')


def test_added_tokens_are_in_two_files(tmp_path):
  def read(added):
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(
        {'added_tokens_decoder': {'0': {'content': '<a>'}}}))
    (tmp_path / 'added_tokens.json').write_text(json.dumps(added))
    return base.read_files(tmp_path).added()
  assert read({'<a>': 0, '<b>': 1}) == _IDS
  with pytest.raises(errors.ConfigError, match="token 0 is '<a>'.*'<b>' in ad"):
    read({'<b>': 0})
  for value in ('0', True, -1, None):
    with pytest.raises(errors.ConfigError, match="added_tokens.json: .*'<b>'"):
      read({'<b>': value})


@pytest.mark.parametrize('name', [
    'tokenizer_config.json', 'generation_config.json', 'chat_template.jinja'])
def test_a_broken_link_is_not_taken_for_no_file(tmp_path, name):
  (tmp_path / name).symlink_to('gone')
  with pytest.raises(errors.ConfigError, match=f'expected .* in .*/{name} '):
    base.read_files(tmp_path)


def test_a_template_in_two_files(tmp_path, caplog):
  """The file of its own goes first, as in transformers; another is said."""
  def read(template):
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(
        {'chat_template': template}))
    caplog.clear()
    with caplog.at_level('WARNING'):
      found = base.read_files(tmp_path).chat_template
    return found, 'chat_template.jinja' in caplog.text
  (tmp_path / 'chat_template.jinja').write_text('{{ a }}\n')
  assert read('{{ b }}') == ('{{ a }}\n', True)
  assert read('{{ a }}') == ('{{ a }}\n', False)
  assert read([{'name': 'default', 'template': 'x'}]) == ('{{ a }}\n', True)
  (tmp_path / 'chat_template.jinja').write_bytes(b'\xff')
  with pytest.raises(errors.ConfigError, match='chat_template.jinja'):
    base.read_files(tmp_path)
