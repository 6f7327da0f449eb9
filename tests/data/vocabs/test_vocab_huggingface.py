"""Tests of Hugging Face tokenizers: what the files beside them say."""

import json

import pytest
import tokenizers
import tokenizers.normalizers
import tokenizers.pre_tokenizers
import tokenizers.processors

from r1jax import errors
from r1jax.data import vocabs

import small_vocabs

_TEXT = 'Natalia sold 48 clips.'


@pytest.mark.parametrize('files, ends, pad', [
    (dict(tokenizer_config={'eos_token': {'content': '<|begin|>'}}), (1,), 1),
    (dict(generation_config={'eos_token_id': [2, 0]}), (2, 0), 2),
    (dict(config={'eos_token_id': 0, 'pad_token_id': 2}), (0,), 2),
    (dict(tokenizer_config={'eos_token': None},
          config={'eos_token_id': 1}), (1,), 1),
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          generation_config={'eos_token_id': 1, 'pad_token_id': 2}),
     (0, 1), 2),
    (dict(tokenizer_config={'eos_token': small_vocabs.BEGIN},
          generation_config={'eos_token_id': [0, 1]},
          config={'eos_token_id': 2}), (1, 0), 1),
])
def test_special_tokens_of_a_folder(tmp_path, files, ends, pad):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(), **files)
  found = vocabs.load_vocab('huggingface', path)
  assert (found.eos_ids, found.pad_id, found.bos_id) == (ends, pad, None)
  assert found.eos_id == ends[0]
  override = vocabs.load_vocab('huggingface', path, small_vocabs.BEGIN)
  assert (override.eos_id, override.eos_ids) == (1, (1,))
  assert override.tokens['eos_token'] == small_vocabs.BEGIN


@pytest.mark.parametrize('files, ends, said', [
    # The usual: more ends in generation_config.json than elsewhere.
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          generation_config={'eos_token_id': [0, 1]},
          config={'eos_token_id': 1}), (0, 1), False),
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          config={'eos_token_id': [0, 2]}), (0, 2), False),
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          generation_config={'eos_token_id': 1}), (0, 1), True),
    (dict(tokenizer_config={'eos_token': small_vocabs.END},
          config={'eos_token_id': 1}), (0, 1), True),
    (dict(generation_config={'eos_token_id': 1},
          config={'eos_token_id': 2}), (1,), True),
])
def test_files_that_name_other_ends(tmp_path, caplog, files, ends, said):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(), **files)
  with caplog.at_level('WARNING'):
    assert vocabs.load_vocab('huggingface', path).eos_ids == ends
  assert (str(tmp_path) in caplog.text) == said
  caplog.clear()
  assert vocabs.load_vocab('huggingface', path, '<|pad|>').eos_ids == (2,)
  assert not caplog.text


@pytest.mark.parametrize('files, word', [
    (dict(generation_config={'eos_token_id': [0, 320]}), 'generation_config'),
    (dict(config={'eos_token_id': 999}), 'config.json'),
    (dict(tokenizer_config={'eos_token': '<|absent|>'}), 'config.vocab.eos'),
    (dict(tokenizer_config={'added_tokens_decoder': {
        '321': {'content': '<think>'}}}), "'<think>' as token 321"),
    (dict(tokenizer_config={'added_tokens_decoder': {
        '7': {'content': small_vocabs.END}}}), 'the tokenizer as 0'),
    (dict(added_tokens={'<think>': 319}), "'<think>' as token 319")])
def test_a_token_that_the_tokenizer_does_not_hold(tmp_path, files, word):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(), **files)
  with pytest.raises(errors.ConfigError) as refusal:
    vocabs.load_vocab('huggingface', path)
  assert word in str(refusal.value) and '\n' not in str(refusal.value)


@pytest.mark.parametrize('role', ['pad', 'bos'])
@pytest.mark.parametrize('name', ['config', 'generation_config'])
@pytest.mark.parametrize('token, said', [
    (-1, False), (319, False), (320, True), (10 ** 9, True)])
