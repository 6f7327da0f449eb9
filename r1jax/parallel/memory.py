"""The memory of this process: its peak, and what malloc keeps."""

import ctypes
import platform
import resource
import sys

import jax

# Of mallopt(3): one arena, no mmap, no trimming, growth by 64 MiB.
_KEEP = ((-8, 1), (-4, 0), (-1, -1), (-2, 64 << 20))


def keep_freed() -> bool:
  """Lets this process keep the memory that a compiled step frees.

  XLA takes a step's buffers from malloc, and glibc returns large ones to the
  system at once: each step on a CPU then faults gigabytes in again, a quarter
  of its time. The price is that the peak of a run is never given back.

  Returns whether this could be set (glibc on Linux).
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return all(mallopt(option, value) for option, value in _KEEP)


def give_back():
  """Returns free memory to the system, after rare work such as a checkpoint.

  Memory that one checkpoint freed is otherwise fragmented before the next,
  which then takes as much again.
  """
  if platform.libc_ver()[0] == 'glibc':
    ctypes.CDLL(None).malloc_trim(0)


def peak_mib() -> float:
  """The peak memory of the fullest device; on CPUs that of the process."""
  if jax.default_backend() == 'cpu':
    unit = 1 if sys.platform == 'darwin' else 1024  # bytes there, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
  return max(device.memory_stats()['peak_bytes_in_use']
             for device in jax.local_devices()) / 2 ** 20
