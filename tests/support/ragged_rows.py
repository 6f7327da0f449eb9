"""Arrays of differing lengths, end to end, as the data of a stage lie."""

import numpy as np

from r1jax.data import ragged


def of(items, dtype=np.int32):
  """ragged.Ragged of a list of arrays or lists."""
  return ragged.Ragged(
      np.concatenate([np.zeros(0, dtype), *items]).astype(dtype),
      np.cumsum([0, *map(len, items)]))


def of_weights(items):
  """The same in the dtype of weights."""
  return of(items, np.float32)
