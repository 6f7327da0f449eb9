"""What the bits of a run depend on beside its config and data.

With the same versions, r1jax's own code among them, devices and processor cores
a resumed run ends bitwise as one that was never stopped; with others its last
digits differ, since sums are taken in another order. So they are recorded, and
a change is said.
"""

import hashlib
import json
import os
import pathlib
import platform
from typing import Any

import jax

from r1jax import cache
from r1jax import digests
from r1jax.parallel import distributed
from r1jax.training import record

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NPROC')  # that XLA reads
_SETTINGS = ('jax_default_matmul_precision', 'jax_default_prng_impl',
             'jax_enable_x64', 'jax_threefry_partitionable')
_SHORT = 12  # characters of a digest
_LEAST = 'jax_persistent_cache_min_compile_time_secs'  # of what is kept
_WORTHWHILE = .1  # jax's own is 1 s: a step has some that take less


def keep_programs() -> None:
  """Compiled programs are kept (cache.py), for later runs on this machine.

  Those of another processor, or number of its cores, apart: XLA compiles for
  them on CPUs, and jax, which finds programs there, does not ask. Not where
  JAX_COMPILATION_CACHE_DIR names another folder, or
  JAX_ENABLE_COMPILATION_CACHE=false forbids it. A folder that cannot be made is
  said.
  """
  if (jax.config.jax_compilation_cache_dir is not None
      or not jax.config.jax_enable_compilation_cache):
    return
  programs = cache.folder('programs')
  cache.tidy(programs)
  named = json.dumps([*_of_host().values(), os.environ.get('NPROC')])
  folder = programs / hashlib.sha256(named.encode()).hexdigest()[:_SHORT]
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as problem:
    distributed.say(f'compiled programs are not kept: {problem}')
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  if _LEAST.upper() not in os.environ:
    jax.config.update(_LEAST, _WORTHWHILE)


def note(workdir: pathlib.Path, resumed: bool) -> None:
  """Records the surroundings; says what has changed if a run is `resumed`."""
  before, now = distributed.in_main(lambda: _update(workdir))
  if not resumed or before is None:
    return
  # What only one of them has is of a version that recorded more.
  changes = [f'{name} ({before[name]} before, {now[name]} now)'
             for name in sorted(before.keys() & now.keys())
             if before[name] != now[name]]
  if changes:
    distributed.say(
        'warning: this run was begun in other surroundings, its last digits '
        f'may differ from here on: {", ".join(changes)}')


def _update(workdir: pathlib.Path) -> list[dict[str, Any] | None]:
  """Records the surroundings; what they were, and are."""
  now = found()
  return [record.update(workdir, 'surroundings', now), now]


def found() -> dict[str, Any]:
  """{name: value} of this process and its devices, data as JSON has it."""
  device = jax.devices()[0]
  of_host = {}
  if device.platform == 'cpu':  # it compiles for the processor and its threads
    of_host = _of_host()
  return {
      'python': platform.python_version(), **of_program(),
      'platform': device.platform, 'device': device.device_kind,
      # Of its compiler, driver or runtime, in several lines.
      'platform_version': ' '.join(device.client.platform_version.split()),
      'devices': jax.device_count(), 'processes': jax.process_count(),
      **of_host,
      **{name: os.environ.get(name) for name in _VARIABLES}}


def of_program() -> dict[str, Any]:
  """Those that all processes of a run must have alike."""
  return {**{name: digests.release(name) for name in _PACKAGES},
          'r1jax': digests.of_code()[:_SHORT],
          **{name: getattr(jax.config, name) for name in _SETTINGS}}


def _of_host() -> dict[str, Any]:
  return {'processor': _processor(), 'cores': _cores()}


def _cores() -> int:
  """The processor cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _processor() -> str:
  """The model of the processor, where the system tells it."""
  path = pathlib.Path('/proc/cpuinfo')
  lines = path.read_text('utf-8').splitlines() if path.exists() else []
  names = [line.partition(':')[2].strip() for line in lines
           if line.startswith('model name')]
  return names[0] if names else platform.machine()
