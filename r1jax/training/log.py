"""A run's figures, on their way to the files, the terminal and the alarm."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp

from r1jax import types
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.training import metrics as metrics_lib
from r1jax.training import progress as progress_lib

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
    self._writer = metrics_lib.MetricWriter(
        workdir, start_step=start_step, tensorboard=tensorboard)
    self._progress = None
    if distributed.is_main():
      self._progress = progress_lib.Progress(total_steps)
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