def test_an_id_that_is_no_token_is_named(tmp_path, caplog, role, name, token,
                                         said):
  """Llama 1 has no padding, -1."""
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), **{name: {f'{role}_token_id': token}})
  with caplog.at_level('WARNING'):
    found = vocabs.load_vocab('huggingface', path, small_vocabs.END)
  assert (f'{role} token {token}, expected one of 320' in caplog.text) == said
  assert found.pad_id == (319 if (role, token) == ('pad', 319) else 0)
  assert found.bos_id is None


def test_tokens_that_were_added_and_are_there(tmp_path):
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), added_tokens={small_vocabs.END: 0},
      tokenizer_config={'eos_token': small_vocabs.END, 'added_tokens_decoder': {
          '1': {'content': small_vocabs.BEGIN, 'special': True}}})
  assert vocabs.load_vocab('huggingface', path).eos_ids == (0,)


def test_tokens_have_the_names_of_templates(tmp_path):
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(begin=True), tokenizer_config={
          'unk_token': {'content': '<|pad|>'}, 'cls_token': None,
          'model_max_length': 7}, config={'eos_token_id': 0})
  assert vocabs.load_vocab('huggingface', path).tokens == {
      'bos_token': small_vocabs.BEGIN, 'eos_token': small_vocabs.END,
      'unk_token': '<|pad|>'}


def test_the_file_itself_can_be_named(huggingface_path):
  folder = vocabs.load_vocab('huggingface', huggingface_path)
  file = vocabs.load_vocab('huggingface', f'{huggingface_path}/tokenizer.json')
  assert (file.eos_id, file.size) == (folder.eos_id, folder.size)


@pytest.mark.parametrize('begin', [False, True])
@pytest.mark.parametrize('asked', [{}, {'add_bos_token': None},
                                   {'add_bos_token': False},
                                   {'add_bos_token': True}])
def test_the_file_puts_a_token_before_a_text_not_the_settings(
    tmp_path, caplog, begin, asked):
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(begin), tokenizer_config={
          'eos_token': small_vocabs.END, 'bos_token': '<|pad|>', **asked})
  with caplog.at_level('WARNING'):
    found = vocabs.load_vocab('huggingface', path)
  assert found.bos_id == (1 if begin else None)
  assert not {1, 2} & set(found.encode(_TEXT))
  told = asked.get('add_bos_token')
  said = [r.getMessage() for r in caplog.records if 'add_bos' in r.getMessage()]
  assert len(said) == (told not in (None, begin))
  assert all('tokenizer.json does otherwise than add_bos_token: '
             f'{str(told).lower()} in the tokenizer_config.json' in line
             for line in said)
  found.save(tmp_path / 'saved')
  saved = json.loads((tmp_path / 'saved/tokenizer_config.json').read_text())
  assert told is None or saved['add_bos_token'] == begin


@pytest.mark.parametrize('single, bos', [
    ('$A', None), ('<|begin|> $A', 1), ('$A <|end|>', None),
    ('<|begin|> $A <|end|>', 1), ('<|end|> $A', 0), ('<|begin|> <|pad|> $A', 2)])
def test_what_a_post_processor_puts_before_a_text(tmp_path, single, bos):
  made = small_vocabs.tokenizer()
  made.post_processor = tokenizers.processors.TemplateProcessing(
      single=single, special_tokens=[
          (small_vocabs.END, 0), (small_vocabs.BEGIN, 1), ('<|pad|>', 2)])
  path = small_vocabs.save(tmp_path, made)
  if bos == 2:
    with pytest.raises(errors.ConfigError, match=r'vocab.path: .*puts 2 tokens '
                       r'before a text \(<\|begin\|> <\|pad\|>'):
      vocabs.load_vocab('huggingface', path, small_vocabs.END)
  else:
    assert vocabs.load_vocab(
        'huggingface', path, small_vocabs.END).bos_id == bos


_SPACE = '▁'


@pytest.mark.parametrize('file, prefixes', [
    (dict(pre=tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)), 0),
    (dict(pre=tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)), 1),
    (dict(pre=tokenizers.pre_tokenizers.Metaspace()), 1),
    (dict(pre=tokenizers.pre_tokenizers.Metaspace(prepend_scheme='never')), 0),
    (dict(norm=tokenizers.normalizers.Prepend(_SPACE)), 1),
    (dict(norm=tokenizers.normalizers.Replace(' ', _SPACE)), 0)])
