"""Whole responses packed into rows of a fixed number of columns.

Responses end long before the longest may. A pass over a row for each of them
computes mostly padding; rows that several responses share hold little of it
(sequence packing, Krell et al., arXiv 2107.02027). Responses in a row have the
same prompt, and each is a segment of the row, 1, 2, ... from its beginning; 0
is the padding after the last.

In this module b prompts are on a device, with g responses to each.
"""

from typing import NamedTuple

from jax import lax
import jax.numpy as jnp

from r1jax.types import Array


class Layout(NamedTuple):
  """Where each response is."""
  row: Array  # i32[b, g], among the rows of its prompt
  begin: Array  # i32[b, g], its first column
  rows: Array  # i32[b], how many rows each prompt's responses take


class Columns(NamedTuple):
  """What is in each column of some rows."""
  response: Array  # i32[n, C], its number; meaningless where there is none
  token: Array  # i32[n, C], the column's token in the response
  segment: Array  # i32[n, C], 0: nothing


def first_fit(length_bg: Array, columns: int) -> Layout:
  """Packs the responses to each prompt, longest first, where there is room.

  First-fit decreasing takes at most 11/9 of the fewest rows possible, and
  2/3 of a row (Dosa, 2007). Lengths 5, 1, 4, 0, 3 in rows of 6 columns take
  three: 5 1 | 4 | 3. Empty responses take no row.

  Args:
    length_bg: i32, of each response, at most `columns`.
    columns: C, of a row.
  """
  prompts, group = length_bg.shape
  order_bg = jnp.argsort(-length_bg, axis=1, stable=True)
  each = jnp.arange(prompts)

  def place(filled_br, response_b):
    length_b = length_bg[each, response_b]
    row_b = jnp.argmax(filled_br + length_b[:, None] <= columns, 1)
    begin_b = filled_br[each, row_b]
    return filled_br.at[each, row_b].add(length_b), (row_b, begin_b)

  filled_br, found = lax.scan(
      place, jnp.zeros((prompts, group), jnp.int32), order_bg.T)
  row_bg, begin_bg = (
      jnp.zeros_like(length_bg).at[each[:, None], order_bg].set(x.T)
      for x in found)
  return Layout(row_bg, begin_bg, jnp.sum(filled_br > 0, 1, dtype=jnp.int32))


def starts(row_n: Array, begin_n: Array, length_n: Array, rows: int,
           columns: int) -> Array:
  """Marks the first columns of responses by their numbers, from 1: i32[n, C].

  Args:
    row_n, begin_n, length_n: of each response, i32.
    rows, columns: n and C, of the result.
  """
  row_n = jnp.where(length_n > 0, row_n, rows)  # out of bounds: dropped
  return jnp.zeros((rows, columns), jnp.int32).at[row_n, begin_n].set(
      1 + jnp.arange(len(row_n)), mode='drop')


def columns_of(start_nC: Array, length_n: Array) -> Columns:
  """What is in the columns of rows, some of those of `starts`."""
  column = jnp.arange(start_nC.shape[1])
  begin_nC = lax.cummax(jnp.where(start_nC > 0, column, 0), 1)
  response_nC = jnp.take_along_axis(start_nC, begin_nC, 1) - 1
  token_nC = column - begin_nC
  real_nC = token_nC < jnp.take(length_n, response_nC, mode='clip')
  return Columns(response_nC, token_nC, jnp.where(
      real_nC, jnp.cumsum(start_nC > 0, 1, dtype=jnp.int32), 0))


def tokens_of(segment_NR: Array) -> Array:
  """The place of each column in its segment, from 0: i32[N, R]."""
  column = jnp.arange(segment_NR.shape[1])
  return column - lax.cummax(jnp.where(begins(segment_NR), column, 0), 1)


def begins(segment_NR: Array) -> Array:
  """Which columns are the first of their segment, bool[N, R]."""
  before_NR = jnp.pad(
      segment_NR[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  return segment_NR != before_NR
