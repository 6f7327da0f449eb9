"""Where the time of a process goes, by what its host does.

    trace     tracing and lowering a program, which every process does anew
    compile   compiling it, or reading it where programs are kept
              (training/surroundings.py)
    dispatch  calling it, until the call returns
    wait      nothing: the devices are at work
    host      work of its own, and transfers
"""

import collections
from collections.abc import Iterable, Iterator
import contextlib
import os
import time
from typing import Any

import jax

from r1jax.parallel import memory

KINDS = ('trace', 'compile', 'dispatch', 'wait', 'host')
_KIND_OF_EVENT = {  # of jax.monitoring
    '/jax/core/compile/jaxpr_trace_duration': 'trace',
    '/jax/core/compile/jaxpr_to_mlir_module_duration': 'trace',
    memory.COMPILED: 'compile'}
_KEPT = '/jax/compilation_cache/cache_hits'
_IMPORTED = time.perf_counter()

Times = dict[str, collections.Counter]  # {part: {kind, or 'cpu': seconds}}


class Clock:
  """Gives all time to a part and a kind, from the start of the process on."""

  def __init__(self):
    self.programs = self.kept = 0  # compiled or read, and of them read
    self._last, self._cpu = time.perf_counter() - process_seconds(), 0.
    self._in_jax, self._times = collections.Counter(), {}

  @contextlib.contextmanager
  def listening(self) -> Iterator[None]:
    """Meanwhile jax tells what it traces and compiles."""
    jax.monitoring.register_event_duration_secs_listener(self._spent)
    jax.monitoring.register_event_listener(self._happened)
    try:
      yield
    finally:
      jax.monitoring.unregister_event_duration_listener(self._spent)
      jax.monitoring.unregister_event_listener(self._happened)

  def add(self, part: str, kind: str) -> None:
    """All since the last call was of this kind, but what jax told meanwhile."""
    now, cpu = time.perf_counter(), time.process_time()
    times = self._times.setdefault(part, collections.Counter())
    times.update(self._in_jax)
    times[kind] += now - self._last - self._in_jax.total()
    times['cpu'] += cpu - self._cpu
    self._in_jax.clear()
    self._last, self._cpu = now, cpu

  def wait(self, part: str, results: Any) -> Any:
    """The results of a program that was called last, once they are there."""
    self.add(part, 'dispatch')
    jax.block_until_ready(results)
    self.add(part, 'wait')
    return results

  def take(self) -> Times:
    """What was added since this was called last."""
    times, self._times = self._times, {}
    return times

  def _spent(self, event: str, seconds: float, **_) -> None:
    kind = _KIND_OF_EVENT.get(event)
    if kind is not None:
      self._in_jax[kind] += seconds
      self.programs += kind == 'compile'

  def _happened(self, event: str, **_) -> None:
    self.kept += event == _KEPT


def by_kind(parts: Iterable[collections.Counter]) -> dict[str, float]:
  """The sum of parts: `seconds`, those of each kind, and `cpu_seconds`."""
  total = collections.Counter()
  for times in parts:
    total.update(times)
  kinds = {kind: total[kind] for kind in KINDS if kind in total}
  return {'seconds': sum(kinds.values()), **kinds, 'cpu_seconds': total['cpu']}


def process_seconds() -> float:
  """Since this process began; where no system tells, since this import."""
  if not os.path.exists('/proc/self/stat'):
    return time.perf_counter() - _IMPORTED
  with open('/proc/self/stat', encoding='utf-8') as file:
    ticks = int(file.read().rpartition(')')[2].split()[19])  # starttime
  now = time.clock_gettime(time.CLOCK_BOOTTIME)
  return now - ticks / os.sysconf('SC_CLK_TCK')
