"""Metrics of a run: to metrics.jsonl, TensorBoard and the progress line."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import os
import pathlib
import sys
import time
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.training import files

TOKENS = 'perf/tokens'  # a step that reports this gets perf/tokens_per_second


class Diverged(RuntimeError):
  """Too many updates in a row had gradients that are not finite."""


class Log:
  """Metrics and the progress line, without making a step wait for them.

  The figures of a step that is finished when they are taken are reported at
  once; those of a step the device still works on are fetched when the next
  one has been dispatched. `time/step_seconds` is the time from the end of one
  step to the end of the next, without what `aside` leaves out.
  """

  def __init__(self, workdir: pathlib.Path, shown: Mapping[str, str], *,
               start_step: int, total_steps: int, max_skipped_steps: int,
               tensorboard: bool):
    """`shown` maps a metric to its word on the progress line."""
    self._shown = shown
    self._max_skipped = max_skipped_steps
    self._writer = MetricWriter(
        workdir, start_step=start_step, tensorboard=tensorboard)
    self._progress = None
    if distributed.is_main():
      self._progress = Progress(total_steps)
    self._unreported = None  # step, metrics
    self._unchecked = None  # step, updates skipped in a row by then
    self._ended_at = time.monotonic()  # the step before

  def take(self, step: int, metrics: Mapping[str, Any],
           state: types.TrainState):
    """Takes the figures of `step`, which led to `state`."""
    self._conclude()
    self._unreported = step, metrics
    # A copy, for the next step may donate the state.
    skipped = [part.skipped for part in (state, state.critic) if part]
    self._unchecked = step, jnp.max(jnp.stack(skipped))
    if state.skipped.is_ready():
      self._report()

  @contextlib.contextmanager
  def aside(self, state: types.TrainState) -> Iterator[None]:
    """Leaves what is done with a finished `state` out of the steps' time.

    Nothing that was taken is unreported when it begins: what a checkpoint is
    saved behind must be on disk before it.
    """
    self._conclude()
    self._writer.flush()
    jax.block_until_ready(state)
    began = time.monotonic()
    yield
    self._ended_at += time.monotonic() - began

  def close(self):
    self._writer.close()
    if self._progress is not None:
      self._progress.close()

  def _conclude(self):
    """Ends with the step before, the same way on every host."""
    self._report()
    if self._unchecked is None:
      return
    step, skipped = self._unchecked
    self._unchecked = None
    if (skipped := int(jax.device_get(skipped))) >= self._max_skipped:
      self._writer.flush()
      raise Diverged(
          f'step {step}: {skipped} updates in a row had gradients that are not '
          'finite and were skipped (config.optim.max_skipped_steps = '
          f'{self._max_skipped}); lower config.optim.lr or look at '
          'optim/grad_norm in metrics.jsonl')

  def _report(self):
    """Writes the figures that were taken, waiting for the device if it must."""
    if self._unreported is None:
      return
    step, metrics = self._unreported
    self._unreported = None
    metrics = jax.device_get(metrics)
    now = time.monotonic()
    seconds, self._ended_at = now - self._ended_at, now
    metrics = metrics | {'time/step_seconds': seconds,
                         'perf/peak_memory_mib': memory.peak_mib()}
    if TOKENS in metrics:
      metrics['perf/tokens_per_second'] = float(metrics[TOKENS]) / seconds
    self._writer.write(step, metrics)
    if self._progress is not None:
      self._progress.update(step + 1, {
          word: float(metrics[name]) for name, word in self._shown.items()
          if name in metrics})


class MetricWriter:
  """Writes {name: scalar} by step, from the first process alone.

  On a resume at `start_step` the lines of that step and later are dropped
  first, since the run is about to write them again. TensorBoard's files are
  appended to, never rewritten: after a kill the steps done again are in them
  twice, with the same values.
  """

  def __init__(self, workdir: str | os.PathLike, *, start_step: int,
               tensorboard: bool):
    self._active = distributed.is_main()
    self._tensorboard = None
    if not self._active:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    files.truncate_rows(self._path, start_step)
    if tensorboard:
      self._tensorboard = _tensorboard_writer(workdir / 'tensorboard')

  def write(self, step: int, metrics: Mapping[str, Any]):
    """Adds the row of `step`; an array of one element counts as a scalar."""
    if not self._active:
      return
    scalars = {name: _scalar(name, value) for name, value in metrics.items()}
    files.append_rows(self._path, [{'step': step, **scalars}])
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, scalars)

  def flush(self):
    """Puts on disk what TensorBoard's writer still holds."""
    if self._tensorboard is not None:
      self._tensorboard.flush()

  def close(self):
    if self._tensorboard is not None:
      self._tensorboard.close()


def _scalar(name: str, value: Any) -> int | float:
  array = np.asarray(value)
  if array.size != 1:
    raise ValueError(
        f'metric {name}: expected a scalar, received shape {array.shape}')
  if np.issubdtype(array.dtype, np.integer):
    return int(array.item())
  return float(array.item())


def _tensorboard_writer(directory: pathlib.Path):
  """Returns clu's writer. It needs TensorFlow, which this imports (seconds)."""
  try:
    from clu import metric_writers
  except ModuleNotFoundError as error:
    raise ImportError(
        f'log.tensorboard needs the package {error.name!r}, which is not '
        'installed: pip install clu tensorboard tensorflow, or set '
        '--config.log.tensorboard=False to keep metrics.jsonl alone'
    ) from error
  # clu has imported TensorFlow; the accelerator is JAX's.
  sys.modules['tensorflow'].config.set_visible_devices([], 'GPU')
  return metric_writers.SummaryWriter(str(directory))


_BAR = range(6, 17)  # columns, of which as many as there is room for
_LINE_SECONDS = 2.  # at least between two plain lines


class Progress:
  """Shows step, values, and time left.

  On a terminal one line is redrawn in place; elsewhere a plain line is written
  every two seconds at most, so that logs stay readable. A terminal too narrow
  for the whole line loses the bar first and then the line's end.
  """

  def __init__(self, total_steps: int, out: TextIO | None = None, *,
               clock: Callable[[], float] = time.monotonic):
    self._total = total_steps
    self._out = sys.stderr if out is None else out
    self._clock = clock
    self._live = self._out.isatty()
    self._mark: tuple[int, float] | None = None  # rates are measured from here
    self._shown_at = float('-inf')

  def update(self, step: int, values: dict[str, float] | None = None):
    """Shows that `step` steps are done, with `values` under their names."""
    now = self._clock()
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
    if self._mark is None:
      self._mark = (step, now)
    mark_step, mark_time = self._mark
    if step <= mark_step:
      return None
    return (now - mark_time) / (step - mark_step) * (self._total - step)

  def _draw(self, step: int, line: str):
    columns = self._columns() - 1  # a full last column wraps on some terminals
    bar = min(columns - len(line) - 2, _BAR[-1])
    if bar in _BAR:
      full, empty = ('━', '─') if self._takes('━─') else ('=', '-')
      done = round(bar * min(step / max(self._total, 1), 1))
      line = f'{full * done}{empty * (bar - done)}  {line}'
    self._out.write(f'\r{line[:max(columns, 0)]}\x1b[K')
    self._out.flush()

  def _print(self, text: str):
    self._out.write(text + '\n')
    self._out.flush()

  def _columns(self) -> int:
    try:
      return os.get_terminal_size(self._out.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):  # no file, or no terminal
      return 80

  def _takes(self, text: str) -> bool:
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
