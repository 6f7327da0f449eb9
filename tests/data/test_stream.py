"""Tests of decoding tokens as they come."""

import itertools
import random

import pytest

from r1jax.data import stream
from r1jax.data import vocab

import small_vocabs

_TEXTS = [
    '', 'a', ' Natalia sold 48 clips.  ', '北京你好', 'naïve ∑😀é\n',
    '👨\u200d👩\u200d👧 x', 'a\ufffdb\ufffd', '<think> 7\n\n</think> ']


def _streamed(found, chunks):
  out = stream.Stream(found)
  return [out.put(chunk) for chunk in chunks] + [out.end()]


@pytest.mark.parametrize('text', _TEXTS)
def test_joined_it_is_what_decode_gives(vocabulary, text):
  ids = vocabulary.encode(text)
  assert ''.join(_streamed(vocabulary, [[i] for i in ids])) == text
  assert ''.join(_streamed(vocabulary, [ids])) == text
  for cut in range(len(ids)):
    assert ''.join(_streamed(vocabulary, [ids[:cut], ids[cut:]])) == text
    broken = [*ids[:cut], vocabulary.eos_id, *ids[cut:]]  # maybe a character
    assert (''.join(_streamed(vocabulary, [[i] for i in broken]))
            == vocabulary.decode(broken))


def test_every_split_of_a_short_text(vocabulary):
  ids = vocabulary.encode('1 é😀')
  for size in range(len(ids)):
    for cuts in itertools.combinations(range(1, len(ids)), size):
      ends = [0, *cuts, len(ids)]
      chunks = [ids[a:b] for a, b in zip(ends, ends[1:])]
      assert ''.join(_streamed(vocabulary, chunks)) == '1 é😀'


def test_a_character_comes_with_its_last_byte(vocabulary):
  ids = vocabulary.encode('北京')
  assert len(ids) == 6  # the small vocabularies know only its bytes
  assert _streamed(vocabulary, [[i] for i in ids]) == [
      '', '', '北', '', '', '京', '']
  assert _streamed(vocabulary, [ids[:4], ids[4:]]) == ['北', '京', '']


def test_an_unfinished_character_is_told_at_the_end(vocabulary):
  for text, size in (('北', 1), ('北', 2), ('a😀', 4)):
    ids = vocabulary.encode(text)[:size]
    *before, end = _streamed(vocabulary, [[i] for i in ids])
    assert '\ufffd' not in ''.join(before)
    assert ''.join(before) + end == vocabulary.decode(ids)
    assert '\ufffd' in end


def test_bytes_that_are_no_text_do_not_stop_it(vocabulary):
  first, *_, last = vocabulary.encode('北')
  for ids in ([last], [first, first], [*vocabulary.encode('北'), first]):
    ids += vocabulary.encode('4 x')
    texts = _streamed(vocabulary, [[i] for i in ids])
    assert texts[-1] == ''
    assert ''.join(texts).endswith('\ufffd4 x')


def test_after_its_end_it_begins_anew(vocabulary):
  out = stream.Stream(vocabulary)
  assert (out.put(vocabulary.encode('4 8')) + out.end()) == '4 8'
  assert (out.put(vocabulary.encode('5 9')) + out.end()) == '5 9'


def test_spaces_where_a_vocabulary_drops_the_first(tmp_path):
  plain = vocab.load(
      'sentencepiece', small_vocabs.spaced_model(str(tmp_path / 'm')))
  plain.save(tmp_path / 'saved')
  draw = random.Random(0)
  for found in (plain, vocab.load('huggingface', str(tmp_path / 'saved'))):
    for _ in range(300):
      text = ''.join(draw.choices('a  48n\n北é', k=draw.randrange(12)))
      ids = found.encode(text)
      joined = ''.join(_streamed(found, [[i] for i in ids]))
      assert joined == found.decode(ids) == text
