"""The trainer's side of verification: processes that may hang, crash or lie.

Workers are started when first needed, from a fresh interpreter: nothing of
the trainer (its threads, JAX, its main module) is copied or imported. Each is
sent a few jobs at a time and answers them one by one; the parent holds a clock
for the job each worker is at. A worker that is late, or dies, costs that job
only: it is killed, the jobs behind it go to others, and a new worker starts
when there is work for it.
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

# Loading verifiers imports large packages, once a worker.
START_SECONDS = 120.0
_MAX_JOBS = 64  # sent at once
_MAX_MESSAGE_BYTES = 1 << 16


class Job(NamedTuple):
  """One answer to verify."""
  kind: str  # the verifier
  task: str
  answer: str
  reference: Any  # what the verifier compares with


class Outcome(NamedTuple):
  """What became of a job. A status other than 'ok' has value 0."""
  status: str  # 'ok' | 'errors' | 'timeouts' | 'refused'
  value: float
  detail: str  # one line, empty if ok


class _Worker:
  """One process, and the jobs it was sent and has not answered."""

  def __init__(self, load: str, timeout_seconds: float):
    self.pipe, theirs = multiprocessing.Pipe()
    self.jobs = collections.deque()  # of (index, Job)
    self.loaded = False  # the verifiers of these jobs
    self.deadline = math.inf  # of its next message
    self._timeout_seconds = timeout_seconds
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = (
        'from r1jax.rewards import sandbox; '
        f'sandbox.main({theirs.fileno()}, {load!r}, {timeout_seconds!r})')
    with theirs:
      self.process = subprocess.Popen(
          [sys.executable, '-P', '-c', command],
          pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
          start_new_session=True,  # Ctrl-C is for the trainer, which finishes
          env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1',
               'OPENBLAS_NUM_THREADS': '1'})

  def send(self, jobs):
    self.jobs.extend(jobs)
    self.loaded = False
    self.deadline = time.monotonic() + START_SECONDS
    try:
      self.pipe.send([tuple(job) for _, job in jobs])
    except (BrokenPipeError, ConnectionResetError):
      pass  # it died: the next read meets the end of the stream

  def read(self) -> tuple[str, float, str]:
    """The next message; 'died' if there will be none."""
    try:
      status, value, detail = json.loads(
          self.pipe.recv_bytes(_MAX_MESSAGE_BYTES))
    except (EOFError, OSError, ValueError):
      return 'died', 0.0, f'worker died with status {self._end()}'
    self.loaded = True if status == 'ready' else self.loaded
    self.deadline = time.monotonic() + self._timeout_seconds
    return status, value, detail

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
               load: str = 'r1jax.rewards.verifiers:load_verifier'):
    """See `sandbox.main` for `load`; no process starts before `run` needs it.
    """
    self._limit = workers
    self._timeout_seconds = timeout_seconds
    self._load = load
    self._workers = []

  def run(self, jobs: Sequence[Job]) -> list[Outcome]:
    """The outcome of each job, in order.

    Errors: RuntimeError if a worker cannot start or load a verifier, which no
    answer can cause.
    """
    outcomes = {}
    waiting = collections.deque(enumerate(jobs))
    share = math.ceil(len(jobs) / (4 * self._limit))
    share = min(max(share, 1), _MAX_JOBS)
    try:
      while len(outcomes) < len(jobs):
        self._hand_out(waiting, share)
        busy = [worker for worker in self._workers if worker.jobs]
        patience = min(w.deadline for w in busy) - time.monotonic()
        ready = connection.wait([w.pipe for w in busy], max(patience, 0.0))
        for worker in busy:
          if worker.pipe in ready:
            message = worker.read()
          elif worker.deadline <= time.monotonic():
            message = 'timeouts', 0.0, 'no verdict in time'
          else:
            continue
          self._take(worker, message, waiting, outcomes)
    finally:
      # After an interrupt, answers still to come would meet the wrong jobs.
      for worker in [w for w in self._workers if w.jobs]:
        self._drop(worker)
    return [outcomes[index] for index in range(len(jobs))]

  def _hand_out(self, waiting, share: int):
    for worker in [w for w in self._workers if w.process.poll() is not None]:
      if not worker.jobs:  # else its last words are still to be read
        self._drop(worker)
    while waiting:
      idle = [worker for worker in self._workers if not worker.jobs]
      if not idle and len(self._workers) == self._limit:
        return
      if not idle:
        idle = [_Worker(self._load, self._timeout_seconds)]
        self._workers += idle
      count = min(share, len(waiting))
      idle[0].send([waiting.popleft() for _ in range(count)])

  def _take(self, worker, message, waiting, outcomes):
    """Files one message; a late or dead worker goes, its other jobs wait."""
    status, value, detail = message
    if status == 'ready':
      return
    if not worker.loaded:
      raise RuntimeError(f"a verifier's worker could not start: {detail}")
    index, job = worker.jobs.popleft()
    if status in ('died', 'timeouts'):
      waiting.extendleft(reversed(worker.jobs))
      self._drop(worker)
      detail = f'{detail}, on {job.answer[:80]!r}'
      status = 'errors' if status == 'died' else status
    outcomes[index] = Outcome(status, value, detail)

  def _drop(self, worker):
    self._workers.remove(worker)
    worker.stop()

  def close(self):
    """Ends the workers; a later `run` starts new ones."""
    while self._workers:
      self._drop(self._workers[-1])
