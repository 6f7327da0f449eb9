"""Compiles the programs of a stage for a machine, and measures each."""

from collections.abc import Iterator, Mapping
import functools
import glob
import math
import os
import re
import time
from typing import Any, NamedTuple

import jax

from r1jax.kernels import exchange
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.plan import programs
from r1jax.plan import topology as topology_lib

# The compiler optimises little: it takes a fifth of the time, and bytes and
# peaks are a little higher.
_LEAST_EFFORT = {'exec_time_optimization_effort': -1.}
_UNITS = {'B': 1, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30, 'TiB': 2**40}
_ROW = re.compile(  # of the compiler's table of buffers
    r'\s*\S+\(\s*\d+%\);\s*([\d.]+)(\w+);\s*\d+;\s*\d+; (.+)$')
_SHOWN = 5  # of the largest buffers


class Memory(NamedTuple):
  """Bytes in the memory of a device while a program runs."""
  kinds: dict[str, int]  # of the state, of gradients, of keys and values, ...
  arguments: int
  peak: int  # of the program, its arguments included
  beside: int  # what lies there and is no argument
  code: int

  @property
  def total(self) -> int:
    return self.peak + self.beside + self.code


class Compiled(NamedTuple):
  """A program that was compiled, or does not fit."""
  part: programs.Part
  seconds: float  # of compilation
  host_bytes: float  # peak memory of this process so far
  problem: str | None  # the compiler's words, if it does not fit
  largest: tuple[tuple[float, str], ...]  # then: bytes and shapes of buffers
  memory: Memory | None
  outside: counts.Counts | None  # the sampler's prefill, or the whole program
  inside: counts.Counts | None  # the sampler's tokens


def stage(config, mesh: jax.sharding.Mesh, topology: topology_lib.Topology,
          log_folder: str = '') -> Iterator[Compiled]:
  """Compiles a stage's programs, one after the other.

  Args:
    config: of the stage.
    mesh: of the machine's devices.
    topology: the machine.
    log_folder: where libtpu writes what it says of memory.
  """
  parts = programs.KINDS[config.stage](config, mesh)
  results = None
  while True:
    try:
      part = parts.send(results)
    except StopIteration:
      return
    done, results = _compile(part, mesh, topology, log_folder)
    yield done


def _compile(part: programs.Part, mesh: jax.sharding.Mesh,
             topology: topology_lib.Topology, log_folder: str
             ) -> tuple[Compiled, Any]:
  """The measured program, and its abstract results."""
  started = time.perf_counter()
  lowered = part.jitted.trace(*part.args).lower(
      lowering_platforms=(topology.chip.platform,))
  results = lowered.out_info
  try:
    executable = lowered.compile(_LEAST_EFFORT)
  except jax.errors.JaxRuntimeError as problem:
    if not memory.is_lack(problem):
      raise
    said = memory.said(problem)
    # The next program has results of unknown shardings: as a batch's.
    return Compiled(
        part, time.perf_counter() - started, memory.peak_mib() * 2**20, said,
        largest_buffers(_last_log(log_folder)), None, None, None
    ), jax.tree.map(lambda x: _as_batch(x, mesh), results)
  seconds = time.perf_counter() - started
  program = hlo.parse(executable.as_text())
  outside, inside = counts.count(
      program, groups.of_mesh(mesh),
      functools.partial(_trips, part.trips))
  if part.cache is None:  # its loops end by their data, too: rounds
    outside.add(inside)
  return Compiled(
      part, seconds, memory.peak_mib() * 2**20, None, (),
      _memory(part, executable, program, topology.chip.platform), outside,
      inside
  ), sharding.abstract_arrays(results, executable.output_shardings)


