"""Safetensors files of a folder, mapped into memory without copies.

A file is eight bytes with the length of a JSON header, the header ({name:
dtype, shape, data_offsets}) and the data. The library safetensors, which writes
such files, cannot read DeepSeek-V3's float8 into NumPy.
"""

from collections.abc import Callable, Mapping
import json
import math
import pathlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from r1jax import errors

_DTYPES = {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16,
    'BF16': ml_dtypes.bfloat16, 'F8_E4M3': ml_dtypes.float8_e4m3fn,
}
_INDEX = 'model.safetensors.index.json'
_FILE = 'model.safetensors'


class Tensors(NamedTuple):
  """The tensors of a checkpoint, which are read one at a time."""
  shapes: Mapping[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


def file_error(path: pathlib.Path | str, problem: str) -> errors.ConfigError:
  """The error of a file or folder that `config.init_from` names."""
  return errors.ConfigError('init_from', f'{path}: {problem}')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    ConfigError: the file does not exist, or does not hold a JSON object.
  """
  if not path.is_file():
    raise file_error(
        path.parent, f'there is no {path.name} in it; expected the folder of a '
        'Hugging Face model')
  try:
    fields = json.loads(path.read_text('utf-8'))
  except ValueError as problem:
    raise file_error(path, f'expected JSON ({problem})') from problem
  if not isinstance(fields, dict):
    raise file_error(path, 'expected a JSON object')
  return fields


def open_folder(path: pathlib.Path) -> Tensors:
  """The tensors of all safetensors files of a model's folder."""
  views = {}
  for file in _files(path):
    views |= _views(file)
  return Tensors({name: view.shape for name, view in views.items()},
                 views.__getitem__)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """The safetensors files of a folder: those of its index, or the only one."""
  if (path / _INDEX).exists():
    names = read_json(path / _INDEX).get('weight_map')
    if not isinstance(names, dict) or not names or not all(
        isinstance(name, str) for name in names.values()):
      raise file_error(
          path / _INDEX, 'expected a field weight_map with the file of each '
          'tensor')
    for name in names.values():
      if pathlib.Path(name).name != name:
        raise file_error(path / _INDEX, f'{name} is not in this folder')
    return [path / name for name in sorted(set(names.values()))]
  if (path / _FILE).exists():
    return [path / _FILE]
  pickles = [file for ending in ('bin', 'pt', 'pth')
             for file in sorted(path.glob(f'*.{ending}'))]
  if pickles:
    raise file_error(
        pickles[0], 'is a pickle, which may run code of its own when it is '
        f'read; convert it to {_FILE}')
  raise file_error(path, f'holds neither {_FILE} nor {_INDEX}')


def _views(path: pathlib.Path) -> dict[str, np.ndarray]:
  """{name: memory-mapped array} of one file."""
  if not path.is_file():
    raise file_error(path, f'is missing; {_INDEX} names it')
  try:
    header, begin = _header(path)
    data = np.memmap(path, np.uint8, 'r') if header else None
    return {name: _view(name, entry, data[begin:])
            for name, entry in header.items()}
  except (AttributeError, KeyError, TypeError, ValueError) as problem:
    raise file_error(
        path, f'not a safetensors file, or truncated: {problem}') from problem


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
  """A file's header, and the offset of its data."""
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    if length > path.stat().st_size - 8:
      raise ValueError(f'a header of {length} bytes')
    header = json.loads(file.read(length))
  header.pop('__metadata__', None)
  return header, 8 + length


def _view(name: str, entry: dict[str, Any], data: np.ndarray) -> np.ndarray:
  if str(entry['dtype']) not in _DTYPES:
    raise ValueError(f'{name} has the dtype {entry["dtype"]}; expected one of '
                     f'{", ".join(_DTYPES)}')
  dtype = np.dtype(_DTYPES[entry['dtype']])
  (begin, end), size = entry['data_offsets'], tuple(entry['shape'])
  if not 0 <= begin <= end <= data.size or min(size, default=0) < 0:
    raise ValueError(f'{name} of shape {size} at bytes {begin} to {end} of '
                     f'{data.size}')
  if math.prod(size) * dtype.itemsize != end - begin:
    raise ValueError(f'{name} of shape {size} in {end - begin} bytes')
  return data[begin:end].view(dtype).reshape(size)
