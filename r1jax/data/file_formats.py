"""What files hold: text, gzipped or with Zstandard; rows of CSV and parquet.

Parquet and Zstandard need pyarrow, the extra 'parquet'.
"""

from collections.abc import Iterator, Sequence
import contextlib
import csv
import datetime
import decimal
import gzip
import io
import pathlib
from typing import Any, BinaryIO
import zlib

import numpy as np

from r1jax import errors
from r1jax.data import columns

Row = tuple[str, dict[str, Any]]  # with its place, for errors
Rows = list[Row]


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[BinaryIO]:
  """The content of a file; .gz and .zst are unpacked.

  Raises:
    ConfigError: it cannot be read or unpacked, here or inside; in one line.
  """
  try:
    if path.suffix == '.gz':
      stream = gzip.open(path)
    elif path.suffix == '.zst':
      arrow = _arrow(path)
      stream = io.BufferedReader(
          arrow.CompressedInputStream(arrow.OSFile(str(path)), 'zstd'))
    else:
      stream = path.open('rb')
    with stream:
      yield stream
  except (EOFError, OSError, zlib.error) as problem:
    raise _unreadable(path, problem) from problem


def read_text(path: pathlib.Path) -> str:
  """The text of a file. Raises as `opened` and `text`."""
  with opened(path) as stream:
    return text(stream.read(), path)


def text(content: bytes, path: pathlib.Path, line: int = 1) -> str:
  """The text of a part of a file that begins in a line.

  Raises:
    ConfigError: it is not UTF-8; in one line.
  """
  try:
    return content.decode()
  except UnicodeDecodeError as problem:
    line += content.count(b'\n', 0, problem.start)
    raise errors.ConfigError(
        'data.task', f'{path}:{line}: not UTF-8: {problem.reason}, '
        f'{content[problem.start:problem.start + 4]}') from problem


def csv_rows(path: pathlib.Path, names: Sequence[str] | None = None) -> Rows:
  """The rows of a CSV file (RFC 4180); every field is text.

  A place is FILE:3, the line in which the row begins: a quoted field may have
  line breaks. A byte order mark may come first, and lines may be blank.

  Args:
    path: the file, plain or packed.
    names: of its columns, where it has no header.

  Raises:
    ConfigError: it cannot be read, a quote is not closed, a row has more or
      fewer fields than the header, or two columns have one name; in one line.
  """
  content = read_text(path).removeprefix('\ufeff')
  reader = csv.reader(io.StringIO(content, newline=''), strict=True)
  rows, line = [], 1
  try:
    for fields in reader:
      if names is None and fields:
        names = fields
        if len(set(names)) < len(names):
          raise csv.Error(f'two columns have one name, of {names}')
      elif fields:
        if len(fields) != len(names):
          raise csv.Error(f'expected {len(names)} fields ({", ".join(names)}), '
                          f'received {len(fields)}')
        rows.append((f'{path}:{line}', dict(zip(names, fields))))
      line = reader.line_num + 1
  except csv.Error as problem:
    raise errors.ConfigError(
        'data.task', f'{path}:{line}: not a row of CSV: {problem}'
        ) from problem
  return rows


def parquet_rows(path: pathlib.Path) -> Iterator[Row]:
  """The rows of a parquet file, as JSON has them: dates are text.

  Raises:
    ConfigError: it cannot be read; in one line.
  """
  arrow = _arrow(path)
  from pyarrow import parquet  # pylint: disable=g-import-not-at-top
  try:
    with parquet.ParquetFile(path) as file:
      schema = file.schema_arrow
      names = schema.names
      if len(set(names)) < len(names):
        raise ValueError(f'two columns have one name, of {names}')
      rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
      for number, row in enumerate(rows):
        yield f'{path}[{number}]', {
            name: _plain(_shortest(value, schema.field(name).type))
            for name, value in row.items()}
  except (arrow.ArrowException, OSError, ValueError) as problem:
    raise _unreadable(path, problem) from problem


def _arrow(path: pathlib.Path) -> Any:
  try:
    import pyarrow  # pylint: disable=g-import-not-at-top
  except ImportError as problem:
    raise errors.ConfigError(
        'data.task', f'{path} needs pyarrow: pip install "r1jax[parquet]"'
        ) from problem
  return pyarrow


def _unreadable(path: pathlib.Path, problem: Exception) -> errors.ConfigError:
  why = ' '.join(str(problem).split()) or type(problem).__name__
  return errors.ConfigError('data.task', f'{path} cannot be read: {why:.200}')


def _shortest(value: Any, kind: Any) -> Any:
  """A value whose float32 and float16 are written 0.1, not 0.10000000149."""
  if value is None:
    return None
  if str(kind) in ('float', 'halffloat'):
    dtype = np.float32 if str(kind) == 'float' else np.float16
    return float(str(dtype(value)))
  if isinstance(value, list) and hasattr(kind, 'value_type'):
    return [_shortest(each, kind.value_type) for each in value]
  if isinstance(value, dict) and hasattr(kind, 'field'):
    return {name: _shortest(each, kind.field(name).type)
            for name, each in value.items()}
  return value


def _plain(value: Any) -> Any:
  """A value of a parquet file as JSON has it, but for bytes."""
  if isinstance(value, dict):
    return {name: _plain(inside) for name, inside in value.items()}
  if isinstance(value, list | tuple):
    return list(map(_plain, value))
  if isinstance(value, decimal.Decimal):
    return columns.float_of(str(value))
  dates = datetime.date, datetime.time, datetime.timedelta
  return str(value) if isinstance(value, dates) else value
