"""Machines by name: v5p:4x4x8, or h100:64; their devices need not be there.

Of a TPU the devices are those of libtpu's description of the topology, for
which XLA compiles as on the machine itself. For GPUs there is no such
description: programs are compiled for CPUs, whose FLOPs and collectives are the
same, while bytes and memory are only near.
"""

import importlib.util
import math
import os
import re
import tempfile
from typing import NamedTuple

import jax
from jax.experimental import topologies

from r1jax import errors
from r1jax.plan import chips

_FIELD = 'plan.topology'
_NAMES = {'v7x': 'tpu7x', 'v5litepod': 'v5e', 'tpu7x': 'v7x'}
# Slices as gcloud names them by their number: the shape of so many chips.
_FLAT = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8',
         128: '8x16', 256: '16x16'}
_CUBES = {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4',
          128: '4x4x8', 256: '4x8x8', 512: '8x8x8', 1024: '8x8x16',
          2048: '8x16x16', 4096: '16x16x16'}
_ENVIRONMENT = {  # of libtpu, which else looks for a machine around it
    'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5p-8', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
# The cores of a v4 are one device, as JAX has them there.
_SETTINGS = {'v4': {'chip_config_name': 'megacore'}}
# On the SparseCores of a v7x the compiler of libtpu 0.0.42 ends in a failed
# check at collectives between few devices.
_V7X_FLAGS = ' '.join(
    f'--xla_tpu_enable_sparse_core_collective_offload_{kind}=false'
    for kind in ('all_gather', 'all_reduce', 'reduce_scatter'))


class Topology(NamedTuple):
  """A machine."""
  name: str  # v5p:4x4x8
  chip: chips.Chip
  chips: int

  @property
  def devices(self) -> int:
    return self.chips * self.chip.devices


def parse(name: str) -> Topology:
  """The machine of a name; gcloud's v5p-256 and v5litepod-16 are translated.

  Raises:
    ConfigError: it is none; names what it may be.
  """
  kind, sign, shape = re.fullmatch(r'([^:-]*)([:-]?)(.*)', name).groups()
  kind = kind.lower()
  chip = chips.CHIPS.get(kind) or chips.CHIPS.get(_NAMES.get(kind, ''))
  if chip is None:
    raise errors.expected(
        _FIELD, f'one of {", ".join(chips.CHIPS)} and its shape, such as '
        'v5p:4x4x8 or h100:64', name)
  if sign == '-' and chip.platform == 'tpu':
    shape = _shape(chip, shape, name)
  sizes = re.fullmatch(
      r'\d+' + r'x\d+' * (max(chip.torus, 1) - 1), shape)
  if not sizes or not all(map(int, shape.split('x'))):
    form = {0: '64', 2: '4x4', 3: '4x4x8'}[chip.torus]
    raise errors.expected(
        _FIELD, f'the shape of a {chip.name}, such as {chip.name}:{form}', name)
  return Topology(f'{chip.name}:{shape}', chip,
                  math.prod(map(int, shape.split('x'))))


def _shape(chip: chips.Chip, number: str, name: str) -> str:
  """The shape of gcloud's v5p-256, which counts cores of v4 and v5p."""
  known = _FLAT if chip.torus == 2 else _CUBES
  cores = 2 if chip.torus == 3 else 1
  found = known.get(int(number) // cores) if number.isdigit() else None
  if found is None or int(number) % cores:
    raise errors.expected(
        _FIELD, 'one of ' + ', '.join(
            f'{chip.name}:{shape}' for shape in known.values()), name)
  return found


def prepare(topology: Topology) -> str:
  """Before any use of jax's devices; returns the folder of libtpu's log."""
  jax.config.update('jax_platforms', 'cpu')
  if topology.chip.platform == 'cpu':
    jax.config.update('jax_num_cpu_devices', topology.devices)
    return ''
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  if topology.chip.name == 'v7x':
    os.environ.setdefault('LIBTPU_INIT_ARGS', _V7X_FLAGS)
  return os.environ.setdefault('TPU_LOG_DIR', tempfile.mkdtemp(prefix='plan-'))


def devices(topology: Topology) -> list[jax.Device]:
  """The machine's devices, which only programs can be compiled for.

  Raises:
    ConfigError: libtpu is not installed, or knows no such machine.
  """
  if topology.chip.platform == 'cpu':
    return jax.devices()[:topology.devices]
  if importlib.util.find_spec('libtpu') is None:
    raise errors.ConfigError(
        _FIELD, f'{topology.name}: a TPU is planned for by its compiler; run: '
        "pip install 'r1jax[tpu]' (or --no-deps libtpu, as jax[tpu] pins it)")
  kind, _, shape = topology.name.partition(':')
  try:
    found = topologies.get_topology_desc(
        f'{_NAMES.get(kind, kind)}:{shape}', platform='tpu',
        **_SETTINGS.get(kind, {}))
  except (RuntimeError, ValueError, NotImplementedError) as problem:
    said = str(problem).partition('\n')[0]
    raise errors.ConfigError(_FIELD, f'{topology.name}: {said}') from problem
  return list(found.devices)