def _trips(known: Mapping[str, float], loop: counts.Loop) -> float:
  """How often a loop runs that ends by its data.

  Args:
    known: of the part's own loops, by their names.
    loop: one of these; or over rounds of an exchange, of a balanced load.

  Raises:
    ValueError: it is neither.
  """
  if loop.name.endswith('rounds') and loop.exchanges:
    rows = max(x.dims[0] for x in loop.arrays
               if x.dtype == 's32' and len(x.dims) == 1)
    return float(-(-rows // (loop.exchanges * exchange.round_rows(
        rows, loop.exchanges, rows))))
  if loop.name not in known:
    raise ValueError(f'a loop that ends by its data is not known: {loop}')
  return known[loop.name]


def _as_batch(x: Any, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=(
      sharding.prompt_sharding(mesh, x.shape[0]) if x.shape else
      sharding.replicated(mesh)))


###############################################################################
# Memory
###############################################################################


def device_bytes(tree: Any, itemsize: int | None = None) -> int:
  """The bytes of a tree of abstract arrays on one device.

  With an `itemsize`, as if each element had so many bytes. What is offloaded to
  the memory of the hosts has none.
  """
  return sum(
      math.prod(x.sharding.shard_shape(x.shape)) * (itemsize or (
          x.dtype.itemsize)) for x in jax.tree.leaves(tree)
      if x.sharding.memory_kind != 'pinned_host')


def _memory(part: programs.Part, executable, program: hlo.Program,
            platform: str) -> Memory:
  stats = executable.memory_analysis()
  kinds = {name: device_bytes(tree) for name, tree in part.state.items()}
  given = {id(leaf) for leaf in jax.tree.leaves(part.args)}
  beside = sum(device_bytes(leaf) for tree in part.state.values()
               for leaf in jax.tree.leaves(tree) if id(leaf) not in given)
  if part.trains is not None:
    kinds['gradients'] = device_bytes(part.trains, itemsize=4)
  if part.cache is not None:
    kinds['keys and values'] = _cache_bytes(program, part.cache)
  arguments = stats.argument_size_in_bytes
  # XLA's peak counts what is given in the memory of the hosts, too.
  peak = stats.peak_memory_in_bytes - stats.host_argument_size_in_bytes
  if platform == 'cpu':
    peak = arguments + stats.temp_size_in_bytes  # which CPUs leave out of it
  return Memory(kinds, arguments, peak, beside,
                stats.generated_code_size_in_bytes)


def _cache_bytes(program: hlo.Program, size: int) -> int:
  """The keys and values that the sampler's last loop carries, of one device.

  They are its arrays with `size` tokens, heads and layers or rows.
  """
  loops = [[x for x in one.arrays if len(x.dims) >= 4 and size in x.dims[-2:]]
           for one in program.entry.instructions.values()
           if one.opcode == 'while']
  return max((sum(x.bytes for x in arrays) for arrays in loops), default=0)


def whole_parameters(placed_params: Any, least: int
                    ) -> list[tuple[str, int]]:
  """(name, bytes) of parameters that every device has whole, of `least` bytes.

  A single device has all of them, and none is named.
  """
  found = []
  for path, x in jax.tree_util.tree_leaves_with_path(placed_params):
    size = math.prod(x.shape) * x.dtype.itemsize
    if (size >= least and x.sharding.is_fully_replicated
        and x.sharding.num_devices > 1):
      found.append((sharding.path_name(path), size))
  return found


def _last_log(folder: str) -> str:
  """What libtpu has last written about errors; '' if nothing."""
  found = sorted(glob.glob(os.path.join(folder, '*.log.ERROR.*')),
                 key=os.path.getmtime) if folder else []
  if not found:
    return ''
  with open(found[-1], encoding='utf-8', errors='replace') as file:
    return file.read().rpartition('Ran out of memory')[2]


def largest_buffers(text: str) -> tuple[tuple[float, str], ...]:
  """(bytes, shapes) of the largest buffers in the compiler's own table."""
  rows = {(float(size) * _UNITS[unit], shapes.strip())
          for size, unit, shapes in map(re.Match.groups, filter(
              None, map(_ROW.match, text.splitlines())))}
  return tuple(sorted(rows, reverse=True)[:_SHOWN])
