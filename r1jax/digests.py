"""What names the content of files, and the code and libraries that read them.

Of equal content the digests are equal. They are SHA-256, in hexadecimal.
"""

import functools
import hashlib
from importlib import metadata
import os
import pathlib

from r1jax import errors


def of_file(path: str | os.PathLike) -> str:
  """The digest of a file's content; it is read again if it has changed.

  Raises:
    RunError: it cannot be read.
  """
  with errors.faults(path):
    return _of_version(os.fspath(path), version(path))


def version(path: str | os.PathLike) -> tuple[int, ...]:
  """What differs once a file has been written or replaced."""
  stat = os.stat(path)
  return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@functools.cache
def _of_version(path: str, now: tuple[int, ...]) -> str:
  del now  # by which it is remembered
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@functools.cache
def of_code() -> str:
  """The digest of the package's Python files, the same wherever they lie."""
  root = pathlib.Path(__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    content = path.read_bytes()
    digest.update(f'{path.relative_to(root).as_posix()} {len(content)}\n'
                  .encode() + content)
  return digest.hexdigest()


def release(package: str) -> str | None:
  """The version of a package; None of one that runs from its source."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None
