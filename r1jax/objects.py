"""Objects of a bucket: gs://BUCKET/NAME and s3://BUCKET/NAME, through fsspec.

fsspec does the work, with the package of each kind of bucket (`PACKAGES`); it
is imported where a bucket is named. What the network or the store refuses for a
while is tried again for some minutes; then it is one line, `Unreachable`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import errno
import importlib
import importlib.util
import logging
import os
import pathlib
import re
import sys
import time
from typing import Any, NamedTuple
import uuid

from r1jax import errors

PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}  # each an extra of its kind, too
EXTRAS = {'gs': 'gcs', 's3': 's3'}
COMMITTED = 'commit_success.txt'  # in a whole checkpoint; Orbax's name on gs
BLOCK = 1 << 24  # bytes of rows in an object; see `block_name`
_WAITS = (1., 5., 20.)  # seconds before a try; a package tries on its own, too
_TRIAL = b'\0' * 4096
_AT_ONCE = 8  # transfers
_URL = re.compile(r'([a-z][a-z0-9]*)://(.*)', re.DOTALL)
# What is raised for the network and the store, by the modules that raise it.
_PROBLEMS = (
    ('aiohttp', 'ClientError'), ('botocore.exceptions', 'BotoCoreError'),
    ('botocore.exceptions', 'ClientError'), ('gcsfs.retry', 'HttpError'),
    ('google.auth.exceptions', 'GoogleAuthError'), ('builtins', 'OSError'),
    ('builtins', 'ValueError'))  # of gcsfs, for a bad request
# Which no second try changes.
_FINAL = (
    ('builtins', 'FileNotFoundError'), ('builtins', 'PermissionError'),
    ('builtins', 'FileExistsError'), ('builtins', 'IsADirectoryError'),
    ('builtins', 'ValueError'),
    ('google.auth.exceptions', 'DefaultCredentialsError'),
    ('botocore.exceptions', 'NoCredentialsError'),
    ('botocore.exceptions', 'PartialCredentialsError'))


class Unreachable(errors.RunError):
  """A bucket that cannot be read or written."""


class Object(NamedTuple):
  """What a listing says of an object."""
  size: int
  version: str  # another one where its content is


def is_bucket(path: str | os.PathLike) -> bool:
  """Whether a path is one of a bucket, of a kind that is known."""
  found = _URL.fullmatch(os.fspath(path))
  return bool(found) and found[1] in PACKAGES


def check(url: str, field: str) -> str:
  """The URL without slashes at its end.

  Raises:
    ConfigError: names `field`; it names no bucket and place in it, or the
      package that reads it is not installed.
  """
  errors.check_text(field, url)
  kind, _, place = url.partition('://')
  bucket, _, name = place.rstrip('/').partition('/')
  if not bucket or not all(part not in ('', '.', '..')
                           for part in name.split('/')):
    raise errors.ConfigError(
        field, f'expected {kind}://BUCKET/NAME, received {url!r}')
  package = PACKAGES[kind]
  if importlib.util.find_spec(package) is None:
    raise errors.ConfigError(
        field, f'{url}: the package {package!r} is not installed; pip install '
        f"'r1jax[{EXTRAS.get(kind, kind)}]', or {package}")
  return url.rstrip('/')


class Folder:
  """The objects of a bucket below a URL, by their names after it."""

  def __init__(self, url: str, *, waits: Sequence[float] | None = None):
    """`waits`: seconds before each further try, if not as always."""
    self.url = check(url, '')
    self._waits = _WAITS if waits is None else waits
    kind, _, self._root = self.url.partition('://')
    fsspec = importlib.import_module('fsspec')
    self._files = fsspec.filesystem(kind, use_listings_cache=False)
    logging.getLogger(PACKAGES[kind]).setLevel(logging.CRITICAL)  # raised, too

  def list(self, deep: bool = True) -> dict[str, Object]:
    """The objects, or without `deep` those with no further / in their name.

    The name of an object at the URL itself is ''.
    """
    def find():
      with contextlib.suppress(FileNotFoundError):  # no object is below it
        return self._files.find(
            self._root, maxdepth=None if deep else 1, detail=True)
      return {}
    return {
        name: Object(int(found.get('size') or 0), str(next(
            (found[key] for key in ('etag', 'ETag', 'generation', 'created')
             if found.get(key)), '')))
        for path, found in self._tried('read', find).items()
        if found['type'] == 'file' and not path.endswith('/')
        and (name := self._name(path)) is not None}

  def read(self, name: str) -> bytes | None:
    """The content of an object; None if there is none."""
    def read():
      with contextlib.suppress(FileNotFoundError):
        return self._files.cat_file(self._path(name))
    return self._tried('read', read)

  def get(self, name: str, path: pathlib.Path) -> None:
    """Copies an object to a file, whole or not at all."""
    with aside(path) as part:
      self._tried('read', self._files.get_file, self._path(name), str(part))

  def write(self, name: str, content: bytes) -> None:
    self._tried('written', self._files.pipe_file, self._path(name), content)

  def create(self, name: str, content: bytes) -> bool:
    """Writes an object that is not there; False if it is.

    The store sees to it that one of several callers creates it. A try whose
    answer was lost may have created it: then its content is there.
    """
    def create():
      try:
        self._files.pipe_file(self._path(name), content, mode='create')
      except FileExistsError:
        return False
      return True
    return self._tried('written', create) or self.read(name) == content

  def put(self, path: pathlib.Path, name: str) -> None:
    """Makes an object of a file."""
    if path.stat().st_size <= BLOCK:
      self.write(name, path.read_bytes())
    else:
      self._tried('written', self._files.put_file, str(path), self._path(name))

  def remove(self, name: str) -> None:
    """Removes an object, if it is there."""
    def remove():
      with contextlib.suppress(FileNotFoundError):
        self._files.rm_file(self._path(name))
    self._tried('written', remove)

  def _name(self, path: str) -> str | None:
    """The name of a path of fsspec's; None of one that is not below."""
    root, slash, name = path.lstrip('/').partition(f'{self._root}/')
    if slash:
      return None if root else name
    return '' if root == self._root else None

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}' if name else self._root

  def _tried(self, how: str, do: Callable[..., Any], *args: Any) -> Any:
    """What `do` gives, at the first or a later try."""
    for wait in (*self._waits, None):
      try:
        return do(*args)
      except _named(_PROBLEMS) as error:
        refused = _refusal(error)
        if wait is None or isinstance(refused, _named(_FINAL)) or (
            _is_ours(error)):
          raise self._unreachable(how, refused) from error
      time.sleep(wait)
    raise AssertionError('unreachable')

  def _unreachable(self, how: str, error: BaseException) -> errors.RunError:
    if _is_ours(error):
      return errors.of_system(error.errno, str(error), error.filename)
    words = str(error).strip().partition('\n')[0][:200]
    return Unreachable(
        f'{self.url} cannot be {how}: {type(error).__name__}'
        + (f': {words}' if words else ''))