@pytest.mark.parametrize('told', [None, False, True])
def test_a_space_before_a_text_is_the_files(
    tmp_path, caplog, file, prefixes, told):
  made = small_vocabs.tokenizer()
  made.normalizer = file.get('norm')
  made.pre_tokenizer = file.get('pre')
  path = small_vocabs.save(tmp_path, made, tokenizer_config={
      'eos_token': small_vocabs.END, 'add_prefix_space': told})
  with caplog.at_level('WARNING'):
    vocabs.load_vocab('huggingface', path)
  assert ('add_prefix_space' in caplog.text) == (told not in (None, prefixes))


def test_random_merges_are_refused(tmp_path):
  made = small_vocabs.tokenizer()
  made.model.dropout = .1
  with pytest.raises(errors.ConfigError, match='vocab.path: .*model.dropout'):
    vocabs.load_vocab('huggingface', small_vocabs.save(tmp_path, made),
                      small_vocabs.END)


def test_a_tokenizer_without_tokens_is_refused(tmp_path):
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  with pytest.raises(errors.ConfigError, match='vocab.path: .*holds no token'):
    vocabs.load_vocab('huggingface', small_vocabs.save(tmp_path, made), 'a')


def test_truncation_in_the_file_is_switched_off(tmp_path, huggingface_path):
  made = small_vocabs.tokenizer()
  made.enable_truncation(2)
  made.enable_padding(length=64)
  found = vocabs.load_vocab(
      'huggingface', small_vocabs.save(tmp_path, made), small_vocabs.END)
  whole = vocabs.load_vocab('huggingface', huggingface_path)
  assert found.encode(_TEXT) == whole.encode(_TEXT)


def test_special_tokens_in_a_text_can_be_text(tmp_path):
  path = small_vocabs.save(tmp_path, small_vocabs.tokenizer(),
                           tokenizer_config={'split_special_tokens': True})
  found = vocabs.load_vocab('huggingface', path, small_vocabs.END)
  assert found.eos_id not in found.encode(small_vocabs.END)
  assert found.decode(found.encode(small_vocabs.END)) == small_vocabs.END


def test_settings_of_others_are_saved_too(tmp_path):
  path = small_vocabs.save(tmp_path / 'a', small_vocabs.tokenizer(),
                           tokenizer_config={'eos_token': small_vocabs.END,
                                             'tokenizer_class': 'Own',
                                             'auto_map': {'a': 'own.Own'},
                                             'model_max_length': 7},
                           generation_config={'temperature': .6})
  vocabs.load_vocab('huggingface', path).save(tmp_path / 'b')
  saved = json.loads((tmp_path / 'b/tokenizer_config.json').read_text())
  assert saved == {  # the class that reads the file as it is, and decodes so
      'eos_token': small_vocabs.END, 'model_max_length': 7,
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'clean_up_tokenization_spaces': False}
  saved = json.loads((tmp_path / 'b/generation_config.json').read_text())
  assert saved == {'temperature': .6, 'eos_token_id': [0]}


@pytest.mark.parametrize('content', [
    '{}', '[]', '{"model": {}}', b'\xff', '', json.dumps({
        'model': {'type': 'BPE', 'vocab': {'a': 0}, 'merges': ['a b']}})])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content):
  content = content if isinstance(content, bytes) else content.encode()
  (tmp_path / 'tokenizer.json').write_bytes(content)
  with pytest.raises(errors.ConfigError, match='vocab.path: .*Hugging'):
    vocabs.load_vocab('huggingface', str(tmp_path), 'a')


@pytest.mark.parametrize('role', ['bos', 'pad'])
@pytest.mark.parametrize('other', [1, 2])
def test_files_that_name_other_tokens_of_a_role(tmp_path, caplog, role, other):
  path = small_vocabs.save(
      tmp_path, small_vocabs.tokenizer(), tokenizer_config={
          'eos_token': small_vocabs.END, f'{role}_token': small_vocabs.BEGIN},
      config={f'{role}_token_id': other})
  with caplog.at_level('WARNING'):
    vocabs.load_vocab('huggingface', path)
  assert (f'name different {role} tokens' in caplog.text) == (other != 1)
