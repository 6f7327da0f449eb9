"""Safetensors files of a folder, mapped into memory without copies.

A file is eight bytes with the length of a JSON header, the header ({name:
dtype, shape, data_offsets}) and the data, in which each byte belongs to one
tensor. The library safetensors, which writes such files, cannot read
DeepSeek-V3's float8 into NumPy.
"""

from collections.abc import Callable, Mapping
import math
import os
import pathlib
import stat
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from r1jax import errors
from r1jax.data import json_object

_DTYPES = {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16,
    'BF16': ml_dtypes.bfloat16, 'F8_E4M3': ml_dtypes.float8_e4m3fn,
}
# Of what is no weight of a model: counters, positions, masks.
COUNTS = ('BOOL', 'U8', 'I8', 'U16', 'I16', 'U32', 'I32', 'U64', 'I64')
INDEX = 'model.safetensors.index.json'
FILE = 'model.safetensors'
_ENTRY = {'dtype', 'shape', 'data_offsets'}


class Tensors(NamedTuple):
  """The tensors of a checkpoint, which are read one at a time."""
  shapes: Mapping[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]
  dtypes: Mapping[str, str]  # as the file writes them


class _Stored(NamedTuple):
  """A tensor's place in a file."""
  file: pathlib.Path
  data: np.ndarray  # u8, all that follows the header
  dtype: str
  shape: tuple[int, ...]
  begin: int
  end: int


def file_error(path: pathlib.Path | str, problem: str) -> errors.ConfigError:
  """The error of a file or folder that `config.init_from` names."""
  return errors.ConfigError('init_from', f'{path}: {problem}')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    ConfigError: the file does not exist, or does not hold a JSON object.
  """
  if not os.path.lexists(path):
    raise file_error(
        path.parent, f'there is no {path.name} in it; expected the folder of a '
        'Hugging Face model')
  _check_file(path)
  try:
    return json_object.parse(path.read_bytes())
  except OSError as problem:
    raise file_error(path, f'cannot be read: {problem.strerror}') from problem
  except ValueError as problem:
    raise file_error(path, str(problem)) from problem


def _check_file(path: pathlib.Path, index: pathlib.Path | None = None) -> None:
  """Raises `ConfigError` unless a file is at a path, which `index` may name."""
  try:
    if stat.S_ISREG(path.stat().st_mode):
      return
    fault = 'is a folder or a device, no file'
  except OSError as problem:
    fault = 'is missing' if isinstance(problem, FileNotFoundError) else (
        f'cannot be read: {problem.strerror}')
    if os.path.islink(path):
      fault = (f'is a link to {os.readlink(path)}, which {fault}; download or '
               'copy the folder again, with what its links name')
  except ValueError:  # characters that no name of a file has
    fault = 'is missing'
  if index is not None:
    name = str(path.relative_to(index.parent))
    raise file_error(index, f'names {name!r:.200}, which {fault}')
  raise file_error(path, fault)


def open_folder(path: pathlib.Path) -> Tensors:
  """The tensors of all safetensors files of a model's folder.

  Raises:
    ConfigError: names the file that is missing, damaged or not what the index
      says.
  """
  stored = {}
  for file, names in files(path).items():
    held = _open_file(file)
    _check_names(file, held, names)
    stored |= held
  return Tensors({name: x.shape for name, x in stored.items()},
                 lambda name: _read(name, stored[name]),
                 {name: x.dtype for name, x in stored.items()})


def files(path: pathlib.Path) -> dict[pathlib.Path, set[str] | None]:
  """The safetensors files of a folder, and the tensors that an index names.

  Raises:
    ConfigError: one is missing, or the index is not to be read.
  """
  whole, index = path / FILE, path / INDEX
  if os.path.lexists(index):
    indexed = _indexed(index)
    if os.path.lexists(whole) and set(indexed) != {whole}:
      raise file_error(
          whole, f'stands beside {INDEX}, which names other files; '
          'transformers reads the first, other programs the second: remove the '
          'one that is not meant')
    return indexed
  if os.path.lexists(whole):
    _check_file(whole)
    return {whole: None}
  raise _no_tensors(path)


def _indexed(index: pathlib.Path) -> dict[pathlib.Path, set[str]]:
  """{file: the tensors that an index says are in it}."""
  places = read_json(index).get('weight_map')
  if not isinstance(places, dict) or not places or not all(
      isinstance(name, str) for name in places.values()):
    raise file_error(
        index, 'expected a field weight_map with the file of each tensor')
  found = {}
  for tensor, name in places.items():
    inside = pathlib.PurePath(name)
    if inside.is_absolute() or '..' in inside.parts or not inside.parts:
      raise file_error(
          index, f'expected a file in this folder for each tensor, received '
          f'{name!r:.200} for {tensor!r:.200}')
    found.setdefault(index.parent / inside, set()).add(tensor)
  for file in found:
    _check_file(file, index)
  return dict(sorted(found.items()))


def _check_names(file: pathlib.Path, held: Mapping[str, _Stored],
                 names: set[str] | None) -> None:
  """Raises unless a file holds what the index says, `names`."""
  wrong = sorted(set(held) ^ names) if names is not None else []
  if wrong:
    what = ('holds {}, which {} does not place in it' if wrong[0] in held else
            'does not hold {}, which {} places in it')
    raise file_error(file, what.format(wrong[0], INDEX) + (
        f'; {len(wrong)} tensors differ' if len(wrong) > 1 else ''))


def _no_tensors(path: pathlib.Path) -> errors.ConfigError:
  """The error of a folder that has neither an index nor the only file."""
  pickles = [file for ending in ('bin', 'pt', 'pth')
             for file in sorted(path.glob(f'*.{ending}'))]
  if pickles:
    return file_error(
        pickles[0], 'is a pickle, which may run code of its own when it is '
        f'read; convert it to {FILE}')
  others = sorted(file.name for ending in ('safetensors', 'gguf')
                  for file in path.glob(f'*.{ending}'))
  return file_error(path, f'holds neither {FILE} nor {INDEX}' + (
      f', only {", ".join(others[:3])}; a .gguf file is named itself'
      if others else ''))


def _open_file(path: pathlib.Path) -> dict[str, _Stored]:
  """{name: its place} for the tensors of one file."""
  try:
    header, begin = _header(path)
    data = np.memmap(path, np.uint8, 'r')[begin:]
    stored = {name: _stored(path, data, name, entry)
              for name, entry in header.items()}
    _check_places(stored, data.size)
  except OSError as problem:
    raise file_error(path, f'cannot be read: {problem.strerror}') from problem
  except ValueError as problem:
    raise file_error(path, str(problem)) from problem
  return stored


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
  """A file's header, and the offset of its data."""
  size = path.stat().st_size
  with open(path, 'rb') as file:
    json_object.check_fetched(file.read(100))
    file.seek(0)
    length = int.from_bytes(file.read(8), 'little')
    if length > size - 8:
      raise ValueError(f'is no safetensors file, or cut short: a header of '
                       f'{length} bytes in a file of {size}')
    try:
      header = json_object.parse(file.read(length))
    except ValueError as problem:
      raise ValueError('is no safetensors file, or has a damaged header: '
                       f'{problem}') from problem
  header.pop('__metadata__', None)
  return header, 8 + length


