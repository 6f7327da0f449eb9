"""Tests of SentencePiece vocabularies: control pieces, neighbours, saving."""

import json
import shutil

import pytest
import sentencepiece

from r1jax import errors
from r1jax.data import vocabs

import small_vocabs

_TEXT = 'Natalia</s> sold <|end|>48'


@pytest.fixture
def folder(tmp_path, sentencepiece_path):
  """Returns a function that puts a tokenizer_config.json beside the model."""
  def make(**settings):
    shutil.copy(sentencepiece_path, tmp_path / 'tokenizer.model')
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings))
    return vocabs.load_vocab('sentencepiece', str(tmp_path))
  return make


def test_the_end_can_be_another_piece(sentencepiece_path):
  found = vocabs.load_vocab(
      'sentencepiece', sentencepiece_path, small_vocabs.END)
  assert found.decode([found.eos_id]) == small_vocabs.END
  assert found.eos_id != vocabs.load_vocab(
      'sentencepiece', sentencepiece_path).eos_id


def test_control_pieces_are_text_to_a_model_alone(sentencepiece_path, folder):
  alone = vocabs.load_vocab('sentencepiece', sentencepiece_path)
  native = sentencepiece.SentencePieceProcessor(sentencepiece_path)
  assert alone.encode(_TEXT) == native.encode(_TEXT)
  assert alone.decode(alone.encode(_TEXT)) == _TEXT
  beside = folder(eos_token='</s>')
  first, second = _TEXT.split('</s>')
  assert beside.encode(_TEXT) == [
      *native.encode(first), alone.eos_id, *native.encode(second)]
  texts = ['48', '</s></s> ', _TEXT, '', '</s>', '<unk>4</s>']
  assert [ids.tolist() for ids in beside.encode_all(texts)] == list(
      map(beside.encode, texts))
  assert folder(split_special_tokens=True).encode(_TEXT) == alone.encode(_TEXT)


def test_neighbours_name_the_special_tokens(folder):
  found = folder(eos_token='<|end|>', bos_token='</s>', add_bos_token=True)
  assert found.tokens == {'eos_token': '<|end|>', 'bos_token': '</s>'}
  assert found.bos_id == 1
  assert folder(bos_token='</s>').bos_id is None
  with pytest.raises(errors.ConfigError, match='add_bos_token'):
    folder(bos_token='absent', add_bos_token=True)


def test_the_models_own_end_is_the_tokenizers(folder, tmp_path, caplog):
  (tmp_path / 'generation_config.json').write_text('{"eos_token_id": [1, 7]}')
  assert folder().eos_ids == (1, 7) and not caplog.text
  (tmp_path / 'generation_config.json').write_text('{"eos_token_id": 7}')
  assert folder(eos_token=None).eos_ids == (1, 7)
  assert 'generation_config.json [7]' in caplog.text
  assert folder(eos_token='<|end|>').eos_ids[1:] == (7,)


def test_a_first_space_is_each_segments(tmp_path):
  """As in Llama 2, whose prompts are <s> and a text of its own."""
  native = sentencepiece.SentencePieceProcessor(
      small_vocabs.spaced_model(str(tmp_path / 'tokenizer')))
  (tmp_path / 'tokenizer_config.json').write_text('{"bos_token": "<s>"}')
  found = vocabs.load_vocab('sentencepiece', str(tmp_path))
  for text in ('sold', ' sold', '  48\n\n clips', '北京'):
    assert found.encode(f'<s>{text}') == [1, *native.encode(text)]
    assert found.decode(native.encode(text)) == text
  found.save(tmp_path / 'saved')
  converted = vocabs.load_vocab('huggingface', str(tmp_path / 'saved'))
  for text in ('sold', ' sold', '  48\n\n clips', '北京', 'a<s> b</s>c'):
    assert converted.encode(text) == found.encode(text)
    assert converted.decode(found.encode(text)) == found.decode(
        found.encode(text))


def test_a_model_without_an_equal_tokenizer_json_is_not_saved(tmp_path):
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(small_vocabs.CORPUS), vocab_size=50,
      model_prefix=str(tmp_path / 'm'), model_type='unigram', minloglevel=2)
  found = vocabs.load_vocab('sentencepiece', str(tmp_path / 'm.model'))
  with pytest.raises(errors.ConfigError, match='vocab.path: .*type BPE'):
    found.save(tmp_path / 'saved')


def test_tokens_added_behind_the_last_are_named(folder, caplog):
  size = folder(eos_token='</s>').size
  with caplog.at_level('WARNING'):
    found = folder(eos_token='</s>', added_tokens_decoder={
        str(size): {'content': '[PAD]'}})
  assert found.size == size and f"'[PAD]' ({size})" in caplog.text
  for i, token in ((size - 1, '[PAD]'), (size, '</s>')):
    with pytest.raises(errors.ConfigError, match=f'as token {i}, the tokeniz'):
      folder(added_tokens_decoder={str(i): {'content': token}})


@pytest.mark.parametrize('named', [
    {'tokenizer_config.json': {'pad_token': '[PAD]'}},
    {'special_tokens_map.json': {'pad_token': {'content': '[PAD]'}}},
    {'generation_config.json': {'pad_token_id': 64},
     'special_tokens_map.json': {'pad_token': {'content': '[PAD]'}}}])
def test_padding_behind_the_last_is_not_renamed(
    folder, tmp_path, caplog, named):
  """As people add it to Llama 2: rows are filled with the end token."""
  size = folder(eos_token='</s>').size
  settings = {'tokenizer_config.json': {'eos_token': '</s>'},
              'added_tokens.json': {'[PAD]': size}}
  for name, values in named.items():
    values = {key: size if x == 64 else x for key, x in values.items()}
    settings[name] = settings.get(name, {}) | values
  for name, values in settings.items():
    (tmp_path / name).write_text(json.dumps(values))
  found = vocabs.load_vocab('sentencepiece', str(tmp_path))
  assert found.pad_id == found.eos_id and 'pad_token' not in found.tokens
  assert 'different' not in caplog.text and 'pad token' not in caplog.text
  found.save(tmp_path / 'saved')
  read = lambda name: json.loads((tmp_path / 'saved' / name).read_text())
  assert read('generation_config.json').get('pad_token_id') in (None, size)
  added = read('tokenizer_config.json')
  assert added['added_tokens_decoder'][str(size)]['content'] == '[PAD]'
  assert added.get('pad_token', '[PAD]') == '[PAD]'  # transformers: a text


def test_a_template_may_not_write_what_the_model_file_has_not(folder):
  size = folder(eos_token='</s>').size
  added = {str(size): {'content': '<|im_start|>'}}
  folder(added_tokens_decoder=added, chat_template='{{ messages }}')
  with pytest.raises(errors.ConfigError, match=r"'<\|im_start\|>' \(\d+\)"):
    folder(added_tokens_decoder=added, chat_template='<|im_start|>{{ x }}')
