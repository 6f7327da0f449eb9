"""Prompts with graded pieces, tokenised and laid out in rows.

The pieces are responses to a prompt, each read alone behind it
(preferences.py), or the steps of one response (steps.py).
"""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import columns
from r1jax.data import json_lines
from r1jax.data import kept
from r1jax.data import pieces
from r1jax.data import ragged
from r1jax.data import sources

Record = dict[str, Any]
Counts = Mapping[str, int]  # by reason
# Records with their pieces, of which the prompt is the first, the ids of all of
# them, and the sizes of each.
Encoded = Iterable[tuple[Record, Sequence[pieces.Piece], np.ndarray, list[int]]]


def records_of(found: Iterable[Record]) -> ragged.Records:
  """The records, held as bytes."""
  made = ragged.Builder('B')
  for record in found:
    made.add(columns.pickled(record, record['place']))
  return ragged.Records(made.built())


def files(readers: Mapping[str, Any], task: str, split: str,
          options: Mapping[str, Any]) -> list[pathlib.Path]:
  """The files that the reader of a task's source reads; none: something else.

  Arguments are as of sources.read.
  """
  kind, argument = sources.split_task(task, readers)
  sources.check_options(readers[kind], options)
  return json_lines.paths(argument, split) if kind in sources.FILES else []


def why_left_out(reasons: Mapping[str, str], counts: Counts) -> str:
  """The reasons with their counts, as text; '' if all are 0."""
  return '; '.join(f'{counts[reason]} {why}' for reason, why in reasons.items()
                   if counts.get(reason))


class Builder:
  """Takes records with the ids of their prompts and pieces, one by one."""

  def __init__(self):
    self._fields = {name: ragged.Builder(code) for name, code in (
        ('ids', 'i'), ('sizes', 'i'), ('grades', 'f'), ('records', 'B'))}

  def __len__(self) -> int:
    return len(self._fields['ids'])

  def add(self, record: Record, ids: np.ndarray, sizes: list[int],
          grades: list[float]) -> None:
    """Adds a record, the ids of its prompt and pieces, and the pieces' grades.

    `sizes` are those of the prompt and of each piece. A grade of NaN is none.
    """
    fields, record = self._fields, dict(record)
    place = record.pop('place', '')
    fields['ids'].add(ids)
    fields['sizes'].add(sizes)
    fields['grades'].add(grades)
    fields['records'].add(columns.pickled(record, place))

  def arrays(self) -> kept.Arrays:
    """All of it, to be kept, and read by `lay_out`; none is added after."""
    found = {}
    for name, field in self._fields.items():
      found |= field.arrays(name)
    return found


class Batch(NamedTuple):
  """Packed rows, the fields of types.Preferences."""
  tokens: np.ndarray  # i32[B, T]
  segment: np.ndarray  # i32[B, T], parent + 1 + k in response k
  parent: np.ndarray  # i32[B, T], (1 + s) (1 + K) in prompt s and its responses
  position: np.ndarray  # i32[B, T], continues from the prompt in each response
  end: np.ndarray  # i32[B, S, K], index in T of a response's last token
  grade: np.ndarray  # f32[B, S, K]
  real: np.ndarray  # bool[B, S, K], false where there is no such response


class Rows(NamedTuple):
  """Prompts with their responses, or steps, laid out in rows."""
  packed: batches.Packed  # a document is a prompt and its responses
  part: np.ndarray  # i32[all], of packed.tokens: 0 prompt, 1 + k response k
  position: np.ndarray  # i32[all], continues from the prompt in each response
  piece: np.ndarray  # i64[rows, S], the pieces of each row; -1: none
  end: np.ndarray  # i64[M, K], of each response's last token in its document
  grade: np.ndarray  # f32[M, K]
  real: np.ndarray  # bool[M, K]
  records: Sequence[Record]  # M
  counts: Counts  # prompts, or responses, that are left out, by reason

  @property
  def size(self) -> int:
    return len(self.piece)

  def batch(self, step: int, rows: int, seed: int) -> Batch:
    """The `rows` rows of `step`, counted from 0."""
    if rows > self.size:
      raise errors.expected(
          'preference.batch', f'at most the {self.size} rows that the '
          f'{len(self.records)} prompts fill', rows)
    return self.take(self.packed.draw(step, rows, seed))

  def take(self, row: np.ndarray) -> Batch:
    """The rows numbered `row`, i64[B]."""
    filled = self.packed.take(row)
    piece_BS = self.piece[row]
    record_BS = self.packed.document[piece_BS]
    end_BSK = self.packed.column[piece_BS][..., None] + self.end[record_BS]
    real_BSK = self.real[record_BS] & (piece_BS >= 0)[..., None]
    each = lambda values: self.packed._replace(tokens=values).take(row).tokens
    parent_BT = filled.segment * (1 + self.end.shape[1])
    return Batch(
        filled.tokens, parent_BT + each(self.part), parent_BT,
        each(self.position), np.where(real_BSK, end_BSK, 0).astype(np.int32),
        np.where(real_BSK, self.grade[record_BS], 0).astype(np.float32),
        real_BSK)

  def record(self, row: np.ndarray) -> np.ndarray:
    """The record at each place of the rows, i64[B, S]; -1: none."""
    piece_BS = self.piece[row]
    return np.where(piece_BS >= 0, self.packed.document[piece_BS], -1)


def lay_out(found: kept.Arrays, length: int, counts: Counts, *,
            apart: bool) -> Rows:
  """Puts records into rows of `length` tokens.

  Args:
    found: the arrays of a Builder.
    length: of a row; no record has more tokens.
    counts: as in Rows.
    apart: whether each piece is a segment of its own, which continues from the
      prompt, as responses do; else all are one segment, as steps are.
  """
  of = lambda name: ragged.Ragged(found[name], found[f'{name}_end'])
  documents, sizes = of('ids'), of('sizes')
  packed = batches.packed(documents, length)
  count = np.diff(packed.first)
  nth = np.arange(count.max())
  piece = np.where(nth < count[:, None], packed.first[:-1, None] + nth, -1)

  # Of each prompt (number 0) and piece: its record, number, size and start.
  record = np.repeat(np.arange(len(sizes)), sizes.length)
  number, size = ragged.count_up(sizes.length), sizes.values.astype(np.int64)
  start = np.cumsum(size) - size - documents.end[record]
  said = number > 0
  shape = len(sizes), sizes.length.max() - 1
  end, grade, real = (np.zeros(shape, dtype)
                      for dtype in (np.int64, np.float32, bool))
  place = record[said], number[said] - 1
  end[place] = (start + size - 1)[said]
  real[place] = ~np.isnan(found['grades'])
  grade[place] = np.nan_to_num(found['grades'])
  if apart:
    start = np.where(said, size[~said][record], 0)
  else:
    number = np.zeros_like(number)
  # Of all tokens: of four bytes each, where that is enough to count them.
  kind = np.int32 if size.sum() <= np.iinfo(np.int32).max else np.int64
  position = np.arange(size.sum(), dtype=kind)
  position += np.repeat((start - np.cumsum(size) + size).astype(kind), size)
  return Rows(
      packed, np.repeat(number.astype(np.int32), size),
      position.astype(np.int32, copy=False), piece, end, grade, real,
      ragged.Records(of('records')), counts)
