"""Several hosts as one program: their number, and what they agree on.

A single machine must never wait for another, so `jax.distributed` is started
only where the environment names more than one process, or on request.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import hashlib
import json
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from r1jax import errors
from r1jax import interrupts
from r1jax import terminal

_COUNTS = (  # variables that hold the number of processes
    'JAX_NUM_PROCESSES',
    'SLURM_STEP_NUM_TASKS',
    'OMPI_COMM_WORLD_SIZE',
    'MEGASCALE_NUM_SLICES',
)
_LEAVE_SECONDS = 60  # in which all processes leave; they end together
_LISTS = ('TPU_WORKER_HOSTNAMES', 'TPU_PROCESS_ADDRESSES')  # comma-separated
_FEW = 4  # differences that are named
_SHORT = 12  # characters of a digest that is shown


def process_count(environment: Mapping[str, str]) -> int:
  """The number of processes by the launcher's environment; 1 if not set."""
  counts = [int(environment[name]) for name in _COUNTS
            if environment.get(name, '').isdigit()]
  lists = [len(environment[name].split(',')) for name in _LISTS
           if environment.get(name)]
  return max([1, *counts, *lists])


def initialize(force: bool = False) -> None:
  """Joins the other processes, if there are any; before any other use of jax.

  `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` describe
  a cluster by hand; TPU pods, SLURM and Open MPI are detected. `force` is for a
  TPU pod whose machines have no such variables: there JAX asks the metadata
  server.

  Raises:
    ConfigError: the variables do not describe a cluster that there is.
  """
  described = ('JAX_COORDINATOR_ADDRESS' in os.environ
               or process_count(os.environ) > 1)
  if not force and not described:
    return
  count, index = (os.environ.get(name)
                  for name in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'))
  try:
    jax.distributed.initialize(
        num_processes=None if count is None else int(count),
        process_id=None if index is None else int(index),
        shutdown_timeout_seconds=_LEAVE_SECONDS)
  except (RuntimeError, ValueError) as problem:
    raise errors.ConfigError(
        '', 'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in '
        f'the environment: {str(problem).partition(chr(10))[0]}') from problem
  interrupts.join_others()


def is_main() -> bool:
  """Whether this process is the one that writes files and prints."""
  return jax.process_index() == 0


def say(text: str) -> None:
  """Prints a line, in the main process only and if it can be printed."""
  if is_main():
    terminal.say(text)


def any_process(flag: bool) -> bool:
  """Whether `flag` holds in any process; every process must call this."""
  if jax.process_count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def check_stopped() -> None:
  """Raises `interrupts.Stopped` in all processes if a signal asked one to stop.

  Every process must call this, where no state is lost.
  """
  if any_process(interrupts.asked()):
    raise interrupts.Stopped


def signals_noted() -> contextlib.AbstractContextManager:
  """Inside, a process that others would wait for does not raise alone."""
  if jax.process_count() == 1:
    return contextlib.nullcontext()
  return interrupts.noted()


def in_main(function: Callable[[], Any]) -> Any:
  """What `function` gives in the main process, which alone calls it.

  As `together`, whose words hold here, too.
  """
  return together(lambda: function() if is_main() else None)[0]


def together(function: Callable[[], Any]) -> list[Any]:
  """What `function` gives in each process, data as JSON has it.

  Every process must call this. A ConfigError or RunError that one of them
  raises is raised in all: where one must stop, none may wait for it. Within
  `function` no process may wait for another.
  """
  if jax.process_count() == 1:
    return [function()]
  value = problem = None
  try:
    value = function()
  except (errors.ConfigError, errors.RunError) as error:
    problem = error
  values, problems = zip(*gather([value, problem and problem.args]))
  if problem is not None:
    raise problem
  for words in filter(None, problems):
    raise (errors.ConfigError if len(words) > 1 else errors.RunError)(*words)
  return [*values]


def alike(function: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
  """What `function` gives, which must be the same in every process.

  As `together`, whose words hold here, too. Processes that were given another
  configuration or other files would wait for each other in different programs,
  or learn from different rows.

  Raises:
    ConfigError: in all processes; names what the first that differs from the
      main process has otherwise.
  """
  first, *others = together(function)
  for number, other in enumerate(others, 1):
    words = [name if isinstance(value, Mapping) else
             f'{name} ({errors.shown(value)}, not {errors.shown(first[name])})'
             for name, value in other.items()
             if name in first and value != first[name]]
    words += sorted(first.keys() ^ other.keys())  # that only one has
    if words:
      more = f' and {len(words) - _FEW} more' if len(words) > _FEW else ''
      raise errors.ConfigError(
          '', f'process {number} differs from process 0 in '
          f'{", ".join(words[:_FEW])}{more}; all processes of a run need the '
          'same')
  return first


def check_rows(split: str, arrays: Iterable[np.ndarray]) -> None:
  """Refuses data that this process has read otherwise than another.

  Every process reads all rows, and takes its own of a batch. A user's function
  that goes through a set, or asks the time, gives each of them others.

  Args:
    split: of the data, for the error.
    arrays: what was read; not looked at in a single process.

  Raises:
    ConfigError: in all processes.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256()
  for x in arrays:
    digest.update(np.ascontiguousarray(x))
  alike(lambda: {f'the rows of split {split!r} that config.data reads':
                 digest.hexdigest()[:_SHORT]})


def gather(value: Any) -> list[Any]:
  """Every process's `value`, data as JSON has it; all must call this."""
  if jax.process_count() == 1:
    return [value]
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(data.size))
  room = 1 << int(sizes.max()).bit_length()  # each size is a compiled program
  rows = multihost_utils.process_allgather(
      np.pad(data, (0, room - data.size)))
  return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]
