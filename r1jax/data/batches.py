"""Batches as functions of (seed, step): no iterator state to save.

The batch of a step is the same on every host, in every run and after every
resume. An epoch is a permutation of the items, cut into whole batches; the
remainder, less than a batch and different items each epoch, is skipped. So no
item comes twice in an epoch, and none twice in a batch, where two copies of a
prompt would share their random streams. Host side: NumPy alone.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import ragged


class PromptSet(NamedTuple):
  """All prompts of a task; a prompt's id is its index."""
  tokens: np.ndarray | ragged.Padded  # i32[M, P], right padded
  length: np.ndarray  # i32[M], 1 <= length <= P
  records: Sequence[Mapping[str, Any]]  # M
  kinds: Sequence[Mapping[str, Any]]  # one record of each task and verifier


class PromptBatch(NamedTuple):
  """The prompts of one step, in the order of types.Prompts."""
  tokens: np.ndarray  # i32[B, P]
  length: np.ndarray  # i32[B]
  id: np.ndarray  # i32[B]
  records: tuple[Mapping[str, Any], ...]  # B; fewer in slice_of


class Rows(NamedTuple):
  """Packed rows, the fields of types.LMBatch."""
  tokens: np.ndarray  # i32[B, T]
  segment: np.ndarray  # i32[B, T], 0 is padding, documents count from 1
  position: np.ndarray  # i32[B, T], restarts with each document
  weight: np.ndarray  # f32[B, T], 0 on padding and on a document's first token


def pad_right(rows: Sequence[Sequence[int]], width: int, pad_id: int = 0
              ) -> tuple[np.ndarray, np.ndarray]:
  """Token lists as one array i32[N, width], and their lengths i32[N]."""
  padded = np.full((len(rows), width), pad_id, np.int32)
  for row, ids in zip(padded, rows):
    row[:len(ids)] = ids
  return padded, np.array([len(ids) for ids in rows], np.int32)


def whole_batches(count: int, size: int) -> Iterator[np.ndarray]:
  """Yields the indices of `count` items in order, i64[size] at a time.

  The last batch is filled up with the first items, since all batches of a
  compiled function have the same size.
  """
  for start in range(0, count, size):
    yield np.arange(start, start + size) % count


def prompt_batch(prompt_set: PromptSet, step: int, prompts: int,
                 seed: int) -> PromptBatch:
  """Returns the `prompts` prompts of `step`, counted from 0."""
  if prompts > len(prompt_set.records):
    raise errors.ConfigError(
        'rl.prompts', f'expected at most the {len(prompt_set.records)} '
        f'prompts of config.data.task, received {prompts}')
  return take(prompt_set, _draw(step, prompts, len(prompt_set.records), seed))


def take(prompt_set: PromptSet, index: np.ndarray) -> PromptBatch:
  """Returns the prompts with the ids i64[B] in `index`."""
  return PromptBatch(
      prompt_set.tokens[index], prompt_set.length[index],
      index.astype(np.int32), tuple(prompt_set.records[i] for i in index))


def with_step(batch: PromptBatch, step: int) -> PromptBatch:
  """The batch with the training step in its records, for reward functions."""
  return batch._replace(
      records=tuple({**record, 'step': step} for record in batch.records))


def slice_of(prompt_set: PromptSet, start: int, prompts: int,
             order: np.ndarray | None = None) -> PromptBatch:
  """Returns `prompts` prompts in order, the first of them number `start`.

  The last batch is filled up with the first prompts, since all steps have the
  same shapes. These are sampled but have no records, so they are not scored.

  Args:
    prompt_set, start, prompts: as above.
    order: i64[M], the ids in order; None: as they are counted.
  """
  count = len(prompt_set.records)
  place = np.arange(start, start + prompts) % count
  batch = take(prompt_set, place if order is None else order[place])
  return batch._replace(records=batch.records[:count - start])


def padded_width(longest: int, least: int) -> int:
  """The first of `least`, and the powers of two above it, that has room.

  So that a jitted function is compiled for few widths of prompts.
  """
  return max(least, 1 << (longest - 1).bit_length())


def trimmed(batch: PromptBatch) -> PromptBatch:
  """The batch with less padding: 64, 128, 256, ... tokens, or as it is."""
  width = padded_width(int(batch.length.max()), least=64)
  return batch._replace(tokens=batch.tokens[:, :width])


