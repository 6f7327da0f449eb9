"""Preferences packed into rows, so that no time goes into padding.

Records of preferences.py enter; batches as functions of (seed, step) leave.
All responses to a prompt share a row, one behind the other, and the prompt
stands before them once: all pairs of a prompt are in one batch element, as
InstructGPT has it (arXiv 2203.02155, 3.5), whatever the micro-batch.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from r1jax import config as config_lib
from r1jax.data import batches
from r1jax.data import preferences
from r1jax.data import templates


class Batch(NamedTuple):
  """Packed rows, the fields of types.Preferences."""
  tokens: np.ndarray  # i32[B, T]
  segment: np.ndarray  # i32[B, T], parent + 1 + k in response k
  parent: np.ndarray  # i32[B, T], (1 + s) (1 + K) in prompt s and its responses
  position: np.ndarray  # i32[B, T], goes on from the prompt in each response
  end: np.ndarray  # i32[B, S, K], where in T a response's last token stands
  answer: np.ndarray  # bool[B, T], true on responses, false on prompts
  grade: np.ndarray  # f32[B, S, K]
  real: np.ndarray  # bool[B, S, K], false where there is no such response


class Rows(NamedTuple):
  """Prompts with their responses, laid out in rows."""
  packed: batches.Packed  # a document is a prompt and its responses
  part: np.ndarray  # i32[all], as packed.tokens: 0 the prompt, then responses
  position: np.ndarray  # i32[all], goes on from the prompt in each response
  piece: np.ndarray  # i64[rows, S], the pieces of each row, -1: fewer
  end: np.ndarray  # i64[M, K], of each response's last token in its document
  grade: np.ndarray  # f32[M, K]
  real: np.ndarray  # bool[M, K]
  records: Sequence[preferences.Record]  # M
  counts: Mapping[str, int]  # prompts, too_long

  @property
  def size(self) -> int:
    return len(self.piece)

  def batch(self, step: int, rows: int, seed: int) -> Batch:
    """The `rows` rows of `step`, counted from 0."""
    if rows > self.size:
      raise config_lib.error(
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
    part_BT = each(self.part)
    parent_BT = filled.segment * (1 + self.end.shape[1])
    return Batch(
        filled.tokens, parent_BT + part_BT, parent_BT, each(self.position),
        np.where(real_BSK, end_BSK, 0).astype(np.int32), part_BT > 0,
        np.where(real_BSK, self.grade[record_BS], 0).astype(np.float32),
        real_BSK)

  def record(self, row: np.ndarray) -> np.ndarray:
    """Which record stands at each place of the rows, i64[B, S]; -1: none."""
    piece_BS = self.piece[row]
    return np.where(piece_BS >= 0, self.packed.document[piece_BS], -1)


def make(records: Sequence[preferences.Record], encode: templates.Encode,
         length: int, max_len: int | None = None, count: int | None = None
        ) -> Rows:
  """Lays records out in rows of `length` tokens.

  A prompt whose responses fill more than a row is left out and counted, and
  one with a response longer than `max_len`, the model's longest sequence.
  With a `count`, those behind the first so many that fit are not looked at.

  Raises:
    ConfigError: none is left.
  """
  documents, parts, positions, ends, kept = [], [], [], [], []
  shortest, too_long = None, 0
  for record in records:
    if len(kept) == count:
      break
    prompts, answers = zip(*(
        encode(record['prompt'], text) for text in record['responses']))
    prompt, sizes = prompts[0], np.array([len(tokens) for tokens in answers])
    size = len(prompt) + sizes.sum()
    shortest = min(size, shortest or size)
    if size <= length and len(prompt) + sizes.max() <= (max_len or length):
      documents.append(sum(answers, list(prompt)))
      parts.append(np.repeat(np.arange(1 + len(sizes)), [len(prompt), *sizes]))
      positions += [np.arange(len(prompt)), *(
          len(prompt) + np.arange(n) for n in sizes)]
      ends.append(len(prompt) + np.cumsum(sizes) - 1)
      kept.append(record)
    else:
      too_long += 1
  if not kept:
    raise config_lib.error(
        'preference.length', f'at least {shortest}, the tokens of the '
        'shortest prompt with its responses', length)
  packed = batches.packed(documents, length)
  count = np.diff(packed.first)
  nth = np.arange(count.max())
  piece = np.where(nth < count[:, None], packed.first[:-1, None] + nth, -1)
  width = max(map(len, ends))
  pad = lambda rows, dtype: np.array(
      [list(row) + [0] * (width - len(row)) for row in rows], dtype)
  flat = lambda parts: np.concatenate(parts).astype(np.int32)
  return Rows(packed, flat(parts), flat(positions), piece, pad(ends, np.int64),
              pad([record['grades'] for record in kept], np.float32),
              pad([[True] * len(end) for end in ends], bool), kept,
              {'prompts': len(kept), 'too_long': too_long})
