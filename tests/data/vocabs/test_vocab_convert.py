"""Tests of other tokenizers as tokenizer.json."""

import json

import pytest
import sentencepiece
import tokenizers

from r1jax.data import vocabs
from r1jax.data.vocabs import convert
from r1jax.mini import corpus

import small_vocabs


def test_a_byte_level_bpe_by_hand():
  vocab_ids = {'<s>': 0, 'a': 1, 'b': 2, 'ab': 3, 'Ġ': 4, 'Ġab': 5, '<t>': 6}
  made = tokenizers.Tokenizer.from_buffer(convert.byte_level(
      vocab_ids, [('a', 'b'), ('Ġ', 'ab')], {'<s>': True, '<t>': False},
      convert.Cut(gpt2=True), '<s>'))
  assert made.encode('ab ab<t>ba').ids == [0, 3, 5, 6, 2, 1]
  assert made.encode('<s>', add_special_tokens=False).ids == [0]
  assert made.decode([0, 3, 5, 6]) == 'ab ab<t>'


def test_the_shipped_vocabulary_on_its_world():
  shipped = vocabs.load_vocab('sentencepiece', 'mini')
  with open(shipped.path, 'rb') as file:
    model = file.read()
  made = tokenizers.Tokenizer.from_buffer(
      convert.sentencepiece(model, None))
  made.encode_special_tokens = True
  for text in [*corpus.documents(300, seed=5), 'naïve 北京 ∑ ', '  <unk> \n\n']:
    ids = shipped.encode(text)
    assert made.encode(text).ids == ids
    assert made.decode(ids) == shipped.decode(ids) == text


def test_merges_are_the_best_pieces_first(sentencepiece_path):
  with open(sentencepiece_path, 'rb') as file:
    made = json.loads(convert.sentencepiece(file.read(), None))
  native = sentencepiece.SentencePieceProcessor(sentencepiece_path)
  scores = [native.get_score(native.piece_to_id(''.join(pair)))
            for pair in made['model']['merges']]
  assert len(scores) > 50 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize('settings', [
    dict(model_type='unigram', normalization_rule_name='identity',
         remove_extra_whitespaces=False, vocab_size=50),
    dict(model_type='bpe', normalization_rule_name='nmt_nfkc',
         remove_extra_whitespaces=False, vocab_size=100),
    dict(model_type='bpe', normalization_rule_name='identity',
         remove_extra_whitespaces=True, vocab_size=100)])
def test_a_model_it_cannot_equal_is_refused(tmp_path, settings):
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(small_vocabs.CORPUS), minloglevel=2,
      model_prefix=str(tmp_path / 'm'), **settings)
  with pytest.raises(
      ValueError, match='only a SentencePiece model of type BPE'):
    convert.sentencepiece((tmp_path / 'm.model').read_bytes(), None)
