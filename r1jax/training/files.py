"""Files of a run: JSON Lines, JSON and digests, each write whole or not at all.

JSON Lines survive a kill: a line is complete when its newline is there, so a
kill in the middle of a write leaves at most one torn line, the last, which
reading passes over and `truncate_rows` removes. Values that are not finite are
written as Python's json writes them: NaN, Infinity, -Infinity.
"""

from collections.abc import Iterable, Iterator, Mapping
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

def append_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Adds `rows` to the file and hands them to the operating system."""
  with open(path, 'a', encoding='utf-8') as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + '\n')


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Makes the file of `rows` alone; a reader sees all of them or none."""
  temporary = pathlib.Path(f'{path}.tmp')
  temporary.unlink(missing_ok=True)
  append_rows(temporary, rows)
  os.replace(temporary, path)


def stream_rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
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


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns what `stream` yields."""
  return list(stream_rows(path))


def truncate_rows(path: str | os.PathLike, step: int):
  """Drops the rows of `step` and later, and a torn last line, atomically.

  Called when a run resumes at `step`, so that what it writes again is there
  once, and its files end up as those of a run that was never stopped.
  """
  if pathlib.Path(path).exists():
    write_rows(path, (row for row in stream_rows(path) if row['step'] < step))


def write_json(path: str | os.PathLike, value: Any):
  """Writes `value` as JSON; a reader sees the old file or the whole new one."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  with open(temporary, 'w', encoding='utf-8') as file:
    json.dump(value, file, indent=2, ensure_ascii=False)
    file.write('\n')
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def read_json(path: str | os.PathLike) -> Any:
  """Reads what `write_json` wrote; None if there is no file."""
  path = pathlib.Path(path)
  return json.loads(path.read_text('utf-8')) if path.exists() else None


def config_digest(config: Mapping[str, Any]) -> str:
  """Returns the SHA-256 of `config`'s canonical JSON, in hexadecimal.

  `config` is nested plain data, e.g. `ConfigDict.to_dict()`. The digest knows
  neither the order of its keys nor a tuple from a list, as JSON does not.
  """
  text = json.dumps(config, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def output_digests(workdir: pathlib.Path) -> dict[str, str]:
  """SHA-256 of what a stage leaves: its last checkpoint, its records."""
  # The manifest of a checkpoint has the digest of every array.
  steps = {int(path.parts[-3]): path for path in workdir.glob(
      'checkpoints/*/manifest/metadata') if path.parts[-3].isdigit()}
  files = {path.name: path for path in workdir.glob('*.jsonl')
           if path.name != 'metrics.jsonl'}  # which has times
  if steps:
    files['checkpoint'] = steps[max(steps)]
  return {name: file_digest(path) for name, path in sorted(files.items())}


def file_digest(path: str | os.PathLike) -> str:
  """SHA-256 of a file, in hexadecimal; read again if the file has changed."""
  now = os.stat(path)
  return _digest(os.fspath(path), now.st_ino, now.st_size, now.st_mtime_ns)


@functools.cache
def _digest(path: str, *version: int) -> str:
  del version  # by which it is remembered
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
