"""Rows of data files, each with its place for errors.

A file is JSON Lines, one JSON array of objects or CSV, gzipped, with Zstandard
or neither; or parquet. Lines may be blank, and a byte order mark may come
first. A place is FILE:3, a line counted from 1; FILE:3[7] in an array, whose
elements are counted from 0 and of which this one begins in line 3; FILE[7] in
parquet.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import itertools
import json
import pathlib
import re
from typing import Any

from r1jax import buckets
from r1jax import errors
from r1jax.data import columns
from r1jax.data import file_formats
from r1jax.data import splits

SUFFIXES = ('.json', '.jsonl', '.gz', '.zst', '.parquet', '.csv')
_CSV = ('.csv', '.csv.gz', '.csv.zst')

Row, Rows = file_formats.Row, file_formats.Rows

# With byte order marks: files put together have some within.
_BLANK = ' \t\r\n\ufeff'
_SPACE = re.compile(f'[{_BLANK}]*')


def read_rows(argument: str, split: str,
              names: Sequence[str] | None = None) -> Rows:
  """Lists (place, object) of the files that `paths` finds.

  A split may be a part of one, 'train[:1800]' or 'train[1800:]', as in TFDS.
  `names` are the columns of CSV files without a header.
  """
  return list(stream_rows(argument, split, names))


def stream_rows(argument: str, split: str, names: Sequence[str] | None = None
                ) -> Iterator[Row]:
  """As `read_rows`, a row at a time; what is no part of the split is read, too.
  """
  _, part = _part(split)
  rows = itertools.chain.from_iterable(
      _rows(path, names) for path in paths(argument, split))
  if (part.start or 0) < 0 or (part.stop or 0) < 0:
    yield from list(rows)[part]
    return
  yield from itertools.islice(rows, part.start, part.stop)
  for _ in rows:
    pass


def _rows(path: pathlib.Path, names: Sequence[str] | None) -> Iterator[Row]:
  """The rows of one file."""
  if path.suffix == '.parquet':
    yield from file_formats.parquet_rows(path)
  elif path.name.endswith(_CSV):
    yield from file_formats.csv_rows(path, names)
  else:
    with file_formats.opened(path) as file:
      lines = ((number, file_formats.text(line, path, number).strip(_BLANK))
               for number, line in enumerate(file, 1))
      lines = (line for line in lines if line[1])
      first = list(itertools.islice(lines, 1))
      if not (first and first[0][1].startswith('[')):
        yield from _lines(itertools.chain(first, lines), path)
        return
    yield from _array(file_formats.read_text(path), path)


def paths(argument: str, split: str) -> list[pathlib.Path]:
  """The files that a path names.

  A '*' in its name selects several files, in the order of their names;
  '{split}' in it is replaced by the split's name.
  """
  name, _ = _part(split)
  path = pathlib.Path(
      buckets.files(argument.replace('{split}', name))).expanduser()
  if '{split}' not in argument and name != 'train':
    raise errors.ConfigError(
        splits.FIELD, f'{argument} is one file, of split '
        f"'train'; received {split!r}; write '{{split}}' in the path to name "
        "a file of each split, or 'train[1800:]' for a part of it")
  found = sorted(path.parent.glob(path.name)) if '*' in path.name else [path]
  for each in found or [path]:  # a pipe would be waited for
    if not each.is_file():
      raise errors.ConfigError('data.task', errors.no_file(each))
  return found


def _lines(lines: Iterable[tuple[int, str]], path: pathlib.Path
           ) -> Iterator[Row]:
  """The rows of JSON Lines, (number, line) each."""
  name = str(path)
  for number, line in lines:
    place = f'{name}:{number}'
    row, end = _object(line, 0, place)
    if end < len(line):
      raise _no_object(place, f'followed by {line[end:end + 40]!r}')
    yield place, row


def _array(text: str, path: pathlib.Path) -> Rows:
  """The rows of a JSON array."""
  rows, number = [], 1  # of the line
  begin = _SPACE.match(text).end()
  at = _SPACE.match(text, begin + 1).end()
  number += text.count('\n', 0, at)
  ended = text.startswith(']', at)
  while not ended:
    place = f'{path}:{number}[{len(rows)}]'
    row, end = _object(text, at, place)
    rows.append((place, row))
    mark = _SPACE.match(text, end).end()
    ended = text.startswith(']', mark)
    if not ended and not text.startswith(',', mark):
      raise errors.ConfigError(
          'data.task', f"{place}: expected ',' or ']' after it, received "
          f'{text[mark:mark + 40]!r}')
    begin, at = at, mark if ended else _SPACE.match(text, mark + 1).end()
    number += text.count('\n', begin, at)
  rest = _SPACE.match(text, at + 1).end()
  if rest < len(text):
    number += text.count('\n', at, rest)
    raise errors.ConfigError(
        'data.task', f'{path}:{number}: expected nothing after the array, '
        f'received {text[rest:rest + 40]!r}')
  return rows


def _object(text: str, start: int, place: str) -> tuple[dict[str, Any], int]:
  """The object that begins at `start`, and where it ends."""
  try:
    row, end = _DECODER.raw_decode(text, start)
    if not isinstance(row, dict):
      raise ValueError(columns.shown(row))
    # Half a pair, \ud800 to \udfff, cannot be written or tokenised.
    if (text.find('\\ud', start, end) >= 0
        or text.find('\\uD', start, end) >= 0):
      json.dumps(row, ensure_ascii=False).encode()
    return row, end
  except json.JSONDecodeError as e:
    raise _no_object(
        place, f'{e.msg}, at character {e.pos - start + 1} of it') from e
  except (ValueError, RecursionError) as e:
    raise _no_object(place, str(e)) from e


def _no_object(place: str, why: str) -> errors.ConfigError:
  return errors.ConfigError('data.task', f'{place}: not a JSON object: {why}')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """The object of these fields; a field twice has no one value."""
  row = dict(pairs)
  if len(row) < len(pairs):
    (name, _), = collections.Counter(name for name, _ in pairs).most_common(1)
    raise ValueError(f'field {name!r} is there twice')
  return row


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=columns.float_of)


def _part(split: str) -> tuple[str, slice]:
  """'train[5:]' -> 'train', slice(5, None)."""
  match = re.fullmatch(r'([^\[\]]*)(?:\[(-?\d{1,18})?:(-?\d{1,18})?\])?', split)
  if not match:
    raise errors.ConfigError(
        splits.FIELD, "expected a name or a part, such as 'train[:1800]'; "
        f'received {split!r}')
  name, *ends = match.groups()
  return name, slice(*(int(end) if end else None for end in ends))


def title(argument: str, split: str, given: Any = None) -> str:
  """The task's name: as an option gives it, else the file's.

  If a split names the file, it is that of its folder.
  """
  if given is not None:
    if not isinstance(given, str):
      raise errors.expected('data.options.task', 'a name', given)
    return given
  name, _ = _part(split)
  path = pathlib.Path(argument.replace('{split}', name))
  return path.parent.name if path.stem == name else path.name.split('.')[0]
