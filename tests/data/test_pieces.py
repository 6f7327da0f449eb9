"""Pieces of text: many are tokenised as one is, and rows keep their places."""

import json

import numpy as np
import pytest

from r1jax import errors
from r1jax.data import chat
from r1jax.data import pieces
from r1jax.data import ragged
from r1jax.data import tasks
from r1jax.data import templates
from r1jax.data import vocabs

Piece = pieces.Piece
TEXTS = ['How many', ' clips', '', '\n', '12 * 34', '\n\nclips', ' ', '中']


def _plain(found):
  return [[int(i) for i in ids] for ids in found]


def test_many_are_tokenised_as_each_alone(vocabulary):
  some = [Piece(text, follows, begin, end) for text in TEXTS
          for follows in (False, True) for begin in ((), (1,))
          for end in ((), (2, 3))]
  alone = [pieces.encode(vocabulary, [piece])[0] for piece in some]
  found = pieces.encode_all(vocabulary, some)
  assert found.values.dtype == np.int32
  assert _plain(found) == alone
  for piece, ids in zip(some, alone):
    assert all(type(i) is int for i in ids)
    if not piece.follows:
      assert ids == [*piece.begin, *vocabulary.encode(piece.text), *piece.end]


class _Merges:
  """A vocabulary of characters, in which a line break merges with an x."""

  def encode(self, text):
    return list(map(ord, text.replace('\nx', '!')))

  def encode_all(self, texts):
    return ragged.joined(map(self.encode, texts))


def test_what_merges_with_the_line_break_before_it_is_tokenised_alone():
  some = [Piece(text, True, end=(0,)) for text in ('a', 'x', '', 'xx', 'b')]
  assert _plain(pieces.encode_all(_Merges(), some)) == [
      [97, 0], [120, 0], [0], [120, 120, 0], [98, 0]]


class _InTwo(_Merges):
  """One whose line break is two ids, which a piece can end and begin with."""

  def encode(self, text):
    return list(map(ord, text.replace('\nx', '\t').replace(
        '\n', '\t\n').replace('!', '\n')))


def test_a_line_break_ends_in_its_own_piece():
  some = [Piece('x', True), Piece('!'), Piece('a', True)]
  assert _plain(pieces.encode_all(_InTwo(), some)) == [[120], [10], [97]]


@pytest.mark.parametrize('count, read', [(None, 20), (3, 6), (0, 0)])
def test_rows_are_read_as_far_as_they_are_wanted(monkeypatch, count, read):
  """Every second row is taken; the ids are those of its own row."""
  monkeypatch.setattr(pieces, '_CHUNK', 4)
  numbers, made = iter(range(20)), []
  for number, written, ids, sizes in pieces.encoded(
      _Merges(), numbers, lambda n: [Piece(str(n))] * (n % 3), made, count):
    assert len(written) == number % 3
    assert ids.tolist() == list(map(ord, str(number))) * (number % 3)
    assert sizes == [len(str(number))] * (number % 3)
    if number % 2:
      made.append(number)
  assert 20 - len(list(numbers)) == read
  assert made == list(range(1, 20, 2))[:count]


_ANSWERED = [{'role': 'user', 'content': 'How many?'},
             {'role': 'assistant', 'content': '12 clips'}]


@pytest.mark.parametrize('template', ['mini', 'chat'])
def test_conversations_are_tokenised_as_each_alone(
    vocabulary, tmp_path, monkeypatch, template):
  monkeypatch.setattr(pieces, '_CHUNK', 3)
  vocabulary.chat_template = (
      '{% for m in messages %}{{ m.role + ": " + m.content }}'
      '{% if m.role == "assistant" %}{{ eos_token }}{% endif %}\n'
      '{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}')
  talks = [[_ANSWERED[0] | {'content': f'{n} clips?'}, _ANSWERED[1],
            *(_ANSWERED * (n % 3 if template == 'chat' else 0))]
           for n in range(8)]
  path = tmp_path / 'talks.jsonl'
  path.write_text('\n'.join(json.dumps({'messages': talk}) for talk in talks))
  tokens, said = tasks.conversations(
      f'jsonl:{path}', vocabulary, template=template)
  encode = templates.pair_encoder('mini', vocabulary)
  for talk, ids, mine in zip(talks, tokens, said, strict=True):
    parts = (pieces.encode(vocabulary, chat.conversation_pieces(
        vocabulary, talk)) if template == 'chat' else
             encode(*chat.question_and_answer(talk)))
    assert ids.tolist() == sum(map(list, parts), [])
    assert mine.tolist() == [
        n % 2 for n, part in enumerate(parts) for _ in part]


def test_a_row_that_a_template_refuses_is_named_by_its_line(tmp_path):
  words = vocabs.load_vocab('sentencepiece', 'mini')
  path = tmp_path / 'talks.jsonl'
  path.write_text('\n'.join(json.dumps({'messages': _ANSWERED * times})
                            for times in (1, 1, 2, 1)))
  with pytest.raises(errors.ConfigError, match=(
      f"^config.data.template: {path}:3: expected 'chat'")):
    tasks.conversations(f'jsonl:{path}', words, template='mini')
