"""The worker's side of verification: runs third-party code on hostile text.

A worker is a plain Python process that reads lists of jobs from a pipe and
answers each job as soon as it is done, so that its parent knows which one
hangs. Its answers are JSON: the parent never unpickles what it sends.

A verifier is confined in three ways. The parent kills a worker that is late;
limits on memory and CPU time stop one that grows or outlives its parent; an
audit hook stops one that starts a process, opens a connection or writes a
file. The hook is a second defence after `verifiers.refuse_unsafe`, not proof
against an attack.
"""

from collections.abc import Callable
import importlib
import json
from multiprocessing import connection
import os
import resource
import sys
import traceback

# The memory that a verifier may take in addition to its imports.
MEMORY_BYTES = 1 << 30

# What third-party parsers raise on text they cannot read. Anything else ends
# the worker, which reports it and is replaced.
_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
    OSError, RuntimeError, SyntaxError, TypeError, ValueError)
_SIDE_EFFECTS = ('os.', 'subprocess.', 'socket.', 'shutil.', 'pty.', 'ctypes.')
_HARMLESS = ('os.listdir', 'os.scandir')  # importing a module lists folders
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
  """An audit hook that, while armed, refuses side effects and notes them."""

  def __init__(self):
    self.armed = False
    self.refused = []

  def __call__(self, event: str, args: tuple):
    if not self.armed:
      return
    if event == 'open':
      harmful = bool((args[2] or 0) & _WRITE)
    else:
      harmful = event.startswith(_SIDE_EFFECTS) and event not in _HARMLESS
    if harmful:
      self.refused.append(event)
      raise PermissionError(f'a verifier may not cause {event!r}')


def main(fd: int, load_name: str, timeout_seconds: float):
  """Serves the parent at the other end of `fd` until it hangs up.

  load_name: "module:function", a function (kind, task) -> verify, where
    verify(answer, reference) says whether the answer is right.
  """
  pipe, send = channel(fd)
  sys.dont_write_bytecode = True  # the hook would refuse it
  guard = Guard()
  sys.addaudithook(guard)
  module, _, function = load_name.partition(':')
  load = getattr(importlib.import_module(module), function)
  while True:
    try:
      jobs = pipe.recv()
    except EOFError:
      return
    guard.armed = False
    _limit(resource.RLIMIT_AS, None)
    _limit(resource.RLIMIT_CPU, None)
    verifiers = [load(kind, task) for kind, task, _, _ in jobs]
    _limit(resource.RLIMIT_AS, _address_space() + MEMORY_BYTES)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    _limit(resource.RLIMIT_CPU,
           int(cpu_seconds + timeout_seconds * len(jobs)) + 2)
    guard.armed = True
    send('ready')
    for verify, (_, _, answer, reference) in zip(verifiers, jobs):
      send(*_verdict(verify, answer, reference, guard))


def channel(fd: int) -> tuple[connection.Connection, Callable[..., None]]:
  """A worker's pipe to its parent, and send(status, value, detail, columns).

  An error that ends the worker is sent, too, from now on.
  """
  pipe = connection.Connection(fd)

  def send(status, value=0.0, detail='', columns=None):
    pipe.send_bytes(
        json.dumps([status, value, detail, columns or {}]).encode())

  def report(kind, error, trace):
    del trace
    send('died', detail=last_line(kind, error))

  sys.excepthook = report
  return pipe, send


def _verdict(verify, answer, reference, guard: Guard):
  """(status, value, detail) of one answer."""
  guard.refused.clear()
  try:
    outcome = 'ok', float(verify(answer, reference)), ''
  except _FAILURES as error:
    outcome = 'errors', 0.0, last_line(type(error), error)
  # Scorers swallow what the hook raises, so what it noted has the last word.
  if guard.refused:
    return 'refused', 0.0, f'refused, {answer[:80]!r} caused {guard.refused[0]}'
  return outcome


def last_line(kind, error) -> str:
  """The last line of a traceback, at most 300 characters."""
  return traceback.format_exception_only(kind, error)[-1].strip()[:300]


def _limit(what: int, value: int | None):
  """Sets a soft limit, at most the hard one; None lifts it to that."""
  hard = resource.getrlimit(what)[1]
  if value is None:
    value = hard
  elif hard != resource.RLIM_INFINITY:
    value = min(value, hard)
  resource.setrlimit(what, (value, hard))


def _address_space() -> int:
  """Bytes of address space in use; where unknown, as much as imports take."""
  if not os.path.exists('/proc/self/statm'):
    return 4 << 30
  with open('/proc/self/statm', encoding='ascii') as statm:
    return int(statm.read().split()[0]) * resource.getpagesize()
