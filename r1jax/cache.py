"""The folder of this machine that keeps what can be made again.

It holds copies of what is in buckets (buckets.py), tokens (data/kept.py) and
compiled programs (training/surroundings.py). All of it may be deleted.
"""

import contextlib
import os
import pathlib
import time

_SECONDS = 30 * 24 * 3600  # after which what nobody has used is removed
_BYTES = 16 << 30


def folder(kind: str = '') -> pathlib.Path:
  """~/.cache/r1jax, or R1JAX_CACHE; of a `kind`, a folder in it."""
  return pathlib.Path(os.path.abspath(os.path.expanduser(
      os.environ.get('R1JAX_CACHE') or '~/.cache/r1jax'))) / kind


def tidy(kept: pathlib.Path) -> None:
  """Removes files below a folder, which need not be there.

  That is those that nobody has used for a month, and, beyond 16 GiB, those that
  nobody has used for the longest time; the last used stays. A file is used when
  it is read, where its file system notes that, or written. Several processes
  may do so at once.
  """
  found = []
  for path in kept.rglob('*'):
    with contextlib.suppress(OSError):  # another process was here
      stat = path.stat()
      if path.is_file():
        found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
  total, now = 0, time.time()
  for number, (used, size, path) in enumerate(sorted(found, reverse=True)):
    total += size
    if number and (total > _BYTES or used < now - _SECONDS):
      with contextlib.suppress(OSError):
        path.unlink()
