"""Which of several processes is lost, and how the others end.

A killed process or a dead host shows in the others as a collective that fails,
or that never ends. A process that meets an error (`held_on_error`) or a step
without end (training/hanging.py) calls the roll. A thread of each process
answers, whatever its main thread waits for. Then all say why the roll was
called and who has not answered, and end with the status of what is to be
started again: the same command goes on from its last checkpoint. An error that
nobody is lost by is a mistake in the code, or a fault of the machine that one
process meets (`alone`): it has a status of its own.

The processes talk through the service of jax.distributed, which lives in the
main process. If that one is gone, jax ends the others, with words of its own
and SIGABRT; so it does where one has been silent for 100 seconds, as on a host
that is gone while nobody has called.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import jax
from jax._src import distributed as jax_distributed  # of its service's client

from r1jax import errors
from r1jax import interrupts
from r1jax import terminal
from r1jax.parallel import memory

_NAMES = 'r1jax/processes/'  # keys of the service: of each process, its name
_CALL = 'r1jax/roll_call'  # the arguments of `_end`
_ANSWERS = 'r1jax/answers/'  # of each process, where its main thread is
_LOOK_SECONDS, _ANSWER_SECONDS, _LEAVE_SECONDS = 2., 10., 3.
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_AGAIN = 'start the same command again: it goes on from its last checkpoint'
_FAULT = 1  # status, as in command.py
_FEW = 4  # processes that are named

_answered = threading.Event()  # by all


@contextlib.contextmanager
def answered() -> Iterator[None]:
  """Inside, this process answers; all processes of a run must call this."""
  if jax.process_count() == 1:
    yield
    return
  _service().key_value_set(
      f'{_NAMES}{jax.process_index()}',
      f'pid {os.getpid()} on {socket.gethostname()}', allow_overwrite=True)
  ended = threading.Event()
  thread = threading.Thread(target=_watch, args=(ended,), daemon=True)
  thread.start()
  try:
    with held_on_error():
      yield
  finally:
    ended.set()
    thread.join()


@contextlib.contextmanager
def held_on_error() -> Iterator[None]:
  """Inside, an error of one of several processes ends all of them.

  Not what all of them meet: a ConfigError, a RunError, a lack of memory.
  """
  try:
    yield
  except (errors.ConfigError, errors.RunError):
    raise
  except Exception as problem:  # whatever it is: the others wait
    if jax.process_count() > 1 and not memory.is_lack(problem):
      line = str(problem).strip().partition('\n')[0]
      hold(f'{type(problem).__name__}: {line}', traceback.format_exc())
    raise


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Inside, one of several processes works alone; its RunError ends all."""
  try:
    yield
  except errors.RunError as problem:
    if jax.process_count() > 1:
      hold(str(problem), '')
    raise


def hold(why: str, trace: str | None = None) -> None:
  """Calls the roll, inside `answered`, whose thread then ends this process.

  Args:
    why: what has happened, for those who read it.
    trace: of an error, shown if nobody is missing; '' where `why` says it all,
      None of what only the loss of a process explains.
  """
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # called by another
    _service().key_value_set(_CALL, json.dumps(
        dict(by=jax.process_index(), why=why, error=trace is not None)))
  if not _answered.wait(2 * (_LOOK_SECONDS + _ANSWER_SECONDS)):
    return  # the service is gone: jax ends this process
  terminal.say(trace or '', sys.stderr, end='')
  threading.Event().wait()


def _service():
  return jax_distributed.global_state.client


def _watch(ended: threading.Event) -> None:
  """Ends this process when the roll is called."""
  while not ended.wait(_LOOK_SECONDS):
    try:
      call = json.loads(_service().key_value_try_get(_CALL))
    except jax.errors.JaxRuntimeError:
      continue  # nobody has called
    _end(**call)


def _end(by: int, why: str, error: bool) -> NoReturn:
  """Answers, waits for the others, and ends this process."""
  service, mine = _service(), jax.process_index()
  service.key_value_set(f'{_ANSWERS}{mine}', _place())
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # some are missing
    service.wait_at_barrier(_CALL, int(_ANSWER_SECONDS * 1000))
  answers, names = (
      {int(key.rpartition('/')[2]): value
       for key, value in service.key_value_dir_get(folder)}
      for folder in (_ANSWERS, _NAMES))
  missing = sorted({*range(jax.process_count())} - {*answers})
  mistake = error and not missing
  if mistake:
    _answered.set()
    time.sleep(_LEAVE_SECONDS)  # all that have errors show them
  words = [_missing(missing, names) or _places(answers), f'process {by}: {why}']
  terminal.say('error: ' + terminal.visible(
      '; '.join(words if mistake else [*words, _AGAIN])), sys.stderr)
  if not mine:  # the service is there until all have read it
    time.sleep(_LEAVE_SECONDS)
  os._exit(_FAULT if mistake else interrupts.STATUS)


def _missing(missing: Sequence[int], names: Mapping[int, str]) -> str:
  """Who does not answer, in words; '' if all do."""
  named = ', '.join(f'process {n} ({names.get(n, "never named")})'
                    for n in missing[:_FEW])
  more = len(missing) - _FEW
  return named and named + (f' and {more} more' if more > 0 else '') + (
      ' do not answer' if len(missing) > 1 else ' does not answer')


def _places(answers: Mapping[int, str]) -> str:
  """Where each process is, in words, the rarest place first."""
  at: dict[str, list[int]] = {}
  for n, place in sorted(answers.items()):
    at.setdefault(place, []).append(n)
  rarest = sorted(at.items(), key=lambda item: len(item[1]))
  return 'all processes answer: ' + ', '.join(
      ', '.join(map(str, numbers[:_FEW])) + ', ...' * (len(numbers) > _FEW)
      + f' at {place}' for place, numbers in rarest[:_FEW])


def _place() -> str:
  """The line of this package that the main thread is at."""
  frame: Any = sys._current_frames().get(threading.main_thread().ident)
  while frame is not None:
    path = pathlib.Path(frame.f_code.co_filename)
    if path.is_relative_to(_PACKAGE):
      return f'{path.relative_to(_PACKAGE.parent)}:{frame.f_lineno}'
    frame = frame.f_back
  return 'its end'
