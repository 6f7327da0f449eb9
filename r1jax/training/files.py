"""Files of a run, each whole or absent: JSON Lines, JSON.

A file that is written at once is written aside, put on disk and then renamed,
so that neither a kill nor a power cut leaves half of it. JSON Lines may also
grow: a line is complete when its newline is there, so a kill in the middle of a
write leaves at most one torn line, the last, which reading passes over and
`cut_rows` removes. Rows are on disk after `sync` (training/history.py). Values
that are not finite are written as Python's json writes them: NaN, Infinity,
-Infinity.

A file that cannot be read or written is one line with its path: a `RunError` of
what the operating system refuses, a `ConfigError` of what the file holds.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import contextlib
import errno
import filecmp
import glob
import hashlib
import json
import mmap
import os
import pathlib
import shutil
from typing import Any

from absl import logging

from r1jax import digests
from r1jax import errors

Needs = Collection[str] | Mapping[str, Any]  # of an object, see `read_json`

_BLOCK = 1 << 16  # bytes read at a time from the end of a file


def check_plain(path: str | os.PathLike, field: str):
  """Refuses a pipe or a device, which to read may take for ever.

  Args:
    path: of a file, or of a folder whose files are looked at.
    field: what it is in the error.

  Raises:
    ConfigError: names the file.
  """
  folder = os.path.isdir(path)
  for file in [os.path.join(path, name) for name in os.listdir(path)] if (
      folder) else [path]:
    if os.path.exists(file) and not (
        os.path.isfile(file) or os.path.isdir(file)):
      raise errors.ConfigError(field, errors.no_file(file))


@contextlib.contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A place to write to, which becomes `path` at the end of the block.

  A reader of `path` sees what was there before or all that was written, also
  after a kill; an error in the block leaves `path` as it was. What is written
  may be a file or, where there is none yet, a folder.
  """
  path = pathlib.Path(path)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  with errors.faults(path):
    try:
      for left in path.parent.glob(f'.{glob.escape(path.name)}.*.part'):
        if left == part or not _is_process(left.name.split('.')[-2]):
          remove(left)  # of a kill
      yield part
      sync(part)
      os.replace(part, path)
      sync(path.parent, within=False)
    except OSError as error:
      if str(part) not in str(error.filename):
        raise
      raise errors.of_system(error.errno, str(error), path) from error
    finally:
      remove(part)


def _is_process(number: str) -> bool:
  """Whether a process of this machine has the number."""
  try:
    os.kill(int(number), 0)
  except (ProcessLookupError, ValueError, OverflowError):
    return False
  except PermissionError:  # another user's
    pass
  return True


def make_folder(path: pathlib.Path):
  """Makes a folder, and those above it, if they are not there.

  Raises:
    OSError: it cannot be made.
  """
  missing = [each for each in (path, *path.parents) if not each.exists()]
  path.mkdir(parents=True, exist_ok=True)
  for folder in missing:
    sync(folder.parent, within=False)


def sync(path: str | os.PathLike, *, within: bool = True):
  """Puts on disk what the operating system still holds of a file or a folder.

  A folder is the names in it and, if `within`, all that they name.
  """
  path = pathlib.Path(path)
  folder = path.is_dir()
  if folder and within:
    for each in path.iterdir():
      sync(each)
  with errors.faults(path):
    number = os.open(path, os.O_RDONLY)
    try:
      os.fsync(number)
    except OSError as error:
      # Some file systems keep no names back, and refuse this for a folder.
      if not folder or error.errno != errno.EINVAL:
        raise
    finally:
      os.close(number)


def remove(path: pathlib.Path):
  """Removes a file or a folder, if there is one."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def append_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Adds `rows` to the file and hands them to the operating system."""
  with errors.faults(path), open(path, 'ab') as file:
    file.writelines(map(row_line, rows))


def row_line(row: Mapping[str, Any]) -> bytes:
  """The line of a row; half of a surrogate pair, no character, is a '?'."""
  return (json.dumps(row, ensure_ascii=False) + '\n').encode('utf-8', 'replace')


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """Makes the file of `rows` alone, whole or not at all."""
  with write_whole(path) as part:
    append_rows(part, rows)


def replace_last_row(path: str | os.PathLike, row: Mapping[str, Any]):
  """Puts `row`, of a longer line, in the place of the last complete one.

  It is written over it at once, so that a kill leaves the one or the other.
  """
  with errors.faults(path), open(path, 'r+b') as file:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
      file.seek(held.rfind(b'\n', 0, held.rfind(b'\n')) + 1)
    file.write(row_line(row))
    file.truncate()
  sync(path)


def write_output(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]):
  """As `write_rows`, of a file that a person may have edited since.

  One that is not what is written now stays as NAME.old, with a warning.
  """
  path = pathlib.Path(path)
  with write_whole(path) as part:
    append_rows(part, rows)
    if path.exists() and not filecmp.cmp(part, path, shallow=False):
      old = path.with_name(f'{path.name}.old')
      os.replace(path, old)
      logging.warning('%s is not what its stage writes, as if it had been '
                      'edited, and is written anew; it is kept as %s', path,
                      old)


def stream_rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """The rows of the complete lines, one by one; none if there is no file.

  Raises:
    ConfigError: a line before the last is no JSON object: the file was edited
      or damaged, which no kill of ours does.
  """
  with errors.faults(path):
    if not pathlib.Path(path).exists():
      return
    with open(path, 'rb') as file:
      for number, line in enumerate(file, start=1):
        if line.endswith(b'\n'):
          yield _row(line, f'{path}, line {number}')


