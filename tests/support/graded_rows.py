"""Records tokenised one by one by a function, and laid out in rows."""

import numpy as np

from r1jax import errors
from r1jax.data import graded
from r1jax.data import preferences
from r1jax.data import steps as steps_lib


def responses(records, encode, length, max_len=None):
  """graded.Rows of preferences; `encode` is (prompt, response) -> their ids."""
  def encoded():
    for record in records:
      with errors.at(record.get('place', '')):
        pairs = [encode(record['prompt'], text) for text in record['responses']]
      yield _row(record, [pairs[0][0], *(said for _, said in pairs)])
  return _rows(preferences, encoded(), length, max_len)


def steps(records, encode, length, max_len=None):
  """graded.Rows of steps; `encode` is (prompt, steps) -> their ids."""
  def encoded():
    for record in records:
      asked, said = encode(record['prompt'], record['steps'])
      yield _row(record, [asked, *said])
  return _rows(steps_lib, encoded(), length, max_len)


def _row(record, parts):
  return (record, (), np.concatenate(parts).astype(np.int32),
          list(map(len, parts)))


def _rows(source, encoded, length, max_len):
  made = graded.Builder()
  counts = source.take(encoded, made, length, max_len)
  return graded.lay_out(
      made.arrays(), length, counts, apart=source is preferences)