class Packed(NamedTuple):
  """Documents laid out in rows; pieces are documents, or parts of long ones.

  The layout is made once; an epoch shuffles the rows.
  """
  tokens: np.ndarray  # i32[all], the documents end to end
  weight: np.ndarray  # f32[all], of the loss on predicting each
  seq_len: int
  first: np.ndarray  # i64[R + 1], row r holds pieces first[r] to first[r + 1]
  start: np.ndarray  # i64[pieces], into tokens
  length: np.ndarray  # i64[pieces]
  column: np.ndarray  # i64[pieces], where a piece starts in its row
  document: np.ndarray  # i64[pieces], the document that a piece is of
  counts: Mapping[str, int]  # documents, rows, split, dropped, padding

  @property
  def size(self) -> int:
    return len(self.first) - 1

  def batch(self, step: int, rows: int, seed: int) -> Rows:
    """Returns the `rows` rows of `step`, counted from 0."""
    return self.take(self.draw(step, rows, seed))

  def draw(self, step: int, rows: int, seed: int) -> np.ndarray:
    """The row numbers of a step's batch, i64[rows]."""
    if rows > self.size:
      raise errors.ConfigError(
          'lm.batch', f'expected at most the {self.size} rows '
          f'of {self.seq_len} tokens that config.data.task fills, received '
          f'{rows}')
    return _draw(step, rows, self.size, seed)

  def take(self, row: np.ndarray) -> Rows:
    """Returns the rows numbered `row`, i64[B]."""
    rows = len(row)
    pieces = self.first[row + 1] - self.first[row]
    nth = ragged.count_up(pieces)
    piece = np.repeat(self.first[row], pieces) + nth
    length = self.length[piece]
    position = ragged.count_up(length)
    begin = np.repeat(np.arange(rows) * self.seq_len, pieces)
    place = np.repeat(begin + self.column[piece], length) + position
    source = np.repeat(self.start[piece], length) + position

    def fill(values, dtype):
      filled = np.zeros(rows * self.seq_len, dtype)
      filled[place] = values
      return filled.reshape(rows, self.seq_len)

    return Rows(fill(self.tokens[source], np.int32),
                fill(np.repeat(nth + 1, length), np.int32),
                fill(position, np.int32),
                fill(self.weight[source] * (position > 0), np.float32))


def packed(documents: ragged.Ragged, seq_len: int,
           weights: ragged.Ragged | None = None) -> Packed:
  """Lays documents out in rows of `seq_len`, each wholly in one row.

  Best fit: a document goes to the row with the least space left that holds
  it. Documents are placed in shuffled order, so that a row mixes what a corpus
  keeps together. One of more than T tokens is split into pieces of T and a
  remainder, each a segment of its own, and counted; an empty one is dropped. So
  is a row that no loss depends on, such as one of remainders of one token.

  Args:
    documents: i32[n] each, ending in EOS.
    seq_len: T.
    weights: f32[n] each, of the loss on predicting a token; all 1 if None.

  Raises:
    ConfigError: there is nothing to learn from.
  """
  size, begin = documents.length, documents.end[:-1]
  kept = size > 0
  pieces = -(-size[kept] // seq_len)
  nth = ragged.count_up(pieces)
  start = np.repeat(begin[kept], pieces) + nth * seq_len
  length = np.minimum(np.repeat(size[kept], pieces) - nth * seq_len, seq_len)
  weight = (np.ones(len(documents.values), np.float32) if weights is None
            else weights.values)
  # A piece's first token is predicted from nothing.
  learned = np.zeros(len(weight) + 1, np.int64)
  np.cumsum(weight > 0, out=learned[1:])
  teaches = learned[start + length] > learned[start + 1]
  if not teaches.any():
    raise errors.ConfigError(
        'data.task', f'none of its {len(documents)} documents has a token to '
        'learn from')

  order = _permutation(0, 0, len(length))
  start, length = start[order], length[order]
  document = np.repeat(np.flatnonzero(kept), pieces)[order]
  row, column = _best_fit(length.tolist(), seq_len)
  row_teaches = np.bincount(row, teaches[order]) > 0
  kept_pieces = np.flatnonzero(row_teaches[row])
  by_row = kept_pieces[np.argsort(row[kept_pieces], kind='stable')]
  first = np.concatenate([[0], np.cumsum(np.bincount(row)[row_teaches])])
  rows = len(first) - 1
  counts = {'documents': len(documents), 'rows': rows,
            'split': int((size > seq_len).sum()),
            'dropped': int((~kept).sum()),
            'padding': int(rows * seq_len - length[by_row].sum())}
  return Packed(
      documents.values, weight, seq_len, first,
      start[by_row], length[by_row], column[by_row], document[by_row], counts)


def _best_fit(lengths: list[int], seq_len: int
              ) -> tuple[np.ndarray, np.ndarray]:
  """Returns each piece's row and column, in O(pieces * seq_len / 64).

  `spaces` has bit s set where a row with s tokens of space is open: the best
  fit for a length is the lowest set bit at or above it.
  """
  open_rows = [[] for _ in range(seq_len + 1)]
  spaces = 0
  rows, columns, made = [], [], 0
  for length in lengths:
    fitting = spaces >> length
    if fitting:
      space = length + (fitting & -fitting).bit_length() - 1
      row = open_rows[space].pop()
      if not open_rows[space]:
        spaces ^= 1 << space
    else:
      space, row, made = seq_len, made, made + 1
    rows.append(row)
    columns.append(seq_len - space)
    left = space - length
    if left:
      open_rows[left].append(row)
      spaces |= 1 << left
  return np.array(rows), np.array(columns)


def _draw(step: int, batch: int, size: int, seed: int) -> np.ndarray:
  """Returns the i64[batch] items of `step` among `size`."""
  epoch, nth = divmod(step, size // batch)
  return _permutation(seed, epoch, size)[nth * batch:(nth + 1) * batch]


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
  """Returns a permutation of `size` items, i64, that never changes.

  Philox's raw bits are the same in every NumPy release, which is not promised
  of Generator.permutation.
  """
  order = np.argsort(
      np.random.Philox(key=[seed, epoch]).random_raw(size), kind='stable')
  order.setflags(write=False)
  return order
