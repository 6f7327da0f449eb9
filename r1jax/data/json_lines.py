"""JSONL files: their rows, each with its file and line for errors."""

import gzip
import json
import pathlib
import re
from typing import Any
import zlib

from r1jax import errors
from r1jax.data import splits


def read_rows(argument: str, split: str) -> list[tuple[str, dict[str, Any]]]:
  """Lists (place, object) of a JSONL file, gzipped or not.

  A '*' in its name selects several files, in the order of their names;
  '{split}' in its path is replaced by the split's name. A split may be a part
  of one, 'train[:1800]' or 'train[1800:]', as in TFDS.
  """
  name, part = _part(split)
  path = pathlib.Path(argument.replace('{split}', name))
  if '{split}' not in argument and name != 'train':
    raise errors.ConfigError(
        splits.FIELD, f'jsonl:{argument} is one file, of split '
        f"'train'; received {split!r}; write '{{split}}' in the path to name "
        "a file of each split, or 'train[1800:]' for a part of it")
  paths = sorted(path.parent.glob(path.name)) if '*' in path.name else [path]
  if not paths or not paths[0].is_file():
    raise errors.ConfigError('data.task', f'no such file: {path}')
  return [row for path in paths for row in _rows(path)][part]


def _rows(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  content = path.read_bytes()
  try:
    text = gzip.decompress(content) if path.suffix == '.gz' else content
    lines = text.decode().split('\n')
  except (EOFError, OSError, UnicodeDecodeError, zlib.error) as e:
    raise errors.ConfigError(
        'data.task', f'{path} is not a JSONL file: {e}') from e
  rows = []
  for number, line in enumerate(lines, 1):
    if line.strip() or number < len(lines):  # a line break may end the file
      rows.append((f'{path}:{number}', _object(line, f'{path}:{number}')))
  return rows


def _object(line: str, place: str) -> dict[str, Any]:
  try:
    row = dict(json.loads(line))
    if '\\u' in line:  # half a surrogate pair cannot be written or tokenised
      json.dumps(row, ensure_ascii=False).encode()
    return row
  except (TypeError, ValueError, RecursionError) as e:
    raise errors.ConfigError(
        'data.task', f'{place}: not a JSON object: {e}') from e


def _part(split: str) -> tuple[str, slice]:
  """'train[5:]' -> 'train', slice(5, None)."""
  match = re.fullmatch(r'([^\[\]]*)(?:\[(-?\d*):(-?\d*)\])?', split)
  if not match:
    raise errors.ConfigError(
        splits.FIELD, "expected a name or a part, such as 'train[:1800]'; "
        f'received {split!r}')
  name, *ends = match.groups()
  return name, slice(*(int(end) if end else None for end in ends))


def title(argument: str, split: str) -> str:
  """The task's name: the file's, or its folder's if a split names the file."""
  name, _ = _part(split)
  path = pathlib.Path(argument.replace('{split}', name))
  return path.parent.name if path.stem == name else path.name.split('.')[0]


def field(row: dict[str, Any], option: str, name: str, place: str) -> Any:
  """The field `name` of a row; `option` sets that name in config.data."""
  if name not in row:
    raise errors.ConfigError(
        f'data.options.{option}', f'{place} has no field {name!r}, only '
        f'{sorted(row)}')
  return row[name]
