"""Many items of differing lengths, end to end in one array.

A Python list holds an integer in some thirty bytes, an array in four: of a
million prompts of 200 tokens that is 6 GB or 0.8. The array may be a file's,
mapped into memory (kept.py).
"""

import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
import pickle
from typing import Any

import numpy as np


class Ragged:
  """M arrays, [n] each.

  Attributes:
    values: [all], the arrays end to end.
    end: i64[M + 1]; array m is values[end[m]:end[m + 1]].
    length: i64[M].
  """

  def __init__(self, values: np.ndarray, end: np.ndarray):
    self.values, self.end = values, end

  length = property(lambda self: np.diff(self.end))

  def chosen(self, which: np.ndarray) -> 'Ragged':
    """The arrays where `which`, bool[M], is true."""
    if which.all():
      return self
    length = self.length
    return Ragged(self.values[np.repeat(which, length)],
                  np.cumsum([0, *length[which]]))

  def __len__(self) -> int:
    return len(self.end) - 1

  def replaced(self, index: np.ndarray, others: 'Ragged') -> 'Ragged':
    """With `others` in the places `index`, i64[N]; all of i32."""
    items = list(self)
    for number, item in zip(index.tolist(), others):
      items[number] = item
    return joined(items)

  def __getitem__(self, index: int) -> np.ndarray:
    if not 0 <= index < len(self):
      raise IndexError(index)
    return self.values[self.end[index]:self.end[index + 1]]


class Builder:
  """Makes a Ragged of items that come one by one, of `code` i, f or B."""

  def __init__(self, code: str):
    self._values, self._end = array.array(code), array.array('q', [0])

  def __len__(self) -> int:
    return len(self._end) - 1

  def add(self, item: list[float] | np.ndarray | bytes) -> None:
    """Adds an item, an array in the dtype of `code`."""
    if isinstance(item, list):
      self._values.fromlist(item)
    else:
      self._values.frombytes(bytes(item))
    self._end.append(len(self._values))

  def built(self) -> Ragged:
    """All items; none is added after."""
    return Ragged(np.frombuffer(self._values, self._values.typecode),
                  np.frombuffer(self._end, np.int64))

  def arrays(self, name: str) -> dict[str, np.ndarray]:
    """The fields of `built`, by names."""
    made = self.built()
    return {name: made.values, f'{name}_end': made.end}


def joined(items: Iterable[list[int] | np.ndarray]) -> Ragged:
  """Items of integers, i32[n] or lists, end to end."""
  made = Builder('i')
  for item in items:
    made.add(item)
  return made.built()


def count_up(counts: np.ndarray) -> np.ndarray:
  """[2, 0, 3] -> [0, 1, 0, 1, 2]."""
  return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


class Padded:
  """Token rows as one array i32[M, width], right padded, made when asked for.
  """

  def __init__(self, rows: Ragged, width: int, pad_id: int):
    self._rows, self._pad_id = rows, pad_id
    self.shape = len(rows), width

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    """The rows numbered `index`, i64[B], as i32[B, width]."""
    padded = np.full((len(index), self.shape[1]), self._pad_id, np.int32)
    for row, number in zip(padded, index):
      ids = self._rows[int(number)]
      row[:len(ids)] = ids
    return padded


class Records(Sequence):
  """Records as bytes; each is made anew when asked for."""

  def __init__(self, pickles: Ragged):
    self._pickles = pickles

  def __len__(self) -> int:
    return len(self._pickles)

  def __getitem__(self, index: int | slice) -> Any:
    if isinstance(index, slice):
      return [self[n] for n in range(*index.indices(len(self)))]
    return pickle.loads(self._pickles[int(index)])

  def __iter__(self) -> Iterator[Mapping[str, Any]]:
    return map(self.__getitem__, range(len(self)))
