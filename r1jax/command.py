"""How a command ends: its exit status, and the one line that an error becomes.

0 when everything has ended, 1 for a run that diverged and a fault of the
machine, 2 for what was refused, 75 when a signal stopped it, or the loss of one
of several processes (parallel/roll_call.py).
"""

import argparse
from collections.abc import Iterator
import contextlib
import importlib
import os
import sys
from typing import NoReturn

from r1jax import errors
from r1jax import flags
from r1jax import interrupts
from r1jax import terminal

_FAULT = 1


class Parser(argparse.ArgumentParser):
  """Of a command's arguments; a wrong one ends it with one line."""

  def error(self, message: str) -> NoReturn:
    flags.fail(errors.ConfigError('', message))


@contextlib.contextmanager
def reported() -> Iterator[None]:
  """Inside, an error or a signal ends the command with one line and its status.

  What is neither of the configuration nor of the machine is a mistake in the
  code, and keeps its traceback.
  """
  try:
    yield
  except errors.ConfigError as problem:
    flags.fail(problem)
  except errors.RunError as problem:
    flags.fail(problem, _FAULT)
  except MemoryError as problem:
    flags.fail(
        errors.RunError(f'out of memory: {problem or type(problem).__name__}'),
        _FAULT)
  except OSError as problem:
    if problem.filename is None:
      raise
    flags.fail(errors.of_system(
        problem.errno, str(problem), os.fsdecode(problem.filename)), _FAULT)
  except interrupts.Stopped as stop:
    terminal.say(str(stop))
    end_stopped()


def end_stopped() -> NoReturn:
  """Ends a command that a signal has stopped and that has said so.

  A thread that waits for another's reply, as for an endpoint's, may do so for
  minutes: it is not waited for. A run of several processes ends with the rest.
  """
  if interrupts.asked() and not interrupts.is_one_of_several():
    for stream in filter(None, (sys.stdout, sys.stderr)):
      terminal.say('', stream, end='')
    os._exit(interrupts.STATUS)
  sys.exit(interrupts.STATUS)


def import_jax() -> None:
  """Imports jax, which reads its settings from the environment.

  Raises:
    ConfigError: names the variable whose value it does not know.
  """
  try:
    importlib.import_module('jax')
  except ValueError as problem:
    named = [name for name in os.environ
             if name.startswith('JAX') and name.lower() in str(problem).lower()]
    if not named:
      raise
    raise errors.ConfigError(
        '', f'{named[0]}={os.environ[named[0]]} in the environment: {problem}'
        ) from problem
