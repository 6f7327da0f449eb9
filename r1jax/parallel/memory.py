"""The C library's memory, set for programs that ask for the same again."""

import ctypes
import platform

# Of mallopt(3): one arena, no mmap, no trimming, growth by 64 MiB.
_KEEP = ((-8, 1), (-4, 0), (-1, -1), (-2, 64 << 20))


def keep_freed() -> bool:
  """Lets this process keep the memory that a compiled step frees.

  XLA takes a step's buffers from malloc, and glibc returns large ones to the
  system at once: each step on a CPU then faults gigabytes in again, a quarter
  of its time. The price is that the peak of a run is never given back.

  Returns whether this C library could be told so (glibc on Linux).
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return all(mallopt(option, value) for option, value in _KEEP)
