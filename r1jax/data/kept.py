"""Tokens that are kept: a data set is tokenised once, however often it is read.

They lie in cache.py's folder, in a file named by a digest of all that they are
a function of: the content of the files, the settings of the task, the
vocabulary, r1jax's own code and the libraries that it reads and tokenises with.
Whatever changes, they are made anew. What is read of less than a megabyte is
never kept, nor what no file holds: a user's function or a generator may do
otherwise next time.
"""

from collections.abc import Callable, Sequence
import contextlib
import datetime
import gc
import hashlib
import json
import os
import pathlib
import platform
import tempfile
from typing import Any

from absl import logging
import numpy as np

from r1jax import cache
from r1jax import digests
from r1jax.data import templates
from r1jax.data import vocabs

Arrays = dict[str, np.ndarray]

_LEAST = 1 << 20  # bytes of the files
_ALIGNED = 64  # bytes, at which an array begins in the file
_LIBRARIES = ('jinja2', 'numpy', 'pyarrow', 'sentencepiece', 'seqio',
              'tensorflow', 'tokenizers')


def arrays(asked: Callable[[], Any], files: Sequence[pathlib.Path],
           make: Callable[[], Arrays]) -> Arrays:
  """What `make` returns, from an earlier time if nothing has changed since.

  Args:
    asked: () -> all that the arrays depend on besides the files.
    files: what `make` reads; empty where it reads something else.
    make: () -> arrays by their names.

  Returns:
    The arrays, mapped into memory if they were kept.
  """
  versions = lambda: list(map(digests.version, files))
  before = versions()
  if sum(file.stat().st_size for file in files) < _LEAST:
    return make()
  file = cache.folder('tokens') / _digest(asked(), files)
  found = _found(file)
  if found is not None:
    return found
  gc.freeze()  # the collector leaves JAX's many objects, and walks the new ones
  try:
    made = make()
  finally:
    gc.unfreeze()
  if versions() == before:  # else it is of neither content
    try:
      _write(file, made)
    except OSError as problem:
      logging.warning('%s: the tokens are not kept: %s', file, problem)
  return made


def tokens(make: Callable[[], Arrays], files: Sequence[pathlib.Path],
           vocab: vocabs.Vocab, template: str | None, *more: Any) -> Arrays:
  """The `arrays` of what is tokenised.

  Args:
    make, files: as of `arrays`.
    vocab, template, more: all that they depend on besides the files.
  """
  def asked():
    text, jinja = templates.read(template) if template else ('', False)
    # What asks for today's date is another text tomorrow.
    dated = vocab.chat_template if template == templates.CHAT else text
    today = 'strftime_now' in (dated or '') and str(datetime.date.today())
    return [vocab.digest(), text, jinja, today, *more]

  return arrays(asked, files, make)


def _found(file: pathlib.Path) -> Arrays | None:
  """The arrays of a file; None where they must be made anew."""
  try:
    found = _read(file)
    with contextlib.suppress(OSError):  # read-only, or gone
      os.utime(file)
    return found
  except FileNotFoundError:
    pass  # new, or another process has made room
  except OSError as problem:
    logging.warning('%s is not read, and made anew: %s; set R1JAX_CACHE to a '
                    'folder of your own', file, problem.strerror or problem)
  except ValueError as problem:
    logging.warning('%s is damaged, and made anew: %s', file, problem)
  return None


def _write(file: pathlib.Path, made: Arrays) -> None:
  """Writes arrays, behind a line of JSON that says which; whole, or not at all.

  Several processes may do so at once: all write the same.
  """
  file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
  handle, aside = tempfile.mkstemp(dir=file.parent)
  try:
    with open(handle, 'wb') as stream:
      stream.write(json.dumps({
          name: [values.dtype.str, len(values)]
          for name, values in made.items()}).encode() + b'\n')
      for values in made.values():
        stream.write(bytes(-stream.tell() % _ALIGNED))
        stream.write(memoryview(values))
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(aside, file)
  finally:
    pathlib.Path(aside).unlink(missing_ok=True)
  cache.tidy(file.parent)


def _read(file: pathlib.Path) -> Arrays:
  """The arrays of a file, mapped into memory.

  Raises:
    ValueError: it is not whole.
    OSError: it is another user's. Arrays may hold pickles, and to read these is
      to run what their writer likes.
  """
  with open(file, 'rb') as stream:
    owner = os.fstat(stream.fileno()).st_uid
    if hasattr(os, 'getuid') and owner not in (os.getuid(), 0):
      raise PermissionError(f'it belongs to another user, {owner}')
    header = stream.readline()
    content = np.memmap(stream, np.uint8, mode='r')
  found, start = {}, len(header)
  for name, (dtype, count) in json.loads(header).items():
    start += -start % _ALIGNED
    end = start + count * np.dtype(dtype).itemsize
    found[name] = content[start:end].view(dtype)
    start = end
  if start != len(content):
    raise ValueError(f'expected {start} bytes, received {len(content)}')
  return found


def _digest(asked: Any, files: Sequence[pathlib.Path]) -> str:
  """The name of what is a function of `asked` and the content of the files."""
  text = json.dumps(
      [asked, [(str(file), digests.of_file(file)) for file in files],
       digests.of_code(), platform.python_version(),
       list(map(digests.release, _LIBRARIES))],
      sort_keys=True, default=repr)
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()
