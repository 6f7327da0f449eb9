"""The log of a run: metrics.jsonl, TensorBoard, the progress line.

`Log` takes the metrics of each step while the device may still compute them,
and passes them to `MetricWriter` and `Progress` when they are there.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import os
import pathlib
import socket
import sys
import time
from typing import Any, NamedTuple, TextIO

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax import terminal
from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.training import files
from r1jax.training import history
from r1jax.training import timing

TOKENS = 'perf/tokens'  # a step that reports this gets perf/tokens_per_second

Metrics = Mapping[str, Any]  # name -> scalar, of the device or of the host


class Diverged(errors.RunError):
  """Too many updates in a row had numbers that are not finite."""


def skipped(state: types.TrainState) -> int:
  """How many updates in a row were skipped, of the policy or of its critic."""
  return int(jax.device_get(_skipped(state)))


def _skipped(state: types.TrainState) -> jax.Array:
  return jnp.max(jnp.stack(
      [part.skipped for part in (state, state.critic) if part]))


class _Step(NamedTuple):
  """A step that has been taken and not yet reported."""
  number: int
  metrics: Metrics
  rolled_out: float | None  # when its rollout was, in the clock's step_time


class Log:
  """Metrics and the progress line, without making a step wait for them.

  The metrics of a step are fetched when the next step has been dispatched;
  sooner if they are there already, and before anything done `aside`, so that
  none is missing once a checkpoint is saved. With them come the seconds that
  the step and its parts took (training/timing.py).
  """

  def __init__(self, workdir: pathlib.Path, shown: Mapping[str, str], *,
               clock: timing.Clock, total_steps: int, max_skipped_steps: int,
               tensorboard: bool):
    """`shown` maps a metric to its label on the progress line."""
    self._shown = shown
    self._max_skipped = max_skipped_steps
    self._writer = MetricWriter(workdir, tensorboard=tensorboard)
    self._progress = None
    if distributed.is_main():
      self._progress = Progress(total_steps, now=clock.seconds)
    self._unreported: _Step | None = None
    # Step, updates skipped in a row by then.
    self._unchecked: tuple[int, jax.Array] | None = None
    self._fault: errors.RunError | None = None  # in writing
    self._clock = clock
    clock.begin_steps()

  def take(self, step: int, metrics: Metrics, state: types.TrainState,
           evaluate: Callable[[], Metrics] | None = None):
    """Takes the metrics of `step` and reports those of the step before.

    Args:
      step: counts from 0.
      metrics: none may be an array of `state`, which the next step may donate.
      state: after the step.
      evaluate: gives further metrics of this step, not counted in its time.

    Raises:
      Diverged: too many updates in a row had been skipped by the step before.
    """
    metrics = dict(metrics)
    began, rolled_out = (
        self._clock.step_time(metrics.pop(name)) if name in metrics else None
        for name in (timing.BEGAN, timing.ROLLED_OUT))
    self._conclude(began)
    if evaluate is not None:
      with self.aside(state):
        metrics |= evaluate()
    # A copy, since the next step may donate the state.
    count = _skipped(state)
    self._unreported = _Step(step, metrics, rolled_out)
    self._unchecked = step, count
    if _is_ready((metrics, count)):
      self._report()

  @contextlib.contextmanager
  def aside(self, state: types.TrainState) -> Iterator[None]:
    """Keeps what is done with a finished `state` out of the steps' time.

    Everything taken so far is reported first: it must be on disk before a
    checkpoint of a later state is.
    """
    self._conclude()
    self._writer.flush()
    jax.block_until_ready(state)
    with self._clock.aside():
      yield

  def close(self):
    self._writer.close()
    if self._progress is not None:
      self._progress.close()

  def _conclude(self, ended: float | None = None):
    """Reports and checks the step before, the same way on every host."""
    self._report(ended)
    distributed.in_main(self._raise_fault)
    if self._unchecked is None:
      return
    step, count = self._unchecked
    self._unchecked = None
    if (count := int(jax.device_get(count))) >= self._max_skipped:
      self._writer.flush()
      raise Diverged(
          f'step {step}: {count} updates in a row had numbers that are not '
          'finite and were skipped (config.optim.max_skipped_steps = '
          f'{self._max_skipped})')

  def _report(self, ended: float | None = None):
    """Writes the metrics that were taken; waits for the device if need be.

    `ended` is when their step ended, in the clock's step_time; by default when
    its metrics are fetched.
    """
    if self._unreported is None:
      return
    step, self._unreported = self._unreported, None
    metrics = jax.device_get(step.metrics)
    if ended is None:
      ended = self._clock.step_time()
    seconds = self._clock.end_step(ended, step.rolled_out)
    metrics |= seconds | {
        'perf/peak_memory_mib': memory.peak_mib(),
        'perf/host_memory_mib': memory.host_peak_mib()}
    if TOKENS in metrics:
      metrics['perf/tokens_per_second'] = (
          float(metrics[TOKENS]) / seconds['time/step_seconds'])
    try:
      self._writer.write(step.number, metrics)
    except errors.RunError as fault:
      self._fault = fault  # which every process must be told
    if self._progress is not None:
      self._progress.update(step.number + 1, {
          label: float(metrics[name]) for name, label in self._shown.items()
          if name in metrics})

  def _raise_fault(self):
    if self._fault is not None:
      raise self._fault


def _is_ready(tree: Any) -> bool:
  """Whether all arrays are computed; what is on the host is."""
  return all(leaf.is_ready() for leaf in jax.tree.leaves(tree)
             if hasattr(leaf, 'is_ready'))


class MetricWriter:
  """Rows of {name: scalar} by step, written by the first process alone.

  What a killed run had written of later steps is dropped before
  (training/history.py). TensorBoard's files are only appended to: after a kill
  they hold the repeated steps twice, with the same values. They are a
  convenience: where they cannot be written, they end with a warning.
  """

  def __init__(self, workdir: str | os.PathLike, *, tensorboard: bool):
    self._active = distributed.is_main()
    self._tensorboard = None
    if not self._active:
      return
    workdir = pathlib.Path(workdir)
    self._path = workdir / history.METRICS
    if tensorboard:
      self._tensorboard = _TensorBoard(workdir / 'tensorboard')

  def write(self, step: int, metrics: Mapping[str, Any]):
    """Adds the row of `step`; an array of one element counts as a scalar."""
    if not self._active:
      return
    scalars = {name: _scalar(name, value) for name, value in metrics.items()}
    files.append_rows(self._path, [{'step': step, **scalars}])
    if self._tensorboard is not None:
      self._tensorboard.write(step, scalars)

  def flush(self):
    """Puts on disk what TensorBoard's writer still holds."""
    if self._tensorboard is not None:
      self._tensorboard.flush()

  def close(self):
    if self._tensorboard is not None:
      self._tensorboard.close()


