"""Texts on their way to tokens, in pieces that are tokenised on their own.

What is learned from is tokenised as it is sampled: a prompt as a text begins,
and what is said to it as it follows. Many rows are tokenised at once, on all
cores, while the next are read.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent import futures
import itertools
from typing import NamedTuple, TypeVar

import numpy as np

from r1jax.data import ragged
from r1jax.data.vocabs import base

Row = TypeVar('Row')

_CHUNK = 1024  # rows that are tokenised at once
_LINE = '\n'


class Piece(NamedTuple):
  """A part of a row's text, and the ids around it."""
  text: str
  follows: bool = False  # other tokens: no space is put before it
  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()


def encode(vocab: base.Vocab, pieces: Sequence[Piece]) -> list[list[int]]:
  """Returns the ids of a few pieces."""
  found = _encoded(vocab, pieces, lambda texts: ragged.joined(
      map(vocab.encode, texts)))
  return [ids.tolist() for ids in found]


def encode_all(vocab: base.Vocab, pieces: Sequence[Piece]) -> ragged.Ragged:
  """Returns the same ids of many pieces, i32[n] each, on all cores."""
  return _encoded(vocab, pieces, vocab.encode_all)


def _encoded(vocab: base.Vocab, pieces: Sequence[Piece],
             encode_texts: Callable[[list[str]], ragged.Ragged]
             ) -> ragged.Ragged:
  """The ids of each piece.

  Some tokenizers put a space before a text. So a line break, which merges with
  no letter, is put before one that follows others, and its ids, with those of
  the space, are cut off. Where it has merged, the text is tokenised alone.
  """
  line = np.array(vocab.encode(_LINE), np.int32)
  found = encode_texts([
      _LINE + piece.text if piece.follows else piece.text for piece in pieces])
  follows = np.array([piece.follows for piece in pieces], bool)
  first = found.end[:-1, None] + np.arange(len(line))
  cut = follows & (found.length >= len(line)) & (
      np.append(found.values, line)[first] == line).all(1)
  found = ragged.Ragged(
      np.delete(found.values, first[cut]),
      found.end - np.cumsum([0, *cut]) * len(line))
  if not cut[follows].all():
    alone = np.flatnonzero(follows & ~cut)
    found = found.replaced(
        alone, encode_texts([pieces[number].text for number in alone]))
  around = [ids for piece in pieces for ids in (piece.begin, piece.end)]
  added = np.array([len(ids) for ids in around], int)
  bounds = np.stack([found.end[:-1], found.end[1:]], 1)
  return ragged.Ragged(
      np.insert(found.values, np.repeat(bounds.ravel(), added),
                [*itertools.chain.from_iterable(around)]),
      found.end + np.cumsum([0, *added])[::2])


def encoded(vocab: base.Vocab, rows: Iterable[Row],
            write: Callable[[Row], Sequence[Piece]], made: Sized = (),
            count: int | None = None) -> Iterator[
                tuple[Row, Sequence[Piece], np.ndarray, list[int]]]:
  """Yields each row with its pieces, their ids, end to end, and their sizes.

  Args:
    vocab: of the ids.
    rows: the next ones are read while these are tokenised, unless it is open
      whether they are wanted.
    write: row -> its pieces.
    made: to which the caller adds what it takes of the rows.
    count: how many it is to have; no rows are read once it does. None: all.
  """
  rows, waiting = iter(rows), collections.deque()
  with futures.ThreadPoolExecutor(1) as pool:
    while part := list(itertools.islice(rows, _CHUNK if count is None else
                                        min(_CHUNK, count - len(made)))):
      written = list(map(write, part))
      waiting.append((part, written, pool.submit(
          encode_all, vocab, list(itertools.chain.from_iterable(written)))))
      if len(waiting) > (count is None):
        yield from _ready(*waiting.popleft())
    for each in waiting:
      yield from _ready(*each)


def _ready(part: list[Row], written: list[Sequence[Piece]],
           work: futures.Future) -> Iterator[
               tuple[Row, Sequence[Piece], np.ndarray, list[int]]]:
  """The rows of a part once its pieces are tokenised."""
  found, last = work.result(), 0
  end, size = found.end.tolist(), found.length.tolist()
  for row, pieces in zip(part, written):
    first, last = last, last + len(pieces)
    yield row, pieces, found.values[end[first]:end[last]], size[first:last]
