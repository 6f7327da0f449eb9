"""What Orbax prints and raises of files that it cannot write or read."""

import functools
import re
import sys

from absl import logging
import orbax.checkpoint as ocp

from r1jax import errors

# What Orbax, TensorStore, JSON and UTF-8 raise for files they cannot read.
UNREADABLE = (OSError, ValueError, KeyError, AttributeError, TypeError,
              errors.RunError)
_SYSTEM = re.compile(r"os_error_code='(\d+)'")  # in TensorStore's errors


def errno_of(error: BaseException | None) -> int | None:
  """What the system has refused where a file could not be used, if it has."""
  while error is not None:
    if isinstance(error, OSError) and error.errno is not None:
      return error.errno
    if found := _SYSTEM.search(str(error)):
      return int(found[1])
    error = error.__cause__
  return None


def hold_back_noise():
  """Keeps what Orbax and TensorStore print of errors off the terminal.

  They are raised, too, and become one line of ours.
  """
  logging.get_absl_logger().addFilter(_not_of_orbax)
  if getattr(sys.unraisablehook, 'func', None) is not _show_unraisable:
    sys.unraisablehook = functools.partial(
        _show_unraisable, sys.unraisablehook)


def _not_of_orbax(record) -> bool:
  return f'{ocp.__name__.replace(".", "/")}/' not in record.pathname


def _show_unraisable(show, problem):
  # The other writes of a save, of which one has failed, find no one waiting.
  if str(problem.exc_value) != 'Event loop is closed':
    show(problem)
