"""A run's figures, on their way to the files, the terminal and the alarm."""

from collections.abc import Mapping
import pathlib
import time
from typing import Any

import jax

from r1jax.parallel import distributed
from r1jax.training import metrics as metrics_lib
from r1jax.training import progress as progress_lib

TOKENS = 'perf/tokens'  # a step that reports this gets perf/tokens_per_second


class Diverged(RuntimeError):
  """Too many updates in a row had gradients that are not finite."""


class Log:
  """Metrics and the progress line, a step late so that no step is waited for.

  The device is asked for a step's figures when the next step is already
  dispatched.
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
    self._pending = None
    self._settled_at = time.monotonic()

  def take(self, step: int, metrics: Mapping[str, Any], skipped: jax.Array):
    """Takes the figures of `step` and deals with those of the step before.

    `skipped` is i32[], the updates skipped in a row by then.
    """
    self._report()
    self._pending = step, metrics, skipped

  def settle(self):
    """Deals with what is pending, waiting for the device."""
    self._report()
    self._writer.flush()

  def close(self):
    self._writer.close()
    if self._progress is not None:
      self._progress.close()

  def _report(self):
    if self._pending is None:
      return
    step, metrics, skipped = self._pending
    self._pending = None
    metrics, skipped = jax.device_get((metrics, skipped))
    now = time.monotonic()
    seconds, self._settled_at = now - self._settled_at, now
    metrics = metrics | {'time/step_seconds': seconds}
    if TOKENS in metrics:
      metrics['perf/tokens_per_second'] = float(metrics[TOKENS]) / seconds
    self._writer.write(step, metrics)
    if self._progress is not None:
      self._progress.update(step + 1, {
          word: float(metrics[name]) for name, word in self._shown.items()
          if name in metrics})
    if skipped >= self._max_skipped:
      self._writer.flush()
      raise Diverged(
          f'step {step}: {skipped} updates in a row had gradients that are not '
          'finite and were skipped (config.optim.max_skipped_steps = '
          f'{self._max_skipped}); lower config.optim.lr or look at '
          'optim/grad_norm in metrics.jsonl')
