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

from r1jax.data.vocabs import base

Row = TypeVar('Row')
Ids = Sequence[int] | np.ndarray  # a list or i32[n], as base.Vocab.encode_all

_CHUNK = 4096  # rows that are tokenised at once
_LINE = '\n'


class Piece(NamedTuple):
  """A part of a row's text, and the ids around it."""
  text: str
  follows: bool = False  # other tokens: no space is put before it
  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()


def encode(vocab: base.Vocab, pieces: Sequence[Piece]) -> list[list[int]]:
  """Returns the ids of a few pieces."""
  return _encoded(vocab, pieces, lambda texts: list(map(vocab.encode, texts)))


def encode_all(vocab: base.Vocab, pieces: Sequence[Piece]) -> list[Ids]:
  """Returns the same ids of many pieces, on all cores."""
  return _encoded(vocab, pieces, vocab.encode_all)


def _encoded(vocab: base.Vocab, pieces: Sequence[Piece],
             encode_texts: Callable[[list[str]], list[Ids]]) -> list[Ids]:
  """The ids of each piece.

  Some tokenizers put a space before a text. So a line break, which merges with
  no letter, is put before one that follows others, and its ids, with those of
  the space, are cut off. Where it has merged, the text is tokenised alone.
  """
  line = vocab.encode(_LINE)
  found = encode_texts([
      _LINE + piece.text if piece.follows else piece.text for piece in pieces])
  merged = []
  for number, (piece, ids) in enumerate(zip(pieces, found)):
    if piece.follows and list(ids[:len(line)]) == line:
      found[number] = ids[len(line):]
    elif piece.follows:
      merged.append(number)
  if merged:
    alone = encode_texts([pieces[number].text for number in merged])
    for number, ids in zip(merged, alone):
      found[number] = ids
  return [_joined(*each) for each in zip(pieces, found)]


def _joined(piece: Piece, ids: Ids) -> Ids:
  if not (piece.begin or piece.end):
    return ids
  if isinstance(ids, list):
    return [*piece.begin, *ids, *piece.end]
  return np.concatenate([piece.begin, ids, piece.end]).astype(np.int32)


def encoded(vocab: base.Vocab, rows: Iterable[Row],
            write: Callable[[Row], Sequence[Piece]], made: Sized = (),
            count: int | None = None
            ) -> Iterator[tuple[Row, Sequence[Piece], list[Ids]]]:
  """Yields each row with its pieces and their ids.

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
               tuple[Row, Sequence[Piece], list[Ids]]]:
  """The rows of a part once its pieces are tokenised."""
  ids = iter(work.result())
  for row, pieces in zip(part, written):
    yield row, pieces, list(itertools.islice(ids, len(pieces)))
