"""Splash attention of rows with segments, behind a prompt or without.

The segments are documents, or responses to the row's prompt. A query sees the
prompt and its own segment, up to itself. Splash attention's own segments are
equal or not, while the prompt is of all of them; copies of it would be longer
than what is packed. So the kernels compute another mask from numbers of each
query, which are known with the batch, and leave out the blocks where no query
sees a key, of other segments above all. Which blocks these are differs from row
to row, and a kernel has one list of them: all rows are one sequence to it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.types import Array

_BITS = 16  # of a column
MAX_TOKENS = 2 ** _BITS  # of a row, beside the prompt


class Mask(NamedTuple):
  """Which keys the queries of a row see.

  In the kernels a query is an i32, its `code`: the upper half is its column in
  the row, the lower that in which its segment begins. With a window, a prompt's
  padding is before its tokens: a segment's first token then is as far from them
  as if it followed the prompt.
  """
  prompt: int  # columns of keys before those of the row
  keys: int  # columns of all keys of a row, in whole blocks
  window: int | None  # tokens that a query sees

  def __call__(self, code: Array, key: Array) -> Array:
    """Whether queries see a block of keys, bool of i32[Q, S] or i32[S, Q]."""
    first = key[:1, :1]  # all are of one row
    key = key - (first - jax.lax.rem(first, self.keys))
    column = self.prompt + jax.lax.shift_right_logical(code, _BITS)
    begin = self.prompt + (code & MAX_TOKENS - 1)
    of_prompt = key < self.prompt
    seen = (of_prompt | (key >= begin)) & (key <= column)
    if self.window is not None:
      key += jnp.where(of_prompt, begin - self.prompt, 0)
      seen &= column - key < self.window
    return seen

  def of_rows(self, kernel, token_NT: Array):
    """The kernel for rows one after the other, without what no query sees.

    Args:
      kernel: causal, of one row and with this mask; or a device's part of it.
      token_NT: the place of each query in its segment, from 0.
    """
    infos, settings = kernel.tree_flatten()
    queries, keys = (getattr(settings['block_sizes'], name)
                     for name in ('block_q', 'block_kv'))
    column, window = infos[0].q_sequence, (
        self.window or self.prompt + MAX_TOKENS)
    begin_NT, (rows, length) = column - token_NT, token_NT.shape
    of_blocks = lambda x_NT: x_NT.reshape(rows, -1, queries).min(2)
    # The first keys that a block of queries sees, in its row and its prompt.
    first = self.prompt + of_blocks(
        jnp.maximum(begin_NT, column + 1 - window))
    first_of_prompt = self.prompt + of_blocks(token_NT) + 1 - window

    def join(info, by_key):
      # The blocks of keys that each of queries goes through, or the reverse.
      other = info.data_next[0].astype(jnp.int32)
      query, key = (other, jnp.arange(other.shape[1])) if by_key else (
          jnp.arange(len(other))[:, None], other)
      end = (key + 1) * keys
      seen = (first[:, query] < end) | (
          (end - keys < self.prompt) & (first_of_prompt[:, query] < end))
      step = length // queries if by_key else self.keys // keys
      other += step * jnp.arange(rows)[:, None, None]
      # A block that is left out has the number of the one before it: it is not
      # copied from memory either.
      other = jax.lax.cummax(
          jnp.where(seen & (info.block_mask > 0), other, 0), 1 if by_key else 2)
      line = lambda x: jnp.concatenate(x, by_key)[None]
      return info._replace(
          data_next=line(other.astype(jnp.int16)),
          block_mask=line(jnp.where(seen, info.block_mask, 0)),
          q_sequence=(column << _BITS | begin_NT).reshape(-1))

    return kernel.tree_unflatten(settings, [
        join(info, by_key) for info, by_key in zip(infos, (0, 0, 1))])
