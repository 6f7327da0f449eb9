"""A step that hangs, since a host was lost or waits for what never comes.

Where a process is killed, a collective of the others may wait for it for ever.
"""

from collections.abc import Callable
import contextlib
import threading
import time

import jax

from r1jax.training import timing


class Watch(contextlib.AbstractContextManager):
  """Calls `found` once a step of several processes has taken too long.

  What counts is the time of a step's own work, while this process runs: not
  what is done `aside` on the clock, as evaluations and saves, nor while the
  process is stopped, or its machine sleeps. A step counts from its `begin`.
  """

  def __init__(self, seconds: float, clock: timing.Clock,
               found: Callable[[str], None]):
    """`seconds` that a step may take, 0 for any; `found` takes words."""
    self._seconds, self._clock, self._found = seconds, clock, found
    self._step: int | None = None
    self._since = 0.
    self._ended = threading.Event()
    if seconds and jax.process_count() > 1:
      threading.Thread(target=self._watch, daemon=True).start()

  def __exit__(self, *_):
    self._ended.set()

  def begin(self, step: int):
    """A step begins, and the one before has ended."""
    self._since, self._step = time.time(), step

  def _watch(self):
    pause = min(1., self._seconds / 10)
    seen, spent = None, 0.
    while not self._ended.wait(pause):
      if seen != self._step:
        seen, spent = self._step, 0.
      elif seen is not None and not self._clock.is_aside:
        spent += pause
      if spent >= self._seconds:
        at = time.strftime('%H:%M:%S', time.localtime(self._since))
        self._found(f'step {seen + 1}, begun at {at}, has not ended within '
                    f'config.hang_seconds = {self._seconds:g}')
        return
