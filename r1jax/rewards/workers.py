"""The trainer's side of workers: processes that may hang, crash or lie.

They verify answers (sandbox) and run reward functions (function_worker). They
are started when first needed, from a fresh interpreter: nothing of the trainer
(its threads, JAX, its main module) is copied or imported. Each is sent a few
jobs at a time and answers them one by one; the parent times the current job of
each worker. A worker that is late or dies costs that job only: it is killed,
its remaining jobs go to others, and a new worker starts when there is work for
it. Jobs that a worker does together are also lost together.
"""

import collections
import json
import math
import multiprocessing
from multiprocessing import connection
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple, Sequence

from r1jax import interrupts

# Loading verifiers imports large packages, once per worker.
START_SECONDS = 120.0
_MAX_JOBS = 64  # sent at once
_MAX_MESSAGE_BYTES = 1 << 16
_GRACE_SECONDS = 2.0  # for a worker that itself ends jobs that are late
_SANDBOX = 'r1jax.rewards.sandbox'
_PATIENCE_SECONDS = 1.0  # until it is looked whether the run is to stop


class Job(NamedTuple):
  """One answer to verify, or one response for a reward function."""
  kind: str  # the verifier, or the function's place
  task: str
  answer: str
  reference: Any  # what the verifier compares with, or the record


class Outcome(NamedTuple):
  """The result of a job. A status other than 'ok' has value 0."""
  status: str  # 'ok' | 'errors' | 'timeouts' | 'refused'
  value: float
  detail: str  # one line, empty if ok
  columns: dict[str, Any] = {}  # to log; of reward functions alone


class LoadError(RuntimeError):
  """A worker cannot start, or cannot load a verifier or function."""

  def __init__(self, detail: str):
    super().__init__(f'a worker could not start: {detail}')
    self.detail = detail


class _Worker:
  """One process, and the jobs that it was sent and has not answered."""

  def __init__(self, serve: str, load: str, timeout_seconds: float):
    self.pipe, theirs = multiprocessing.Pipe()
    self.jobs = collections.deque()  # of (index, Job)
    self.loaded = False  # the verifiers of these jobs
    self.together = False  # whether it does these jobs at once
    self.deadline = math.inf  # of its next message
    self._timeout_seconds = timeout_seconds
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = (
        f'import {serve} as worker; '
        f'worker.main({theirs.fileno()}, {load!r}, {timeout_seconds!r})')
    output = subprocess.DEVNULL if serve == _SANDBOX else 2  # stderr
    with theirs:
      self.process = subprocess.Popen(
          [sys.executable, '-P', '-c', command],
          pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
          stdout=output, stderr=output,
          start_new_session=True,  # Ctrl-C is for the trainer, which finishes
          env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1',
               'OPENBLAS_NUM_THREADS': '1'})

  def send(self, jobs, together: bool):
    self.jobs.extend(jobs)
    self.together = together
    self.loaded = False
    self.deadline = time.monotonic() + START_SECONDS
    try:
      self.pipe.send([tuple(job) for _, job in jobs])
    except (BrokenPipeError, ConnectionResetError):
      pass  # it died: the next read meets the end of the stream

  def read(self) -> Outcome:
    """The next message; its status is 'died' if there will be none."""
    try:
      message = Outcome(*json.loads(self.pipe.recv_bytes(_MAX_MESSAGE_BYTES)))
    except (EOFError, OSError, TypeError, ValueError):
      return Outcome('died', 0.0, f'worker died with status {self._end()}')
    self.loaded = True if message.status == 'ready' else self.loaded
    self.deadline = time.monotonic() + self._timeout_seconds + (
        _GRACE_SECONDS if self.together else 0.0)
    return message

  def _end(self) -> int:
    """The exit status of a process whose pipe has ended."""
    try:
      return self.process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
      self.process.kill()
      return self.process.wait()

  def stop(self):
    self.process.kill()
    self.process.wait()
    self.pipe.close()


class Pool:
  """Runs jobs in worker processes, each with a limit in wall-clock time."""

  def __init__(self, workers: int, timeout_seconds: float,
               load: str = 'r1jax.rewards.verifiers:load_verifier',
               serve: str = _SANDBOX):
    """Starts no process before `run` needs it.

    Args:
      workers: processes at most.
      timeout_seconds: the wall-clock limit of a job.
      load: see `sandbox.main`.
      serve: the module whose `main` a process runs.
    """
    self._limit = workers
    self._timeout_seconds = timeout_seconds
    self._serve, self._load = serve, load
    self._workers = []

  def run(self, jobs: Sequence[Job], together: bool = False) -> list[Outcome]:
    """The outcome of each job, in order.

    Args:
      jobs: N.
      together: a worker does all its jobs at once, and ends those that are
        late itself. One that dies or hangs all the same loses all of them.

    Raises:
      LoadError: a worker cannot start or load a verifier, which no answer can
        cause.
    """
    outcomes = {}
    waiting = collections.deque(enumerate(jobs))
    if together:
      share = math.ceil(len(jobs) / self._limit)
    else:
      share = min(max(math.ceil(len(jobs) / (4 * self._limit)), 1), _MAX_JOBS)
    try:
      while len(outcomes) < len(jobs):
        self._hand_out(waiting, share, together)
        busy = [worker for worker in self._workers if worker.jobs]
        patience = min(w.deadline for w in busy) - time.monotonic()
        ready = connection.wait(
            [w.pipe for w in busy], min(max(patience, 0.0), _PATIENCE_SECONDS))
        interrupts.check()
        for worker in busy:
          if worker.pipe in ready:
            message = worker.read()
          elif worker.deadline <= time.monotonic():
            message = Outcome('hung', 0.0, 'no result in time')
          else:
            continue
          self._take(worker, message, waiting, outcomes)
    finally:
      # After an interrupt, later answers would be taken for those of new jobs.
      for worker in [w for w in self._workers if w.jobs]:
        self._drop(worker)
    return [outcomes[index] for index in range(len(jobs))]

  def _hand_out(self, waiting, share: int, together: bool):
    for worker in [w for w in self._workers if w.process.poll() is not None]:
      if not worker.jobs:  # else its last message is still to be read
        self._drop(worker)
    while waiting:
      idle = [worker for worker in self._workers if not worker.jobs]
      if not idle and len(self._workers) == self._limit:
        return
      if not idle:
        idle = [_Worker(self._serve, self._load, self._timeout_seconds)]
        self._workers += idle
      count = min(share, len(waiting))
      idle[0].send([waiting.popleft() for _ in range(count)], together)

  def _take(self, worker, message: Outcome, waiting, outcomes):
    """Handles a message; drops a late or dead worker, whose other jobs wait."""
    if message.status == 'ready':
      return
    if not worker.loaded:
      raise LoadError(message.detail)
    if message.status not in ('died', 'hung'):
      index, _ = worker.jobs.popleft()
      outcomes[index] = message
      return
    status = 'errors' if message.status == 'died' else 'timeouts'
    for _ in range(len(worker.jobs) if worker.together else 1):
      index, job = worker.jobs.popleft()
      outcomes[index] = Outcome(
          status, 0.0, f'{message.detail}, on {str(job.answer)[:80]!r}')
    waiting.extendleft(reversed(worker.jobs))
    self._drop(worker)

  def _drop(self, worker):
    self._workers.remove(worker)
    worker.stop()

  def close(self):
    """Ends the workers; a later `run` starts new ones."""
    while self._workers:
      self._drop(self._workers[-1])
