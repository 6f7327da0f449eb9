"""What a stage leaves behind when it ends, and the name of its config."""

from collections.abc import Mapping
import functools
import hashlib
import json
import os
import pathlib
from typing import Any


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


def digests(workdir: pathlib.Path) -> dict[str, str]:
  """SHA-256 of what a stage leaves: its last checkpoint, its records."""
  # The manifest of a checkpoint has the digest of every array.
  steps = {int(path.parts[-3]): path for path in workdir.glob(
      'checkpoints/*/manifest/metadata') if path.parts[-3].isdigit()}
  files = {path.name: path for path in workdir.glob('*.jsonl')
           if path.name != 'metrics.jsonl'}  # which has times
  if steps:
    files['checkpoint'] = steps[max(steps)]
  return {name: digest(path) for name, path in sorted(files.items())}


def digest(path: str | os.PathLike) -> str:
  """SHA-256 of a file, in hexadecimal; read again if the file has changed."""
  now = os.stat(path)
  return _digest(os.fspath(path), now.st_ino, now.st_size, now.st_mtime_ns)


@functools.cache
def _digest(path: str, *version: int) -> str:
  del version  # by which it is remembered
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
