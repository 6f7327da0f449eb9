"""SIGTERM and SIGINT as a request to stop after the current step."""

import signal


class StopSignal:
  """Whether SIGTERM or SIGINT came; a second one ends the program at once."""

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __enter__(self):
    self.asked = False
    self._before = {number: signal.signal(number, self._ask)
                    for number in self._SIGNALS}
    return self

  def _ask(self, number, frame):
    del number, frame
    self.asked = True
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __exit__(self, *exc):
    self._restore()
