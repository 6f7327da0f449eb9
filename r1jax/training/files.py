"""Files of a run, each whole or absent: JSON Lines, JSON, and their digests.

A file that is written at once is written aside and then renamed. JSON Lines
may also grow: a line is complete when its newline is there, so a kill in the
middle of a write leaves at most one torn line, the last, which reading passes
over and `truncate_rows` removes. Values that are not finite are written as
Python's json writes them: NaN, Infinity, -Infinity.

A digest names what a file, or a config, holds: of equal ones it is equal.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any


@contextlib.contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A place to write to, which becomes `path` at the end of the block.

  A reader of `path` sees what was there before or all that was written, also
  after a kill; an error in the block leaves `path` as it was. What is written
  may be a file or, where there is none yet, a folder.
  """
  part = pathlib.Path(f'{os.fspath(path)}.tmp')
  _remove(part)  # of a kill
  try:
    yield part
    _sync(part)
    os.replace(part, path)
  finally:
    _remove(part)


def _sync(path: pathlib.Path):
  """Puts on disk what the operating system still holds of a file."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)


def _remove(path: pathlib.Path):
  """Removes a file or a folder, if there is one."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def append_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Adds `rows` to the file and hands them to the operating system."""
  with open(path, 'a', encoding='utf-8') as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + '\n')


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Makes the file of `rows` alone, whole or not at all."""
  with write_whole(path) as part:
    append_rows(part, rows)


def stream_rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """The rows of the complete lines, one by one; none if there is no file.

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
  """The rows of the complete lines; none if there is no file."""
  return list(stream_rows(path))


def truncate_rows(path: str | os.PathLike, step: int):
  """Drops the rows of `step` and later, and a torn last line.

  Called when a run resumes at `step`, so that what it writes again is there
  once, and its files end up as those of a run that was never stopped.
  """
  if pathlib.Path(path).exists():
    write_rows(path, (row for row in stream_rows(path) if row['step'] < step))


def write_json(path: str | os.PathLike, value: Any):
  """Makes the file of `value` alone, whole or not at all."""
  text = json.dumps(value, indent=2, ensure_ascii=False)
  with write_whole(path) as part:
    part.write_text(text + '\n', encoding='utf-8')


def read_json(path: str | os.PathLike) -> Any:
  """What `write_json` wrote; None if there is no file."""
  path = pathlib.Path(path)
  return json.loads(path.read_text('utf-8')) if path.exists() else None


def config_digest(config: Mapping[str, Any]) -> str:
  """The SHA-256 of a config's canonical JSON, in hexadecimal.

  `config` is nested plain data, e.g. `ConfigDict.to_dict()`. The digest knows
  neither the order of its keys nor a tuple from a list, as JSON does not.
  """
  text = json.dumps(config, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def output_digests(workdir: pathlib.Path) -> dict[str, str]:
  """{name: SHA-256} of what a run leaves: its last checkpoint, its records."""
  # The manifest of a checkpoint has the digest of every array.
  manifests = {int(path.parts[-3]): path for path in workdir.glob(
      'checkpoints/*/manifest/metadata') if path.parts[-3].isdigit()}
  outputs = {path.name: path for path in workdir.glob('*.jsonl')
             if path.name != 'metrics.jsonl'}  # which has times
  if manifests:
    outputs['checkpoint'] = manifests[max(manifests)]
  return {name: file_digest(path) for name, path in sorted(outputs.items())}


def file_digest(path: str | os.PathLike) -> str:
  """The SHA-256 of a file, in hexadecimal; read again if it has changed."""
  stat = os.stat(path)
  return _digest(os.fspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest(path: str, *version: int) -> str:
  del version  # by which it is remembered
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
