"""The header of a GGUF file (llama.cpp's): metadata, and tensors' offsets.

A file has a magic number, a version and two counts, then (key, type, value) of
each metadata entry, then (name, shape, type, offset) of each tensor,
little-endian. Tensor data is not read. The package `gguf` keeps a NumPy view of
every value, which takes 19 s for the tokens of Gemma 3; plain Python values
take half a second.
"""

from collections.abc import Iterable
import mmap
import pathlib
import struct
from typing import Any, NamedTuple

_MAGIC = b'GGUF'
_VERSIONS = (2, 3)
_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?',
            10: 'Q', 11: 'q', 12: 'd'}
_STRING, _ARRAY = 8, 9


class _Bytes:
  """Reads the bytes of a file in order."""

  def __init__(self, data: mmap.mmap):
    self._data, self.at = data, 0

  def take(self, layout: str) -> tuple[Any, ...]:
    values = struct.unpack_from('<' + layout, self._data, self.at)
    self.at += struct.calcsize('<' + layout)
    return values

  def string(self) -> str:
    size, = self.take('Q')
    text, = self.take(f'{size}s')
    return text.decode()

  def value(self, kind: int) -> Any:
    """Returns a value of GGUF's type `kind`; an array is a list."""
    if kind == _STRING:
      return self.string()
    if kind == _ARRAY:
      kind, size = self.take('IQ')
      if kind in _SCALARS:
        return list(self.take(f'{size}{_SCALARS[kind]}'))
      return [self.value(kind) for _ in range(size)]
    if kind not in _SCALARS:
      raise ValueError(f'a value has the unknown type {kind}')
    return self.take(_SCALARS[kind])[0]

  def stored(self) -> 'Stored':
    """Returns a tensor's entry; `begin` is counted from the first tensor."""
    axes, = self.take('I')
    *sizes, kind, begin = self.take(f'{axes}QIQ')
    return Stored(tuple(reversed(sizes)), kind, begin)


class Stored(NamedTuple):
  """A tensor's entry in the header."""
  shape: tuple[int, ...]  # as NumPy has it, the last axis contiguous
  kind: int  # of gguf.GGMLQuantizationType
  begin: int  # byte of the file


class Header(NamedTuple):
  metadata: dict[str, Any]  # {'general.architecture': 'llama', ...}
  tensors: dict[str, Stored]
  begin: int  # byte of the file from which tensors stand
  alignment: int  # of tensors, from there


def _by_name(entries: Iterable[tuple[str, Any]]) -> dict[str, Any]:
  found = {}
  for name, value in entries:
    if name in found:
      raise ValueError(f'it has {name} twice')
    found[name] = value
  return found


def read_header(path: str | pathlib.Path) -> Header:
  """Reads all that comes before the tensors' data.

  Raises:
    OSError: there is no such file.
    ValueError: says why the file is not a GGUF file.
  """
  with open(path, 'rb') as file:
    if file.read(len(_MAGIC)) != _MAGIC:
      raise ValueError(f'it does not start with {_MAGIC.decode()}')
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
      rest = _Bytes(data)
      try:
        _, version, tensors, values = rest.take('4sIQQ')
        if version not in _VERSIONS:
          raise ValueError(f'expected version 2 or 3, received {version}')
        metadata = _by_name((rest.string(), rest.value(*rest.take('I')))
                            for _ in range(values))
        stored = _by_name((rest.string(), rest.stored())
                          for _ in range(tensors))
      except struct.error as e:
        raise ValueError(f'it is cut off ({e})') from e
      except RecursionError as e:
        raise ValueError('it has arrays in arrays, too deep') from e
  alignment = metadata.get('general.alignment', 32)
  if type(alignment) is not int or alignment < 1 or alignment.bit_count() > 1:
    raise ValueError('expected general.alignment to be a power of 2, '
                     f'received {alignment!r:.80}')
  begin = rest.at + -rest.at % alignment
  return Header(metadata, {name: x._replace(begin=begin + x.begin)
                           for name, x in stored.items()}, begin, alignment)
