"""The memory of this process: its peak, what malloc keeps, and its end."""

from collections.abc import Iterator, Mapping
import contextlib
import ctypes
import errno
import fnmatch
import functools
import platform
import resource
import sys
from typing import Any

import jax

from r1jax import config as config_lib
from r1jax import errors

_EXHAUSTED = 'RESOURCE_EXHAUSTED'  # of XLA, on any device
# Of mallopt(3): one arena, no mmap, no trimming, growth by 64 MiB.
_KEEP = ((-8, 1), (-4, 0), (-1, -1), (-2, 64 << 20))
COMPILED = '/jax/core/compile/backend_compile_duration'  # of jax.monitoring
_LONG_SECONDS = .3  # of a compiler that takes much memory

# Fields by which a stage takes less memory and computes the same; * is a name
# of the user's.
_SMALLER = {
    'rl.micro_batch': 'a smaller', 'rl.sample_chunk': 'a smaller',
    'rl.logp_chunk': 'a smaller', 'rl.slots': 'a smaller',
    'rl.cpu_threads': 'a smaller',
    'lm.micro_batches': 'a larger',
    'lm.logp_chunk': 'a smaller', 'preference.micro_batches': 'a larger',
    'preference.logp_chunk': 'a smaller', 'eval.batch': 'a smaller',
    'labelling.batch': 'a smaller', 'rewards.models.*.batch': 'a smaller',
    'rewards.judge.batch': 'a smaller', 'bench.matmul': 'a smaller',
    'model.attention_chunk': 'a smaller',
    'model.remat': "'full' as", '*optim.offload': 'True as',
}
_LAST = {'a smaller': 1, "'full' as": 'full', 'True as': True}  # values of them


@contextlib.contextmanager
def explained(config: Mapping[str, Any]) -> Iterator[None]:
  """Inside, a lack of memory is an error that names the fields that help.

  Args:
    config: of the stage that runs; of the fields, those that it has.

  Raises:
    RunError: a device or this machine has no memory left.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError, OSError) as problem:
    if not is_lack(problem):
      raise
    helps = smaller(config)
    words = said(problem).rstrip('.')
    raise errors.RunError(
        f'out of memory: {words or "this machine has none left"}'
        + ('; what helps: ' + ', '.join(helps) if helps else '')) from problem


def said(problem: Exception) -> str:
  """What an error says of a lack of memory, in one line."""
  return str(problem).partition('\n')[0].removeprefix(f'{_EXHAUSTED}: ')


def smaller(config: Mapping[str, Any]) -> list[str]:
  """What to change in a config for less memory, of the fields that it has."""
  fields = config_lib.flatten(config)
  return [f'{how} config.{name}' for pattern, how in _SMALLER.items()
          for name in fnmatch.filter(fields, pattern)
          if _helps(name, how, fields)]


def _helps(field: str, how: str, fields: Mapping[str, Any]) -> bool:
  """Whether such a change of a field is possible, and lowers the memory.

  A section without a model takes none, as where there is no judge. Threads are
  of CPUs, and these have no other memory to offload to.
  """
  section, _, name = field.rpartition('.')
  if fields[field] == _LAST.get(how, fields.get(f'{section}.batch')):
    return False
  if name in ('offload', 'cpu_threads'):
    return (name == 'cpu_threads') == (jax.default_backend() == 'cpu')
  return fields.get(f'{section}.init_from', '') is not None


def is_lack(problem: Exception) -> bool:
  """Whether an error says that memory is exhausted."""
  if isinstance(problem, OSError):
    return problem.errno == errno.ENOMEM
  return isinstance(problem, MemoryError) or _EXHAUSTED in str(problem)


def keep_freed() -> bool:
  """Lets this process keep the memory that a compiled step frees.

  XLA takes a step's buffers from malloc, and glibc returns large ones to the
  system at once: each step on a CPU then faults gigabytes in again, a quarter
  of its time. The price is that the peak of a run is never given back; but what
  the compiler frees is, which lies in pieces that no buffer fits into.

  Returns whether this could be set (glibc on Linux).
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  _give_back_compiled()
  mallopt = ctypes.CDLL(None).mallopt
  return all(mallopt(option, value) for option, value in _KEEP)


@functools.cache
def _give_back_compiled() -> None:
  """From now on memory is given back after each long compilation."""
  def spent(event: str, seconds: float, **_) -> None:
    if event == COMPILED and seconds > _LONG_SECONDS:
      give_back()
  jax.monitoring.register_event_duration_secs_listener(spent)


def give_back() -> None:
  """Returns free memory to the system, after rare work such as a checkpoint.

  Memory that one checkpoint freed is otherwise fragmented before the next,
  which then takes as much again.
  """
  if platform.libc_ver()[0] == 'glibc':
    ctypes.CDLL(None).malloc_trim(0)


def peak_mib() -> float:
  """The peak memory of the fullest device; on CPUs that of the process.

  0 where its allocator does not tell (XLA_PYTHON_CLIENT_ALLOCATOR=platform).
  """
  if jax.default_backend() == 'cpu':
    return host_peak_mib()
  return max((device.memory_stats() or {}).get('peak_bytes_in_use', 0)
             for device in jax.local_devices()) / 2 ** 20


def host_peak_mib() -> float:
  """The peak memory of this process on its host."""
  unit = 1 if sys.platform == 'darwin' else 1024  # bytes there, else KiB
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
