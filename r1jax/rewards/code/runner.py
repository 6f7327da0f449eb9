"""Processes in the sandbox, as the judge sees them: lines out, lines in.

To start one takes some hundredths of a second, mostly spent waiting for the
kernel. So a few are started ahead, empty, and given a job when there is one.
Each runs one job, and is killed after it with all that it has started.
"""

import collections
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

from r1jax.rewards.code import sandbox
from r1jax.rewards.code import system_calls

START_SECONDS = 60.0  # for a process to be ready for its job
_AHEAD = 2  # processes that wait for a job
_STARTS = 3  # before it is given up
_THREADS = 64  # of a program, where the kernel counts root's
_SPARE_BYTES = 1 << 16  # of a message, beside what a program has printed
_GROWTH = 6  # bytes of JSON that a byte of output may become, \u0000


class Limits(NamedTuple):
  """What a program may use; see experiments/sections.py."""
  seconds: float = 5.0  # wall-clock time of a test
  total_seconds: float = 30.0  # of all tests
  memory_mib: int = 512
  output_kib: int = 256  # that a test prints or a call returns
  tests: int | None = None  # the first so many; None: all
  unsafe_subprocess: bool = False  # without a sandbox

  @property
  def output_bytes(self) -> int:
    return self.output_kib << 10


class Ended(Exception):
  """The process has ended; `status` is its exit status, below 0 a signal."""

  def __init__(self, status: int):
    super().__init__(f'ended with status {status}')
    self.status = status


class Late(Exception):
  """No message has come in time."""


class TooLong(Exception):
  """A message is longer than any that is allowed."""


class Malformed(Exception):
  """A message is not JSON."""


class Process:
  """One process of `inside`."""

  def __init__(self, unsafe: bool):
    self._folder = tempfile.mkdtemp(prefix='r1jax-code-') if unsafe else None
    self._process = subprocess.Popen(
        sandbox.command(unsafe), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True,
        cwd=self._folder, env={})
    self._buffer = bytearray()
    os.set_blocking(self._process.stdin.fileno(), False)

  def send(self, message: dict[str, Any], deadline: float) -> None:
    """Writes a message; raises Late or Ended."""
    data = memoryview(json.dumps(message).encode() + b'\n')
    pipe = self._process.stdin.fileno()
    while data:
      _, ready, _ = select.select([], [pipe], [], _left(deadline))
      if not ready:
        raise Late
      try:
        data = data[os.write(pipe, data):]
      except BrokenPipeError:
        raise Ended(self._status()) from None

  def receive(self, deadline: float, limit: int) -> dict[str, Any]:
    """The next message, of at most `limit` bytes.

    Raises:
      Ended, Late, TooLong, Malformed.
    """
    pipe = self._process.stdout.fileno()
    while (end := self._buffer.find(b'\n')) < 0:
      if len(self._buffer) > limit:
        raise TooLong
      ready, _, _ = select.select([pipe], [], [], _left(deadline))
      if not ready:
        raise Late
      data = os.read(pipe, 1 << 16)
      if not data:
        raise Ended(self._status())
      self._buffer += data
    line = bytes(self._buffer[:end])
    del self._buffer[:end + 1]
    if len(line) > limit:
      raise TooLong
    try:
      message = json.loads(line)
    except (ValueError, RecursionError) as problem:
      raise Malformed from problem
    if not isinstance(message, dict):
      raise Malformed
    return message

  def _status(self) -> int:
    """The status of a process whose pipe has ended."""
    try:
      status = self._process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:  # it has only closed it
      return 0
    return 128 - status if status > 128 else status  # of bubblewrap's child

  def close(self) -> None:
    """Kills it, and with its sandbox all that it has started."""
    if self._process.poll() is None:
      os.killpg(self._process.pid, signal.SIGKILL)  # without a sandbox, too
    self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()
    if self._folder:
      shutil.rmtree(self._folder, ignore_errors=True)


def _left(deadline: float) -> float:
  return max(deadline - time.monotonic(), 0.0)


class Runner:
  """Starts processes, some of them ahead."""

  def __init__(self, limits: Limits):
    self.limits = limits
    self._ready = collections.deque()
    self._filter = (system_calls.denying_filter() or b'').hex()

  def start(self, memory_mib: int, **job: Any) -> Process:
    """A process that is ready for messages, and has run nothing of a job yet.

    Args:
      memory_mib: its limit.
      **job: see `inside`.

    Raises:
      OSError: the machine is at fault, no program.
    """
    job |= dict(
        memory_bytes=memory_mib << 20, filter=self._filter,
        threads=None if self.limits.unsafe_subprocess else _THREADS,
        cpu_seconds=int(self.limits.total_seconds) + 2,
        output_bytes=self.limits.output_bytes)
    for _ in range(_STARTS):
      while len(self._ready) <= _AHEAD:
        self._ready.append(Process(self.limits.unsafe_subprocess))
      process = self._ready.popleft()
      deadline = time.monotonic() + START_SECONDS
      try:
        process.send(job, deadline)
        process.receive(deadline, self.message_bytes)
        return process
      except (Ended, Late) as problem:  # its memory was taken while it waited
        process.close()
        why = str(problem) or 'not in time'
      except BaseException:
        process.close()
        raise
    raise OSError(f'no process in a sandbox could be started: {why}')

  @property
  def message_bytes(self) -> int:
    """The longest message that is allowed."""
    return self.limits.output_bytes * _GROWTH + _SPARE_BYTES

  def close(self) -> None:
    while self._ready:
      self._ready.pop().close()