def _named(names: Iterable[tuple[str, str]]) -> tuple[type, ...]:
  """The classes of exceptions of the modules that are imported."""
  return tuple(getattr(sys.modules[module], name) for module, name in names
               if module in sys.modules)


def _refusal(error: BaseException) -> BaseException:
  """What a store has refused, where a package raises it as something else."""
  codes = {'NoSuchBucket': FileNotFoundError, 'AccessDenied': PermissionError,
           'Forbidden': PermissionError}
  found = next((kind for code, kind in codes.items() if code in str(error)),
               None)
  return found(str(error)) if found else error


def _is_ours(error: BaseException) -> bool:
  """Whether this machine's disk is at fault, not the network."""
  return getattr(error, 'errno', None) in (
      errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE) and bool(
          getattr(error, 'filename', None))


@contextlib.contextmanager
def aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A place to write to, which becomes `path` at the end of the block.

  As files.write_whole, of copies that need not outlast a power cut.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def together(do: Callable[[Any], Any], each: Iterable[Any]) -> None:
  """Calls `do` with each, several at a time; raises the first error."""
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    for _ in pool.map(do, each):
      pass


def try_writing(url: str, field: str) -> None:
  """Writes and removes an object there.

  Raises:
    ConfigError: names `field`; the store does not let this be done.
  """
  name = f'.r1jax-{uuid.uuid4().hex}'
  try:
    folder = Folder(url, waits=())
    folder.write(name, _TRIAL)
    folder.remove(name)
  except Unreachable as problem:
    raise errors.ConfigError(field, str(problem)) from problem


###############################################################################
# Rows, which grow
###############################################################################


def block_name(name: str, number: int) -> str:
  """The object with a block of a .jsonl file: NAME, NAME.part-0001, ...

  Each but the last has `BLOCK` bytes, so that a file that grows is not written
  anew.
  """
  return f'{name}.part-{number:04d}' if number else name


def whole(objects: Mapping[str, Object]) -> dict[str, list[str]]:
  """The files of a listing: {name: the objects that it consists of}.

  What follows a block that is not full is left from before a file was cut. A
  checkpoint that is not committed is not there.
  """
  found = {}
  for name in objects:
    unit = unit_of(name)
    base, _, number = name.rpartition('.part-')
    if unit and commit_of(unit) not in objects or (
        base in objects and number.isdecimal()) or (
            is_commit(name) and not objects[name].size):  # no file
      continue
    found[name] = [name]
    while name.endswith('.jsonl') and objects[found[name][-1]].size == BLOCK:
      following = block_name(name, len(found[name]))
      if following not in objects:
        break
      found[name].append(following)
  return found


def unit_of(name: str) -> str | None:
  """The checkpoint that a name is in: 'sft/checkpoints/3'; None for others."""
  folders = name.split('/')[:-1]
  if 'checkpoints' in folders[:-1]:
    return '/'.join(folders[:folders.index('checkpoints') + 2])
  return None


def commit_of(unit: str) -> str:
  """The object that says that a checkpoint is whole, written last."""
  return f'{unit}/{COMMITTED}'


def is_commit(name: str) -> bool:
  unit = unit_of(name)
  return unit is not None and name == commit_of(unit)


def get_file(folder: Folder, blocks: list[str], path: pathlib.Path) -> None:
  """Copies a file of one object or several."""
  if len(blocks) == 1:
    folder.get(blocks[0], path)
    return
  with aside(path) as part:
    folder.get(blocks[0], part)
    with open(part, 'ab') as file:
      for block in blocks[1:]:
        file.write(folder.read(block) or b'')
