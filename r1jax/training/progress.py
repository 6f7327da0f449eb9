"""How far a run is, on the terminal: one line redrawn, or plain log lines."""

from collections.abc import Callable
import math
import os
import sys
import time
from typing import TextIO

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