def stream_backwards(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """As `stream_rows`, from the last row to the first; reads what is asked for.
  """
  with errors.faults(path):
    if not pathlib.Path(path).exists():
      return
    with open(path, 'rb') as file:
      at, line, torn = file.seek(0, os.SEEK_END), b'', True
      while at:
        size = min(at, _BLOCK)
        at -= size
        file.seek(at)
        # A line that may begin before this block, and the lines after it.
        line, *lines = (file.read(size) + line).split(b'\n')
        if torn and lines:
          lines, torn = lines[:-1], False
        for each in reversed(lines):
          yield _row(each, path)
      if not torn:
        yield _row(line, path)


def _row(line: bytes, where: Any) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except ValueError:  # of the JSON, or of its UTF-8
    row = None
  if not isinstance(row, dict):
    raise errors.ConfigError(
        '', f'{where}: expected a JSON object, received {line[:80]!r}; repair '
        'or remove this line')
  return row


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The rows of the complete lines; none if there is no file."""
  return list(stream_rows(path))


def need_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
  """As `read_rows`; ConfigError where there are none."""
  return read_rows(path) or _needed(path)


def need_json(path: str | os.PathLike, needs: Needs = ()) -> Any:
  """As `read_json`; ConfigError where there is no file."""
  value = read_json(path, needs)
  return _needed(path) if value is None else value


def _needed(path: str | os.PathLike):
  raise errors.ConfigError(
      '', f'{path}: expected a file of a run that has ended, received none, or '
      'an empty one; bring it back from a copy, or run its stage again')


def truncate_rows(path: str | os.PathLike, step: int) -> set[int]:
  """Drops the rows of `step` and later, and a torn last line.

  Returns the steps of the rows that stay.
  """
  steps = set()
  def kept():
    for row in stream_rows(path):
      if not isinstance(row.get('step'), int):
        raise errors.ConfigError(
            '', f'{path}: expected a step in every row, received '
            f'{str(row)[:80]}; repair or remove this line')
      if row['step'] < step:
        steps.add(row['step'])
        yield row
  if pathlib.Path(path).exists():
    write_rows(path, kept())
  return steps


def cut_rows(path: str | os.PathLike, size: int):
  """Drops all but the first `size` bytes of a file, if there are more."""
  with errors.faults(path):
    if pathlib.Path(path).exists() and os.path.getsize(path) > size:
      os.truncate(path, size)
      sync(path)


def write_json(path: str | os.PathLike, value: Any):
  """Makes the file of `value` alone, whole or not at all."""
  text = json.dumps(value, indent=2, ensure_ascii=False)
  with write_whole(path) as part:
    part.write_text(text + '\n', encoding='utf-8')


def read_json(path: str | os.PathLike, needs: Needs = ()) -> Any:
  """The object that `write_json` wrote; None if there is no file.

  Args:
    path: of the file.
    needs: the names that must be in it; as a mapping, with their forms: a type,
      [form] of a list, {str: form} or {name: form} of an object, None where it
      may be absent, or a tuple, of which one holds.

  Raises:
    ConfigError: the file is half written, edited or damaged.
  """
  path = pathlib.Path(path)
  with errors.faults(path):
    if not path.exists():
      return None
    content = path.read_bytes()
  try:
    value = json.loads(content)
  except ValueError:  # of the JSON, or of its UTF-8
    value = None
  if not (_has_form(value, needs) if isinstance(needs, Mapping) else
          isinstance(value, dict) and value.keys() >= set(needs)):
    wanted = ' with ' + ', '.join(needs) if needs else ''
    raise errors.ConfigError(
        '', f'{path}: expected a whole JSON object{wanted}, received '
        f'{content[:60]!r}; bring the file back from a copy, or remove it')
  return value


def _has_form(value: Any, form: Any) -> bool:
  """Whether a value of JSON is as `read_json` says; null is as absent."""
  match form:
    case tuple():
      return any(_has_form(value, each) for each in form)
    case [each]:
      return isinstance(value, list) and all(_has_form(v, each) for v in value)
    case dict():
      if not isinstance(value, dict):
        return False
      names = value if str in form else form
      return all(_has_form(value.get(name), form.get(name, form.get(str)))
                 for name in names)
    case None:
      return value is None
    case _:
      return isinstance(value, form)


def config_digest(config: Mapping[str, Any]) -> str:
  """The SHA-256 of a config's canonical JSON, in hexadecimal.

  `config` is nested plain data, e.g. `ConfigDict.to_dict()`. The digest knows
  neither the order of its keys nor a tuple from a list, as JSON does not.
  """
  text = json.dumps(config, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def saved_steps(checkpoints: pathlib.Path) -> list[int]:
  """The steps of the checkpoints in a directory, which need not be there."""
  with errors.faults(checkpoints):
    names = os.listdir(checkpoints) if checkpoints.exists() else []
  # 0012, a copy by someone's hand, is none.
  return sorted(int(name) for name in names
                if name.isdecimal() and name == str(int(name)))


def saved_with(checkpoints: pathlib.Path, name: str) -> list[pathlib.Path]:
  """The files `name` of the checkpoints that have one, the latest last."""
  paths = [checkpoints / str(step) / name for step in saved_steps(checkpoints)]
  return [path for path in paths if path.exists()]


def output_digests(workdir: pathlib.Path) -> dict[str, str]:
  """{name: SHA-256} of what a run leaves: its last checkpoint, its records."""
  # The manifest of a checkpoint has the digest of every array.
  manifests = saved_with(workdir / 'checkpoints', 'manifest/metadata')
  outputs = {path.name: path for path in workdir.glob('*.jsonl')
             if path.name != 'metrics.jsonl'}  # which has times
  if manifests:
    outputs['checkpoint'] = manifests[-1]
  return {name: digests.of_file(path) for name, path in sorted(outputs.items())}