def _stored(path: pathlib.Path, data: np.ndarray, name: str,
            entry: Any) -> _Stored:
  whole = lambda x: isinstance(x, list) and all(
      type(i) is int and i >= 0 for i in x)  # a bool is an int, too
  if not (isinstance(entry, dict) and entry.keys() == _ENTRY
          and isinstance(entry['dtype'], str) and whole(entry['shape'])
          and whole(entry['data_offsets']) and len(entry['data_offsets']) == 2):
    raise ValueError(f'has a damaged header: expected the dtype, shape and '
                     f'data_offsets of {name}, received {entry!r:.120}')
  stored = _Stored(path, data, entry['dtype'], tuple(entry['shape']),
                   *entry['data_offsets'])
  if stored.dtype in _DTYPES:
    size = math.prod(stored.shape) * np.dtype(_DTYPES[stored.dtype]).itemsize
    if size != stored.end - stored.begin:
      raise ValueError(
          f'has a damaged header: {name} of shape {stored.shape} and dtype '
          f'{stored.dtype} at bytes {stored.begin} to {stored.end}')
  return stored


def _check_places(stored: Mapping[str, _Stored], size: int) -> None:
  """Raises unless each of the data's bytes belongs to one tensor."""
  end = 0
  for name, x in sorted(stored.items(), key=lambda item: item[1][-2:]):
    if x.begin != end or x.end < end:
      raise ValueError(
          f'has a damaged header: expected {name} to begin at byte {end}, '
          f'behind the tensor before it, received {x.begin} to {x.end}')
    end = x.end
  if end > size:
    raise ValueError(f'is cut short: its tensors have {end} bytes, of which '
                     f'{size} are there')
  if end < size:
    raise ValueError(f'has {size - end} bytes that belong to no tensor')


def _read(name: str, stored: _Stored) -> np.ndarray:
  if stored.dtype not in _DTYPES:
    raise file_error(
        stored.file, f'expected the tensor {name} to be of dtype '
        f'{", ".join(_DTYPES)}; received {stored.dtype}')
  return stored.data[stored.begin:stored.end].view(
      _DTYPES[stored.dtype]).reshape(stored.shape)
