"""Signals that ask a run to stop: SIGTERM, SIGINT and SIGHUP.

What the first of them does depends on what would be lost:

- while a command is being imported: the process ends at once;
- until a step has been taken, and when all are saved: `Stopped` is raised in
  the main thread, wherever it is (`begin`);
- between (`noted`): the signal is noted, and those who do the work look for it
  where the state is whole (`asked`, `check`).

Of a run in several processes one alone never raises: its signal is noted, and
they agree (`distributed.check_stopped`). The second signal ends the process at
once. Python runs a handler only between two steps of its own, and a compiled
program may take minutes: so a thread reads the signals, too.

Only the standard library is imported, so that a command can begin with this.
"""

from collections.abc import Iterator
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import NoReturn

STATUS = 75  # of a command that was stopped: EX_TEMPFAIL of sysexits.h

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE = 2.  # seconds until a process with nothing to save is ended
_NOTHING = 'stopped; nothing was to be saved'
_AS_ONE = .2  # seconds: a lost terminal sends SIGHUP twice, some launchers too


class Stopped(BaseException):
  """A signal asked this run to stop."""

  def __init__(self):
    super().__init__(_NOTHING)


class _Signals:
  """What is known of signals; one per process, as they are."""
  asked = False  # which the main thread has noted
  begun = False
  handled = False  # by handlers of ours
  noting = 0  # `noted` contexts that are open
  several = False  # processes in this run
  pipe = None  # both ends; the reader's thread runs if there is one


def install() -> None:
  """Sets the handlers; again, where a library has set its own since."""
  _Signals.handled = True
  for number in _SIGNALS:
    # Under nohup a run outlives its terminal.
    if number != signal.SIGHUP or (
        signal.getsignal(number) != signal.SIG_IGN):
      signal.signal(number, _take)
  sys.unraisablehook = _raise_again
  if _Signals.pipe is None:
    _Signals.pipe = os.pipe()
    os.set_blocking(_Signals.pipe[1], False)
    signal.set_wakeup_fd(_Signals.pipe[1], warn_on_full_buffer=False)
    threading.Thread(target=_watch, daemon=True).start()


def begin() -> None:
  """From here on the first signal is raised as `Stopped`, or noted."""
  _Signals.begun = True


def join_others() -> None:
  """This process is one of several: `check` never raises in it."""
  _Signals.several = True
  if _Signals.pipe is not None:
    install()  # jax.distributed has handled SIGTERM


def is_one_of_several() -> bool:
  """Whether other processes take part in this run."""
  return _Signals.several


def asked() -> bool:
  """Whether a signal has asked this process to stop."""
  return _Signals.asked


def check() -> None:
  """Raises `Stopped` if a signal has asked a run of one process to stop."""
  if _Signals.asked and not _Signals.several:
    raise Stopped


@contextlib.contextmanager
def noted() -> Iterator[None]:
  """Inside, a signal is noted and not raised."""
  _Signals.noting += 1
  try:
    yield
  finally:
    _Signals.noting -= 1


@contextlib.contextmanager
def handled() -> Iterator[None]:
  """Inside, signals are handled, also where no command has `install`ed this.

  There the second signal does what it did before, as in a notebook, and what
  was asked is forgotten at the end.
  """
  main = threading.current_thread() is threading.main_thread()
  if _Signals.handled or not main:
    yield
    return
  before = {number: signal.getsignal(number) for number in _SIGNALS}

  def restore():
    for number, handler in before.items():
      signal.signal(number, handler)

  def take(number, frame):
    restore()
    _take(number, frame)

  _Signals.handled = _Signals.begun = True
  for number, handler in before.items():
    if number != signal.SIGHUP or handler != signal.SIG_IGN:
      signal.signal(number, take)
  try:
    yield
  finally:
    restore()
    _Signals.asked = _Signals.handled = _Signals.begun = False


def _take(number, frame):
  """The handler, which runs in the main thread."""
  del number, frame
  again, _Signals.asked = _Signals.asked, True
  if _Signals.begun and not (_Signals.noting or _Signals.several or again):
    raise Stopped


def _raise_again(ignored):
  """Raises `Stopped` once more where Python ignores what is raised.

  As in a callback of the garbage collector, of which JAX has one.
  """
  if ignored.exc_type is not Stopped:
    sys.__unraisablehook__(ignored)
  else:  # by another thread, since here it would be ignored, too
    threading.Thread(target=_raise_soon, daemon=True).start()


def _raise_soon():
  time.sleep(.02)
  if not _Signals.noting:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(threading.main_thread().ident),
        ctypes.py_object(Stopped))


def _watch():
  """Ends the process where the main thread does not, or not soon enough."""
  _next_signal()
  first = time.monotonic()
  if not _Signals.begun:
    _end(_NOTHING)
  if not _Signals.noting and not _Signals.several:
    threading.Thread(target=_end_if_late, daemon=True).start()
  while True:
    _next_signal()
    if time.monotonic() - first > _AS_ONE:
      _end('ended at once by a second signal; what was saved stays')


def _next_signal():
  """Waits for one of the signals."""
  while os.read(_Signals.pipe[0], 1)[0] not in _SIGNALS:
    pass


def _end_if_late():
  """Ends a process with nothing to save whose program runs for too long."""
  time.sleep(_PATIENCE)
  if not _Signals.asked and not _Signals.noting:
    _end(_NOTHING)


def _end(text: str) -> NoReturn:
  """Ends the process, whatever its threads do."""
  try:
    os.write(2, f'{text}\n'.encode())
  except OSError:
    pass  # nobody reads it
  os._exit(STATUS)