class _TensorBoard:
  """A file of TensorBoard's events, until it cannot be written.

  It needs the package `tensorboard` alone: a writer of TensorFlow's would take
  seconds to import, and half a gigabyte.
  """

  def __init__(self, directory: pathlib.Path):
    try:
      from tensorboard.compat.proto import event_pb2
      from tensorboard.summary.writer import record_writer
    except ModuleNotFoundError as error:
      raise errors.ConfigError(
          'log.tensorboard', f'the package {error.name!r} is not installed; '
          'pip install tensorboard, or set --config.log.tensorboard=False to '
          'keep metrics.jsonl alone') from error
    self._event, self._writer = event_pb2.Event, None
    self._path = directory / (  # TensorBoard reads them in the order of names
        f'events.out.tfevents.{time.time():.6f}.{socket.gethostname()}')
    with self._until_it_fails():
      directory.mkdir(parents=True, exist_ok=True)
      self._writer = record_writer.RecordWriter(open(self._path, 'xb'))
    self._write(file_version='brain.Event:2')

  def write(self, step: int, scalars: Mapping[str, int | float]):
    """Adds the values of a step."""
    self._write(step=step, summary=dict(value=[
        dict(tag=name, simple_value=value) for name, value in scalars.items()]))

  def flush(self):
    self._do('flush')

  def close(self):
    self._do('close')

  def _write(self, **fields):
    event = self._event(wall_time=time.time(), **fields)
    self._do('write', event.SerializeToString())

  def _do(self, method: str, *args):
    if self._writer is not None:
      with self._until_it_fails():
        getattr(self._writer, method)(*args)

  @contextlib.contextmanager
  def _until_it_fails(self):
    try:
      yield
    except OSError as problem:
      self._writer = None
      logging.warning('%s ends here, metrics.jsonl goes on: %s', self._path,
                      problem)


