"""Tests of special tokens that the settings beside a tokenizer.json name."""

import json

import pytest
import tokenizers

from r1jax.data import vocabs

import small_vocabs

_TOKEN = '<|turn|>'  # in the vocabulary, but not among the added tokens
_FLAGS = dict(lstrip=False, rstrip=False, single_word=False, normalized=False)


def _tokenizer(**flags):
  """One that has _TOKEN as token 2, added with these flags, if any."""
  made = json.loads(small_vocabs.tokenizer().to_str())
  made['model']['vocab'][_TOKEN] = made['model']['vocab'].pop('<|pad|>')
  made['added_tokens'] = made['added_tokens'][:2] + [
      dict(_FLAGS, id=2, content=_TOKEN) | flags] * bool(flags)
  return tokenizers.Tokenizer.from_str(json.dumps(made))


def _loaded(folder, made, eos=None, **files):
  files['tokenizer_config'] = {
      'eos_token': small_vocabs.END, **files.get('tokenizer_config', {})}
  return vocabs.load_vocab(
      'huggingface', small_vocabs.save(folder, made, **files), eos)


def _added(i=2, token=_TOKEN, **flags):
  entry = {'content': token, **_FLAGS, 'special': True, **flags}
  return {'added_tokens_decoder': {str(i): entry}}


_PLAIN = {'tokenizer_config': {}}
_NAMED = [
    {'tokenizer_config': settings} for settings in (
        {'eos_token': _TOKEN}, {'eos_token': {'content': _TOKEN}},
        {'bos_token': _TOKEN}, {'pad_token': _TOKEN}, {'unk_token': _TOKEN},
        {'image_token': _TOKEN}, {'additional_special_tokens': [_TOKEN]},
        {'extra_special_tokens': [{'content': _TOKEN}]},
        {'extra_special_tokens': {'a_token': _TOKEN}}, _added())
] + [
    {'special_tokens_map': special} for special in (
        {'additional_special_tokens': [_TOKEN]},
        {'additional_special_tokens': [{'content': _TOKEN, **_FLAGS}]},
        {'extra_special_tokens': {'a': _TOKEN}},
        {'pad_token': {'content': _TOKEN, **_FLAGS}}, {'own_token': _TOKEN})
] + [
    {'eos': _TOKEN},
    {'tokenizer_config': {'eos_token': None},
     'generation_config': {'eos_token_id': 2}}]


@pytest.mark.parametrize('files', _NAMED)
def test_it_is_one_token_that_decoding_leaves_out(tmp_path, files):
  found = _loaded(tmp_path / 'a', _tokenizer(), **files)
  text = f'48{_TOKEN}clips'
  ids = found.encode(text)
  assert ids.count(2) == 1 and found.decode(ids) == '48clips'
  found.save(tmp_path / 'b')
  saved = tokenizers.Tokenizer.from_file(str(tmp_path / 'b/tokenizer.json'))
  assert saved.encode(text).ids == ids and saved.decode(ids) == '48clips'
  again = vocabs.load_vocab('huggingface', str(tmp_path / 'b'))
  assert again.encode(text) == ids and again.tokens == found.tokens


def test_a_list_is_saved_as_transformers_reads_it(tmp_path):
  special = {'additional_special_tokens': [{'content': _TOKEN, **_FLAGS}]}
  _loaded(tmp_path / 'a', _tokenizer(), special_tokens_map=special).save(
      tmp_path / 'b')
  saved = json.loads((tmp_path / 'b/tokenizer_config.json').read_text())
  assert saved['additional_special_tokens'] == [_TOKEN]


@pytest.mark.parametrize('files', [_PLAIN, {'config': {'pad_token_id': 2}}])
def test_a_word_that_nothing_names_stays_one(tmp_path, files):
  found = _loaded(tmp_path / 'a', _tokenizer(), **files)
  assert 2 not in found.encode(_TOKEN) and 'pad_token' not in found.tokens
  assert found.decode([2]) == _TOKEN
  found.save(tmp_path / 'b')
  again = vocabs.load_vocab('huggingface', str(tmp_path / 'b'))
  assert again.encode(_TOKEN) == found.encode(_TOKEN)


_LEFT = {'special': True, 'lstrip': True}


@pytest.mark.parametrize('flags, settings, special, left', [
    ({}, _added(lstrip=True), True, True),
    (_LEFT, _added(), True, False),
    (_LEFT, {'pad_token': _TOKEN}, True, True),
    (_LEFT, {'pad_token': {'content': _TOKEN, **_FLAGS}}, True, True),
    ({}, {'pad_token': {'content': _TOKEN, 'lstrip': True}}, True, True),
    ({}, {'extra_special_tokens': [{'content': _TOKEN, **_LEFT}]}, True, True),
    ({'special': False}, {}, False, False),
    ({'special': False}, {'pad_token': _TOKEN}, True, False),
    ({'special': False}, _added(), True, False),
    ({'special': False}, {'extra_special_tokens': [_TOKEN]}, False, False),
    ({'special': False}, {'extra_special_tokens': {'a': _TOKEN}}, True, False),
    ({'special': False}, {'image_token': _TOKEN}, True, False),
    ({'special': True}, _added(special=False), True, False),
    ({}, _added(special=False), False, False),
    ({}, _added(special=False) | {'pad_token': _TOKEN}, True, False),
])
def test_whose_flags_go_first(tmp_path, flags, settings, special, left):
  """As in transformers 5.24, flag by flag."""
  found = _loaded(tmp_path / 'a', _tokenizer(**flags),
                  tokenizer_config=settings)
  found.save(tmp_path / 'b')
  for same in (found, vocabs.load_vocab('huggingface', tmp_path / 'b')):
    assert (same.decode([2]) == '') == special
    assert (same.encode(f' {_TOKEN}') == [2]) == left


@pytest.mark.parametrize('flags, special', [
    ({'special': True, 'lstrip': True}, True), ({}, False)])
def test_added_tokens_json_gives_no_flags(tmp_path, flags, special):
  found = _loaded(tmp_path, _tokenizer(**flags), added_tokens={_TOKEN: 2})
  assert found.encode(_TOKEN) == [2] and (found.decode([2]) == '') == special
  assert (found.encode(f' {_TOKEN}') == [2]) == special


@pytest.mark.parametrize('files', [
    {'tokenizer_config': _added(320, '<new>')}, {'added_tokens': {'<new>': 320}}])
def test_a_token_may_follow_the_last(tmp_path, files):
  found = _loaded(tmp_path, _tokenizer(), **files)
  assert found.size == 321 and found.encode('<new>') == [320]


def test_a_special_token_that_is_not_there_is_said(tmp_path, caplog):
  with caplog.at_level('WARNING'):
    found = _loaded(tmp_path, _tokenizer(), tokenizer_config={
        'pad_token': '[PAD]', 'extra_special_tokens': ['<new>']})
  assert found.size == 320 and "'[PAD]', '<new>'" in caplog.text
