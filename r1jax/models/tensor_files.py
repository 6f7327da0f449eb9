"""Tensors of a folder of safetensors files, mapped into memory as they are.

A file is eight bytes that give the length of a JSON header, the header
({name: dtype, shape, data_offsets}) and the data. The library of that name
writes them; it cannot read DeepSeek-V3's float8 into NumPy, and we want slices
without copies.
"""

from collections.abc import Callable, Mapping
import json
import pathlib
import struct
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from r1jax import config as config_lib

_DTYPES = {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16,
    'BF16': ml_dtypes.bfloat16, 'F8_E4M3': ml_dtypes.float8_e4m3fn,
}
_INDEX = 'model.safetensors.index.json'
_FILE = 'model.safetensors'


class Tensors(NamedTuple):
  """What a checkpoint holds, read one at a time."""
  shapes: Mapping[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


def error(path: pathlib.Path | str, problem: str) -> config_lib.ConfigError:
  return config_lib.ConfigError(f'config.init_from: {path}: {problem}')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file; ConfigError if it is not there or is none."""
  if not path.is_file():
    raise error(path.parent, f'there is no {path.name} in it; expected the '
                'folder of a Hugging Face model')
  try:
    found = json.loads(path.read_text('utf-8'))
  except (json.JSONDecodeError, UnicodeDecodeError) as problem:
    raise error(path, f'expected JSON ({problem})') from problem
  if not isinstance(found, dict):
    raise error(path, 'expected a JSON object')
  return found


def folder(path: pathlib.Path) -> Tensors:
  """The tensors of all safetensors files of a model's folder."""
  views = {}
  for file in _files(path):
    views |= _views(file)
  return Tensors({name: view.shape for name, view in views.items()},
                 views.__getitem__)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  if (path / _INDEX).exists():
    names = read_json(path / _INDEX).get('weight_map')
    if not isinstance(names, dict):
      raise error(path / _INDEX, 'expected a field weight_map')
    return [path / name for name in sorted(set(names.values()))]
  if (path / _FILE).exists():
    return [path / _FILE]
  pickles = sorted(path.glob('*.bin')) + sorted(path.glob('*.pt*'))
  if pickles:
    raise error(pickles[0], 'is a pickle, which may run code of its own when '
                f'it is read; convert it to {_FILE}')
  raise error(path, f'holds neither {_FILE} nor {_INDEX}')


def _views(path: pathlib.Path) -> dict[str, np.ndarray]:
  """{name: array on the file} of one file."""
  if not path.is_file():
    raise error(path, f'is missing; {_INDEX} names it')
  size = path.stat().st_size
  with open(path, 'rb') as file:
    length = struct.unpack('<Q', file.read(8))[0] if size > 8 else size
    if length > size - 8:
      raise error(path, 'is cut short or no safetensors file')
    try:
      header = json.loads(file.read(length))
    except ValueError as problem:
      raise error(path, 'is no safetensors file') from problem
  header.pop('__metadata__', None)
  data = np.memmap(path, np.uint8, 'r', 8 + length) if header else None
  views = {}
  for name, entry in header.items():
    begin, end = entry['data_offsets']
    if entry['dtype'] not in _DTYPES:
      raise error(path, f'{name} has the dtype {entry["dtype"]}; expected one '
                  f'of {", ".join(_DTYPES)}')
    if end > data.size:
      raise error(path, f'is cut short: {name} ends at byte {end} of '
                  f'{data.size}')
    views[name] = data[begin:end].view(
        _DTYPES[entry['dtype']]).reshape(entry['shape'])
  return views
