"""What the bits of a run depend on beside its config and data.

With the same versions, devices and processor cores a resumed run ends bitwise
as one that was never stopped; with others its last digits differ, since sums
are taken in another order. So they are recorded, and a change is said.
"""

from importlib import metadata
import os
import pathlib
import platform
from typing import Any

import jax

from r1jax.parallel import distributed
from r1jax.training import record

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NPROC')  # that XLA reads
_SETTINGS = ('jax_default_matmul_precision', 'jax_default_prng_impl',
             'jax_enable_x64', 'jax_threefry_partitionable')


def note(workdir: pathlib.Path, resumed: bool) -> None:
  """Records the surroundings; says what has changed if a run is `resumed`."""
  before, now = distributed.in_main(lambda: _update(workdir))
  if not resumed or before is None:
    return
  changes = [f'{name} ({before.get(name)} before, {now.get(name)} now)'
             for name in sorted(before.keys() | now.keys())
             if before.get(name) != now.get(name)]
  if changes:
    distributed.say(
        f'warning: this run was begun in other surroundings, its last digits '
        f'may differ from here on: {", ".join(changes)}')


def _update(workdir: pathlib.Path) -> list[dict[str, Any] | None]:
  """Records the surroundings; what they were, and are."""
  now = found()
  return [record.update(workdir, 'surroundings', now), now]


def found() -> dict[str, Any]:
  """{name: value} of this process and its devices, data as JSON has it."""
  device = jax.devices()[0]
  versions = {name: metadata.version(name) for name in _PACKAGES}
  of_host = {}
  if device.platform == 'cpu':  # it compiles for the processor and its threads
    of_host = {'processor': _processor(), 'cores': _cores()}
  return {
      'python': platform.python_version(), **versions,
      'platform': device.platform, 'device': device.device_kind,
      'devices': jax.device_count(), 'processes': jax.process_count(),
      **of_host,
      **{name: os.environ.get(name) for name in _VARIABLES},
      **{name: getattr(jax.config, name) for name in _SETTINGS}}


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
