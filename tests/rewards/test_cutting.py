"""Responses are cut into steps, and the steps found among the tokens."""

import random

import pytest

import small_vocabs
from r1jax import errors
from r1jax.data import vocabs
from r1jax.rewards import cutting

THOUGHT = ('<think> First 1+2=3. Then 3+0=3. 再算3+8=11。 </think> '
           '<answer> 2.5 </answer>')


@pytest.mark.parametrize('how, text, steps', [
    ('sentences', THOUGHT, [
        '<think> First 1+2=3.', ' Then 3+0=3.', ' 再算3+8=11。',
        ' </think> <answer> 2.5 </answer>']),
    ('sentences', 'Is it 2.5?! Yes.', ['Is it 2.5?!', ' Yes.']),
    ('sentences', 'A. ... B', ['A. ...', ' B']),
    ('lines', 'a\n\nb\n---\nc', ['a\n\n', 'b\n---\n', 'c']),
    ('lines', '\n\na', ['\n\na']),
    ('lines', 'a. b.', ['a. b.']),
    ('paragraphs', 'a\nb\n \nc\n\n\n\nd\n', ['a\nb\n \n', 'c\n\n\n\n', 'd\n']),
    ('lines', ' \n-', []),
    ('sentences', '', []),
])
def test_the_pieces_of_a_text(how, text, steps):
  assert cutting.cut(text, how) == steps
  assert ''.join(steps) == text or not steps


def test_end_to_end_the_pieces_are_the_text():
  rng = random.Random(0)
  for _ in range(300):
    text = ''.join(rng.choices('ab1. \n。!?-', k=rng.randrange(40)))
    for how in cutting.CUTS:
      steps = cutting.cut(text, how)
      if steps:
        assert ''.join(steps) == text
        assert all(any(c.isalnum() for c in step) for step in steps)
      else:
        assert not any(c.isalnum() for c in text)


def test_no_other_way_to_cut():
  with pytest.raises(errors.ConfigError, match='lines'):
    cutting.cut('a', 'line')


def test_a_step_ends_with_the_token_that_completes_it():
  vocab = vocabs.load_vocab('sentencepiece', 'mini')
  tokens = vocab.encode(' ' + THOUGHT)
  text = vocab.decode(tokens)
  steps = cutting.cut(text, 'sentences')
  last = cutting.last_tokens(steps, tokens, vocab.decode)
  assert last == sorted(set(last)) and last[-1] == len(tokens) - 1
  for number, at in enumerate(last, 1):
    whole = ''.join(steps[:number])
    assert vocab.decode(tokens[:at + 1]).startswith(whole)
    assert not vocab.decode(tokens[:at]).startswith(whole)


def test_a_token_of_two_steps_completes_the_first():
  pieces = ['a', '.\nb', '.', '\n', 'c']
  decode = lambda ids: ''.join(pieces[i] for i in ids)
  ids = list(range(5))
  steps = cutting.cut(decode(ids), 'lines')
  assert steps == ['a.\n', 'b.\n', 'c']
  assert cutting.last_tokens(steps, ids, decode) == [1, 3, 4]


def test_half_a_character_completes_nothing():
  decode = lambda ids: bytes(ids).decode('utf-8', 'replace')
  ids = list('a。b'.encode())
  steps = cutting.cut(decode(ids), 'sentences')
  assert cutting.last_tokens(steps, ids, decode) == [3, 4]
  ids = ids[:4] + ids[1:3]  # cut within one
  steps = cutting.cut(decode(ids) + 'b', 'sentences')[:1] + ['?']
  assert cutting.last_tokens(steps, ids, decode) == [3, 5]


def _spaced(folder):
  vocab = vocabs.load_vocab('sentencepiece', small_vocabs.spaced_model(
      str(folder / 'spaced')))
  return vocab.encode, vocab.decode, vocab.size


def _byte_level(folder):
  del folder
  made = small_vocabs.tokenizer()
  return lambda text: made.encode(text).ids, made.decode, 320


def _not_local(folder):
  """Of which a later token changes what all before it give."""
  encode, decode, size = _spaced(folder)
  return encode, lambda ids: decode(ids) * (1 + (len(ids) > 150)), size


def _of_bytes(folder):
  """Of which some are no text, and more of them than are decoded before."""
  del folder
  broken = [0x80] * 18
  return lambda text: [*text.encode()[:46], *broken, *text.encode()[:47],
                       *'中'.encode(), *broken[2:], *text.encode()], (
      lambda ids: bytes(ids).decode('utf-8', 'replace')), 256


@pytest.mark.parametrize('make', [_spaced, _byte_level, _not_local, _of_bytes])
def test_beginnings_are_as_long_as_if_they_were_decoded_whole(make, tmp_path):
  """Texts of several alphabets, and tokens at random, halves of characters."""
  encode, decode, size = make(tmp_path)
  rng, said = random.Random(0), encode((' ' + THOUGHT) * 4)
  for tokens in (said, rng.choices(range(size), k=300),
                 rng.choices(range(size), k=70) + said[:150]):
    length = cutting.prefix_length(tokens, decode)
    assert [length(k) for k in range(len(tokens) + 1)] == [
        len(decode(tokens[:k]).rstrip('\ufffd'))
        for k in range(len(tokens) + 1)]


def test_what_is_decoded_grows_as_the_response():
  """Of a vocabulary that drops the space that a text begins with."""
  def decoded(lines):
    count = 0
    def decode(ids):
      nonlocal count
      count += len(ids)
      return ''.join((' a', '\n')[i] for i in ids).removeprefix(' ')
    ids = [0, 0, 0, 0, 1] * lines
    steps = cutting.cut(decode(ids), 'lines')
    assert cutting.last_tokens(steps, ids, decode) == [*range(4, len(ids), 5)]
    return count
  assert decoded(1600) < 5 * decoded(400)  # the search adds a logarithm
