"""Splash attention of packed rows: segments behind one prompt, or without.

A row's segments are documents, or responses to its prompt. A query sees the
prompt and its own segment, up to itself. Splash attention's own segments are
equal or not, while the prompt is of all of them; copies of it would be longer
than what is packed. So the kernels compute another mask from numbers of each
query, which are known with the batch, and leave out the blocks where no query
sees a key, of other segments above all.
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
  window: int | None  # tokens that a query sees

  def __call__(self, code: Array, key: Array) -> Array:
    """Whether queries see the keys in some columns, bool[...] of i32[...]."""
    column = self.prompt + jax.lax.shift_right_logical(code, _BITS)
    begin = self.prompt + (code & MAX_TOKENS - 1)
    of_prompt = key < self.prompt
    seen = (of_prompt | (key >= begin)) & (key <= column)
    if self.window is not None:
      key += jnp.where(of_prompt, begin - self.prompt, 0)
      seen &= column - key < self.window
    return seen

  def of_row(self, kernel, begin_T: Array):
    """The kernel for one row, which leaves out what none of its queries sees.

    Args:
      kernel: causal, with this mask; or a device's part of it.
      begin_T: the column of the row in which each query's segment begins.
    """
    infos, settings = kernel.tree_flatten()
    queries, keys = (getattr(settings['block_sizes'], name)
                     for name in ('block_q', 'block_kv'))
    column = infos[0].q_sequence
    window = self.window or self.prompt + MAX_TOKENS
    of_block = lambda x: self.prompt + x.reshape(-1, queries).min(1)
    first = of_block(jnp.maximum(begin_T, column + 1 - window))
    first_of_prompt = of_block(column - begin_T) + 1 - window

    def leave_out(info, query, key):
      begin, end = key * keys, (key + 1) * keys
      seen = (first[query] < end) | (
          (begin < self.prompt) & (first_of_prompt[query] < end))
      return info._replace(
          block_mask=jnp.where(seen, info.block_mask, 0),
          q_sequence=column << _BITS | begin_T)

    # `data_next` has the blocks of keys that a block of queries goes through
    # or, for the gradient of keys, the other way around.
    blocks = [info.data_next.astype(jnp.int32) for info in infos]
    query = jnp.arange(len(first))[:, None]
    key = jnp.arange(blocks[2].shape[2])
    infos = (leave_out(infos[0], query, blocks[0]),
             leave_out(infos[1], query, blocks[1]),
             leave_out(infos[2], blocks[2], key))
    return kernel.tree_unflatten(settings, infos)


def begins(segment_NT: Array) -> Array:
  """The column in which the segment of each token begins, i32[N, T]."""
  column = jnp.arange(segment_NT.shape[1], dtype=jnp.int32)
  is_first = jnp.diff(segment_NT, prepend=-1) != 0
  return jax.lax.cummax(jnp.where(is_first, column, 0), axis=1)
