"""The time of a run: its steps, their parts, and the whole over all resumes.

A step lasts from the end of the step before to its own end. Nothing waits in
order to time it: its metrics are fetched when the next step has been
dispatched. Where a step waits for the device anyway, as for a rollout that the
host scores, its stage reads the clock and adds the readings to its metrics:

    rollout = sample(...)                  # queued after the last update
    metrics[timing.BEGAN] = timing.wait_for(state)  # the end of that update
    scored = score(rollout)                # waits for the rollout, on the host
    metrics[timing.ROLLED_OUT] = timing.now()
    state = update(...)                    # dispatched, not waited for

`Clock` turns them into `timing/rollout_seconds` and `timing/update_seconds`,
which add up to `time/step_seconds`.
"""

from collections.abc import Callable, Iterator
import contextlib
import time
from typing import Any

import jax

# Readings of `now` among the metrics of a step; the log keeps durations.
BEGAN = 'timing/began'  # the step before had ended on the device
ROLLED_OUT = 'timing/rolled_out'  # the rollout was there, with its rewards
# Seconds of scoring by rule, while the rollout was sampled and after it.
SCORED_EARLY = 'timing/scored_while_sampling_seconds'
SCORED_LATE = 'timing/scored_after_sampling_seconds'

now = time.monotonic


def wait_for(tree: Any) -> float:
  """The reading of the clock when all arrays of `tree` are there."""
  jax.block_until_ready(tree)
  return now()


class Clock:
  """Times a run and its steps; what is done `aside` counts for no step."""

  def __init__(self, seconds_before: float = 0., *,
               read: Callable[[], float] = now):
    """`seconds_before`: the run's time before this resume."""
    self._read = read
    self._started = read() - seconds_before
    self._aside = 0.
    self.is_aside = False
    self._step_began = self.step_time()

  def seconds(self) -> float:
    """The run's time so far, over all resumes."""
    return self._read() - self._started

  @contextlib.contextmanager
  def aside(self) -> Iterator[None]:
    """Keeps what is done inside out of the steps' time."""
    began, self.is_aside = self._read(), True
    try:
      yield
    finally:
      self.is_aside = False
      self._aside += self._read() - began

  def step_time(self, reading: float | None = None) -> float:
    """A reading of `now` (by default the present one) without time aside.

    Readings must be converted before more is done `aside`.
    """
    return (self._read() if reading is None else reading) - self._aside

  def begin_steps(self):
    """Starts the first step of this resume."""
    self._step_began = self.step_time()

  def end_step(self, ended: float, rolled_out: float | None = None
               ) -> dict[str, float]:
    """Ends a step and starts the next.

    Args:
      ended: when the step ended, in `step_time`.
      rolled_out: when its rollout was scored, if it has one.

    Returns:
      The seconds that the step and its parts took, as metrics.
    """
    began, self._step_began = self._step_began, ended
    seconds = {'time/step_seconds': ended - began}
    if rolled_out is not None:
      seconds |= {'timing/rollout_seconds': rolled_out - began,
                  'timing/update_seconds': ended - rolled_out}
    return seconds
