"""The worker's side of a user's reward functions: trusted code, no sandbox.

Like the sandbox it reads lists of jobs from a pipe and answers them in order.
A function may do anything, such as open files and connections. The parent
kills a worker whose function hangs; a worker ends with its parent.
"""

import asyncio
from collections.abc import Callable, Mapping
import functools
import inspect
import json
import numbers
import os
import threading
import time
from typing import Any

from r1jax.data import user_code
from r1jax.rewards import sandbox

MAX_REWARD = 1e9  # its square, weighed, is within float32
MAX_COLUMN_BYTES = 1 << 15  # of one call, as JSON

_load = functools.lru_cache(maxsize=None)(user_code.load)


def main(fd: int, load_name: str, timeout_seconds: float):
  """Serves the parent at the other end of `fd` until it hangs up.

  A job's kind is the function's place, its task the field that names it; a job
  without an answer asks whether the function is async.
  """
  del load_name
  pipe, send = sandbox.channel(fd)
  threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
  while True:
    try:
      jobs = pipe.recv()
    except EOFError:
      return
    functions = [_load(place, field) for place, field, _, _ in jobs]
    send('ready')
    if all(map(_is_async, functions)):
      results = asyncio.run(_together(functions, jobs, timeout_seconds))
    else:
      results = map(_call, functions, jobs)
    for result in results:
      send(*_outcome(result, timeout_seconds))


def _call(function: Callable, job: tuple) -> Any:
  """The value of a function, or the exception that it raises."""
  _, _, text, record = job
  if text is None:
    return _is_async(function)
  try:
    return function(text, record)
  except Exception as error:  # pylint: disable=broad-except
    return error  # the user's code may raise anything; the run continues


async def _together(functions, jobs, timeout_seconds: float) -> list[Any]:
  """As `_call`, for async functions, all at once."""
  async def call(function, job):
    result = _call(function, job)
    return (await asyncio.wait_for(result, timeout_seconds)
            if inspect.isawaitable(result) else result)

  return await asyncio.gather(*map(call, functions, jobs),
                              return_exceptions=True)


def _is_async(function: Callable) -> bool:
  return inspect.iscoroutinefunction(function) or (
      inspect.iscoroutinefunction(getattr(function, '__call__', None)))


def _outcome(result: Any, timeout_seconds: float
             ) -> tuple[str, float, str, dict[str, Any]]:
  """(status, value, detail, columns) of one call."""
  if isinstance(result, TimeoutError):
    return 'timeouts', 0., f'no result in {timeout_seconds:g} s', {}
  if isinstance(result, BaseException):
    return 'errors', 0., sandbox.last_line(type(result), result), {}
  value, columns = result if isinstance(result, tuple) and (
      len(result) == 2) else (result, {})
  number = None
  if not isinstance(value, (str, bytes)) and hasattr(value, '__float__'):
    try:
      number = float(value)
    except (RuntimeError, TypeError, ValueError):  # an array of several
      number = None
  if number is None or not isinstance(columns, Mapping):
    return ('errors', 0., 'expected a number, or a number and a dict; '
            f'received {str(result):.80}', {})
  if not abs(number) <= MAX_REWARD:
    return ('errors', 0., f'expected a finite number of at most {MAX_REWARD:g} '
            f'in size, received {number}', {})
  columns = {str(name): _plain(cell) for name, cell in columns.items()}
  if len(json.dumps(columns)) > MAX_COLUMN_BYTES:
    return ('errors', 0., 'expected columns of at most '
            f'{MAX_COLUMN_BYTES} bytes of JSON', {})
  return 'ok', number, '', columns


def _plain(value: Any) -> Any:
  """A value as JSON; what JSON lacks, such as NaN, becomes text."""
  if value is None or isinstance(value, (bool, int, str)):
    return value
  if isinstance(value, numbers.Real):
    return float(value) if abs(value) < float('inf') else str(value)
  try:
    json.dumps(value, allow_nan=False)
  except (TypeError, ValueError, RecursionError):
    return str(value)
  return value


def _end_with(parent: int) -> None:
  """Ends this process when its parent is gone, whatever it is doing."""
  while os.getppid() == parent:
    time.sleep(1.)
  os._exit(1)  # pylint: disable=protected-access
