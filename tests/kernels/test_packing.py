"""Responses in rows: each token is in one place, after those before it."""

import jax
import numpy as np
import pytest

from r1jax.kernels import masked
from r1jax.kernels import packing

LAY_OUT = jax.jit(packing.first_fit, static_argnums=1)


def _by_hand(lengths, columns):
  """First-fit decreasing: (row, begin) of each response, rows."""
  filled, found = [], [(0, 0)] * len(lengths)
  for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
    if not lengths[i]:
      continue
    row = next((r for r, used in enumerate(filled)
                if used + lengths[i] <= columns), len(filled))
    filled += [0] * (row == len(filled))
    found[i] = row, filled[row]
    filled[row] += lengths[i]
  return found, len(filled)


@pytest.mark.parametrize('longest, columns', [(12, 12), (5, 12), (12, 40)])
def test_responses_are_laid_out_longest_first_where_there_is_room(
    longest, columns):
  lengths = np.random.default_rng(0).integers(0, longest + 1, (6, 9))
  lengths[1] = 0
  laid = LAY_OUT(lengths.astype(np.int32), columns)
  for b, row in enumerate(lengths.tolist()):
    found, rows = _by_hand(row, columns)
    assert laid.rows[b] == rows
    for i, place in enumerate(found):
      if row[i]:
        assert (laid.row[b, i], laid.begin[b, i]) == place


def test_rows_of_the_docstring():
  laid = LAY_OUT(np.int32([[5, 1, 4, 0, 3]]), 6)
  assert laid.rows.tolist() == [3]
  assert laid.row[0, [0, 1, 2, 4]].tolist() == [0, 0, 1, 2]
  assert laid.begin[0, [0, 1, 2, 4]].tolist() == [0, 5, 0, 0]


def test_columns_say_what_they_hold():
  """Of prompts of their own rows, of which some are looked at at a time."""
  columns, lengths = 7, np.int32(
      [[3, 0, 7, 2, 4], [0] * 5, [1, 1, 1, 0, 2]])
  laid = jax.device_get(LAY_OUT(lengths, columns))
  first = np.cumsum(laid.rows) - laid.rows
  row, length = (laid.row + first[:, None]).ravel(), lengths.ravel()
  start = packing.starts(row, laid.begin.ravel(), length, 6, columns)
  parts = [packing.columns_of(start[i:i + 2], length) for i in (0, 2, 4)]
  found = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  real = found.segment > 0
  assert real.sum() == length.sum()
  for n, t in zip(*np.nonzero(real)):
    i, token = found.response[n, t], found.token[n, t]
    assert row[i] == n and t == laid.begin.ravel()[i] + token
  for n in range(6):  # whole responses, numbered in order, then nothing
    segment = found.segment[n][real[n]]
    assert real[n, :segment.size].all()
    assert (np.diff(segment) >= 0).all() and set(segment) == set(
        range(1, segment.max(initial=0) + 1))
  tokens = np.asarray(packing.tokens_of(found.segment))
  np.testing.assert_array_equal(tokens[real], found.token[real])
  np.testing.assert_array_equal(
      np.asarray(packing.begins(found.segment))[real], found.token[real] == 0)


def test_totals_of_segments():
  value = np.float32([[1, 2, 4, np.nan], [8, 16, 32, 64]])
  mask = np.isfinite(value)
  segment = np.int32([[1, 1, 2, 0], [1, 2, 3, 4]])
  np.testing.assert_array_equal(
      np.asarray(masked.own_total(value, mask, segment))[mask],
      [3, 3, 4, 8, 16, 32, 64])
  np.testing.assert_array_equal(
      masked.own_total(value, mask), [[7], [120]])
