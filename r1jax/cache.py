"""The folder of this machine that keeps what can be made again.

It holds copies of what is in buckets (buckets.py), tokens (data/kept.py) and
compiled programs (training/surroundings.py). All of it may be deleted.
"""

import contextlib
import os
import pathlib
import time

_SECONDS = 30 * 24 * 3600  # after which what nobody has used is removed
_RECENT = 24 * 3600  # a run, or several, may read more than fits
_BYTES = 16 << 30


def folder(kind: str = '') -> pathlib.Path:
  """~/.cache/r1jax, or R1JAX_CACHE; of a `kind`, a folder in it."""
  return pathlib.Path(os.path.abspath(os.path.expanduser(
      os.environ.get('R1JAX_CACHE') or '~/.cache/r1jax'))) / kind


def tidy(kept: pathlib.Path) -> None:
  """Removes files below a folder, which need not be there.

  That is those that nobody has used for a month, and, beyond 16 GiB, those that
  nobody has used for the longest time, but none that was used within a day. A
  file is used when it is read, where its file system notes that, or written.
  Several processes may tidy at once.
  """
  found = []
  for folder, _, names in os.walk(kept):
    for path in (pathlib.Path(folder, name) for name in names):
      with contextlib.suppress(FileNotFoundError):  # another process was here
        stat = path.stat()
        found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
  total, now = 0, time.time()
  for used, size, path in sorted(found, reverse=True):
    total += size
    if used < now - _SECONDS or total > _BYTES and used < now - _RECENT:
      with contextlib.suppress(OSError):
        path.unlink()
