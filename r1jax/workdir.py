"""Directories that a command line names, tried before anything is imported.

A wrong one costs a line at once, and not minutes of building. Only the standard
library is imported, and for a bucket what reads it.
"""

import errno
import os
import pathlib
import tempfile

from r1jax import errors
from r1jax import objects

# No fault of the machine where a user names the place.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
_TRIAL = b'\0' * 4096  # bytes that must fit: less is a full disk


def expanded(path: str, flag: str) -> str:
  """The path with '~' and '~NAME' as the home directories that they stand for.

  Shells leave them as they are behind `--workdir=`.

  Raises:
    ConfigError: names `flag`; it is not UTF-8, or there is no such user
      (./~NAME is a file), or what is written would be in a bucket.
  """
  errors.check_text(flag, path)
  if flag == '--out' and objects.is_bucket(path):
    raise errors.expected(flag, 'a path of a file system', path)
  found = os.path.expanduser(path)
  if found.startswith('~'):
    raise errors.ConfigError(
        flag, f'{path!r}: no user {found.partition("/")[0][1:]!r}; a file of '
        f'this name is ./{path}')
  return found


def absolute(path: str) -> str:
  """The absolute path or URL of a run's directory, which need not be there.

  Raises:
    ConfigError: names --workdir; it is not a path.
  """
  if objects.is_bucket(path):
    return objects.check(path, '--workdir')
  if '://' in path:
    urls = ' or '.join(f'{kind}://BUCKET/NAME' for kind in objects.PACKAGES)
    raise errors.ConfigError(
        '--workdir', 'expected a path of a file system that every host mounts, '
        f'or {urls}, received {path!r}')
  path = os.path.abspath(expanded(path, '--workdir'))
  errors.check_text('--workdir', path)  # the current directory, too
  return path


def check(path: str) -> str:
  """The absolute path or URL of a run's directory, which can be written.

  Nothing is left behind.

  Raises:
    ConfigError: names --workdir, the path, and what the system says of it.
    RunError: its disk is full or broken.
  """
  path = absolute(path)
  if objects.is_bucket(path):
    objects.try_writing(path, '--workdir')
    return path
  try:
    folder = _existing(pathlib.Path(path))
    with tempfile.TemporaryFile(dir=folder, prefix='.r1jax-') as file:
      file.write(_TRIAL)
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise unusable(path, error) from error
  return path


def unusable(path: str | os.PathLike, error: OSError) -> Exception:
  """The error of a --workdir that cannot be made or written.

  A ConfigError where it is not one to write to, else a fault of the machine.
  """
  if error.errno in errors.REMEDIES and error.errno not in _NOT_OURS:
    return errors.of_system(error.errno, str(error), path)
  place, ours = os.fspath(error.filename or ''), os.fspath(path)
  other = place and place != ours and '.r1jax-' not in place
  return errors.ConfigError(
      '--workdir', f'expected a directory that can be written, received {ours}'
      f': {f"{place}: " if other else ""}{error.strerror or error}')


def _existing(path: pathlib.Path) -> pathlib.Path:
  """The directory itself, or the nearest above it that is there.

  Raises:
    OSError: there is something else in its place, such as a broken link.
  """
  while True:
    try:
      path.lstat()
      break
    except FileNotFoundError:
      path = path.parent
  if path.is_symlink() and not path.exists():
    raise FileNotFoundError(
        None, f'a link to {os.readlink(path)}, which is not there', str(path))
  if not path.is_dir():
    raise NotADirectoryError(None, 'not a directory', str(path))
  return path
