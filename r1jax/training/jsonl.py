"""JSON Lines files that survive a kill: one object a line, appended.

A line is complete when its newline is there, so a kill in the middle of a
write leaves at most one torn line, the last, which reading passes over and
`truncate_from` removes. Values that are not finite are written as Python's
json writes them: NaN, Infinity, -Infinity.
"""

from collections.abc import Iterable, Iterator, Mapping
import json
import os
import pathlib
from typing import Any


def append(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Adds `rows` to the file and hands them to the operating system."""
  with open(path, 'a', encoding='utf-8') as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + '\n')


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Makes the file of `rows` alone; a reader sees all of them or none."""
  temporary = pathlib.Path(f'{path}.tmp')
  temporary.unlink(missing_ok=True)
  append(temporary, rows)
  os.replace(temporary, path)


def stream(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the rows of the complete lines; none if there is no file.

  Raises:
    ValueError: a line before the last is not JSON: the file was edited or
      damaged, which no kill of ours does.
  """
  if not pathlib.Path(path).exists():
    return
  with open(path, 'rb') as file:
    for number, line in enumerate(file, start=1):
      if not line.endswith(b'\n'):
        return
      try:
        yield json.loads(line)
      except ValueError as error:  # of the JSON, or of its UTF-8
        raise ValueError(
            f'{path}, line {number}: expected a JSON object, received '
            f'{line[:80]!r}; repair or remove this line') from error


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns what `stream` yields."""
  return list(stream(path))


def truncate_from(path: str | os.PathLike, step: int):
  """Drops the rows of `step` and later, and a torn last line, atomically.

  Called when a run resumes at `step`, so that what it writes again is there
  once, and its files end up as those of a run that was never stopped.
  """
  if pathlib.Path(path).exists():
    write(path, (row for row in stream(path) if row['step'] < step))
