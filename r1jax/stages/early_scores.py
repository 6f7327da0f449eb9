"""Scores of responses that have ended, made while others are being drawn."""

from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

from r1jax.stages import pieces
from r1jax.training import timing


class EarlyScores:
  """Calls a function with responses that have ended, in a thread of its own.

  One call at a time; what ends meanwhile is for the next. Whatever a call
  raises, `add` or `finish` raises. Used in a `with`, whose end waits for a call
  that is under way.
  """

  def __init__(self, score: Callable[[pieces.Ended], Any]):
    self._score, self._thread = score, futures.ThreadPoolExecutor(1)
    self._job = None  # the call that is under way
    self._waiting: pieces.Ended = {}
    self._given, self._found, self._spans = set(), [], []

  def add(self, ended: pieces.Ended) -> None:
    """Takes responses, for this call or the next."""
    self._waiting |= ended
    if self._job is None or self._job.done():
      self._collect()
      self._given |= self._waiting.keys()
      self._job = self._thread.submit(self._timed, self._waiting)
      self._waiting = {}

  def finish(self, every: pieces.Ended) -> tuple[list[Any], dict[str, float]]:
    """The results of all calls, the last with what is left of `every`.

    Also the seconds that scoring took before this, and from here on.
    """
    began = timing.now()
    self._collect()
    left = {row: said for row, said in every.items() if row not in self._given}
    if left or not self._found:
      self._found.append(self._timed(left))
    return self._found, {
        timing.SCORED_EARLY: sum(self._before(began)),
        timing.SCORED_LATE: timing.now() - began}

  def _before(self, time: float) -> Iterable[float]:
    return (max(min(ended, time) - began, 0.) for began, ended in self._spans)

  def _collect(self) -> None:
    if self._job is not None:
      self._found.append(self._job.result())
      self._job = None

  def _timed(self, ended: pieces.Ended) -> Any:
    began = timing.now()
    found = self._score(ended)
    self._spans.append((began, timing.now()))
    return found

  def __enter__(self) -> 'EarlyScores':
    return self

  def __exit__(self, *exc_info) -> None:
    self._thread.shutdown()