def _scalar(name: str, value: Any) -> int | float:
  array = np.asarray(value)
  if array.size != 1:
    raise ValueError(
        f'metric {name}: expected a scalar, received shape {array.shape}')
  if np.issubdtype(array.dtype, np.integer):
    return int(array.item())
  return float(array.item())


_BAR = range(6, 17)  # columns, of which as many as there is room for
_LINE_SECONDS = 2.  # at least between two plain lines


class Progress:
  """The line that shows step, values, and time left.

  On a terminal one line is redrawn in place; elsewhere a plain line is written
  every two seconds at most, so that logs stay readable. A terminal too narrow
  for the whole line loses the bar first and then the line's end.
  """

  def __init__(self, total_steps: int, out: TextIO | None = None, *,
               now: Callable[[], float] = timing.now):
    """`now` reads a clock, in seconds."""
    self._total = total_steps
    self._out = sys.stderr if out is None else out
    self._now = now
    self._live = self._out.isatty()
    self._first: tuple[int, float] | None = None  # step and time, of update
    self._shown_at = float('-inf')

  def update(self, step: int, values: dict[str, float] | None = None):
    """Shows that `step` steps are done, with `values` under their names."""
    now = self._now()
    left = self._seconds_left(step, now)
    if not self._live and (
        now - self._shown_at < _LINE_SECONDS and step < self._total):
      return
    self._shown_at = now
    width = len(str(self._total))
    words = [f'step {step:{width}d}/{self._total}']
    words += [f'{name} {_short(value)}'
              for name, value in (values or {}).items()]
    if left is not None:
      words.append(f'{_duration(left)} left')
    line = '  '.join(words)
    if self._live:
      self._draw(step, line)
    else:
      self._print(line)

  def close(self):
    """Leaves the last line standing."""
    if self._live and self._shown_at > float('-inf'):
      self._print('')

  def _seconds_left(self, step: int, now: float) -> float | None:
    """From the mean step time, without the first step, which compiles."""
    if self._first is None:
      self._first = step, now
    first_step, first_time = self._first
    if step <= first_step:
      return None
    return (now - first_time) / (step - first_step) * (self._total - step)

  def _draw(self, step: int, line: str):
    columns = self._columns() - 1  # a full last column wraps on some terminals
    bar = min(columns - len(line) - 2, _BAR[-1])
    if bar in _BAR:
      full, empty = ('━', '─') if self._encodes('━─') else ('=', '-')
      done = round(bar * min(step / max(self._total, 1), 1))
      line = f'{full * done}{empty * (bar - done)}  {line}'
    terminal.say(f'\r{line[:max(columns, 0)]}\x1b[K', self._out, end='')

  def _print(self, text: str):
    terminal.say(text, self._out)

  def _columns(self) -> int:
    try:
      return os.get_terminal_size(self._out.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):  # no file, or no terminal
      return 80

  def _encodes(self, text: str) -> bool:
    try:
      text.encode(getattr(self._out, 'encoding', None) or 'ascii')
    except UnicodeEncodeError:
      return False
    return True


def _short(value: float) -> str:
  if not math.isfinite(value):
    return str(value)
  if abs(value) >= 1e6:
    return f'{value / 1e6:.1f}M'
  if abs(value) >= 1e4:
    return f'{value / 1e3:.1f}k'
  return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else (
      f'{minutes}:{seconds:02d}')
