"""A step that hangs, since a host was lost or waits for what never comes.

Where a process is killed, a collective of the others may wait for it for ever.
"""

from collections.abc import Callable
import contextlib
import math
import threading
import time

import jax

from r1jax.training import timing

_TIMES = 3  # as long as the longest step may one take


class Watch(contextlib.AbstractContextManager):
  """Calls `found` once a step of several processes has taken too long.

  That is `seconds`, or three times the longest step before it if that is more;
  the first step, which compiles, may take any time. What counts is a step's own
  work, while this process runs: not what is done `aside` on the clock, as
  evaluations and saves, nor while the process is stopped or its machine sleeps.
  """

  def __init__(self, seconds: float, clock: timing.Clock,
               found: Callable[[str], None]):
    """`seconds`: 0 for no bound; `found` takes words."""
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
    seen, spent, longest = None, 0., math.inf
    while not self._ended.wait(pause):
      if seen != self._step:
        if seen is not None:  # it has ended
          longest = spent if longest == math.inf else max(spent, longest)
        seen, spent = self._step, 0.
      elif seen is not None and not self._clock.is_aside:
        spent += pause
      bound = max(self._seconds, _TIMES * longest)  # none in the first step
      if spent >= bound:
        at = time.strftime('%H:%M:%S', time.localtime(self._since))
        self._found(f'step {seen + 1}, begun at {at}, has not ended within '
                    f'{bound:.0f} s (config.hang_seconds)')
        return
