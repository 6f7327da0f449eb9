"""The trainer's side of workers: processes that may hang, crash or lie.

They verify answers (sandbox) and run reward functions (function_worker). They
are started when first needed, from a fresh interpreter: nothing of the trainer
(its threads, JAX, its main module) is copied or imported. Each is sent a few
jobs at a time and answers them one by one; the parent times the current job of
each worker. A worker that is late or dies costs that job only: it is killed,
its remaining jobs go to others, and a new worker starts when there is work for
it. Jobs that a worker does together are also lost together.

A fault of the machine costs nothing. A worker that a signal has ended (the
out-of-memory killer sends one), that was suspended, or that got no memory is
replaced, and its job is tried once more: a right answer is right again, and one
that kills its worker does so twice. A job that is only late is not tried again;
hostile answers would take twice their time.
"""

import collections
import errno
import json
import math
import multiprocessing
from multiprocessing import connection
import os
import pickle
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple, Sequence

from absl import logging

from r1jax import errors
from r1jax import interrupts

# Loading verifiers imports large packages, once per worker.
START_SECONDS = 120.0
SLOW_SECONDS = 15.0  # of loading, after which it is said
PAUSE_SECONDS = 2.0  # before a start that the system has refused is tried again
_LOADS = 3  # starts of a worker, or of one for the same job, before giving up
_ASLEEP_SECONDS = 1.0  # a trainer that looks so late was itself suspended
_MAX_JOBS = 64  # sent at once
_MAX_MESSAGE_BYTES = 1 << 16
_GRACE_SECONDS = 2.0  # for a worker that itself ends jobs that are late
_FEWER = 'fewer workers (config.rewards.workers) need less memory'
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


class LoadError(errors.RunError):
  """A worker cannot start, or cannot load a verifier or function."""

  def __init__(self, detail: str):
    super().__init__(f'a worker could not start: {detail}')
    self.detail = detail


# What became of a worker: it ended itself, was ended by a signal, is late, or
# is late because it or the trainer was suspended.
_DIED, _KILLED, _HUNG, _SUSPENDED = _LOST = (
    'died', 'killed', 'hung', 'suspended')
_STATUSES = {_DIED: 'errors', _KILLED: 'errors', _HUNG: 'timeouts',
             _SUSPENDED: 'timeouts'}


def _lacks_memory(message: Outcome) -> bool:
  """Whether a worker says that it got no memory, which others may have had."""
  kind, _, rest = message.detail.partition(': ')
  return kind.endswith('MemoryError') or (
      kind == 'OSError' and rest.startswith(f'[Errno {errno.ENOMEM}]'))


class _Worker:
  """One process, and the jobs that it was sent and has not answered."""

  def __init__(self, serve: str, load: str, timeout_seconds: float):
    """Starts it; OSError if the system refuses."""
    self.pipe, theirs = multiprocessing.Pipe()
    self.jobs = collections.deque()  # of (index, Job)
    self.loaded = False  # the verifiers of these jobs
    self.fresh = True  # it has loaded nothing yet
    self.together = False  # whether it does these jobs at once
    self.deadline = math.inf  # of its next message
    self.said = True  # that it loads for long, or nothing is to be said of it
    self._timeout_seconds = timeout_seconds
    self._sender = threading.Thread()
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = (
        f'import {serve} as worker; '
        f'worker.main({theirs.fileno()}, {load!r}, {timeout_seconds!r})')
    output = subprocess.DEVNULL if serve == _SANDBOX else 2  # stderr
    with theirs:
      try:
        self.process = subprocess.Popen(
            [sys.executable, '-P', '-c', command],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            stdout=output, stderr=output,
            start_new_session=True,  # Ctrl-C is for the trainer, which finishes
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1',
                 'OPENBLAS_NUM_THREADS': '1'})
      except OSError:
        self.pipe.close()
        raise

  def send(self, jobs, together: bool):
    self.jobs.extend(jobs)
    self.together = together
    self.loaded = self.said = False
    self.deadline = time.monotonic() + START_SECONDS
    # Aside: a worker that is stuck reads nothing, and a full pipe would block.
    self._sender = threading.Thread(
        target=self._write, daemon=True,
        args=(pickle.dumps([tuple(job) for _, job in jobs]),))
    self._sender.start()

  def _write(self, message: bytes):
    try:
      self.pipe.send_bytes(message)
    except (BrokenPipeError, ConnectionResetError):
      pass  # it died: the next read meets the end of the stream

  def read(self) -> Outcome:
    """The next message; one of a status in _LOST if there will be none."""
    try:
      message = Outcome(*json.loads(self.pipe.recv_bytes(_MAX_MESSAGE_BYTES)))
    except (EOFError, OSError, TypeError, ValueError):
      return self._ended()
    if message.status == 'ready':
      self.loaded, self.fresh = True, False
    self.deadline = time.monotonic() + self._timeout_seconds + (
        _GRACE_SECONDS if self.together else 0.0)
    return message

  def say_slow(self):
    """Says, once, that it loads for long: a run would be silent meanwhile."""
    left = self.deadline - time.monotonic()
    if self.said or self.loaded or START_SECONDS - left < SLOW_SECONDS:
      return
    self.said = True
    kinds = ', '.join(sorted({job.kind for _, job in self.jobs}))
    logging.warning(
        'a worker (process %d) has not loaded %s for %.0f s: this step waits; '
        'in %.0f s the worker is replaced', self.process.pid, kinds,
        START_SECONDS - left, left)

  def late(self) -> Outcome:
    """What to say of a worker whose deadline has passed."""
    if self.process.poll() is not None:  # a child of its own keeps the pipe
      return self._ended()
    asleep = time.monotonic() - self.deadline > _ASLEEP_SECONDS
    status = _SUSPENDED if asleep or self._is_stopped() else _HUNG
    return Outcome(status, 0.0, 'no result in time')

  def _is_stopped(self) -> bool:
    """Whether a signal has stopped the process; False where unknown."""
    try:
      with open(f'/proc/{self.process.pid}/stat', 'rb') as stat:
        return stat.read().rpartition(b')')[2].split()[0] in b'Tt'
    except OSError:
      return False

  def _ended(self) -> Outcome:
    """How a process ended whose pipe has ended."""
    try:
      status = self.process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
      self.process.kill()
      status = self.process.wait()
    return Outcome(_KILLED if status < 0 else _DIED, 0.0,
                   f'worker died with status {status}')

  def stop(self):
    self.process.kill()
    self.process.wait()
    if self._sender.ident is not None:
      self._sender.join(timeout=1.0)
    self.pipe.close()


class _Batch:
  """The jobs of one call of `Pool.run`, and how far they are."""

  def __init__(self, jobs: Sequence[Job]):
    self.waiting = collections.deque(enumerate(jobs))
    self.outcomes = {}  # of the index of a job
    self.retried = set()  # indices of jobs that a fault of the machine cost
    self.loads = collections.Counter()  # workers lost before they had begun it
    self.refused = 0  # starts, by the system


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
    self.restarts = 0  # workers replaced for a fault of the machine, so far

  def run(self, jobs: Sequence[Job], together: bool = False) -> list[Outcome]:
    """The outcome of each job, in order.

    Args:
      jobs: N.
      together: a worker does all its jobs at once, and ends those that are
        late itself. One that dies or hangs all the same loses all of them.

    Raises:
      LoadError: a worker cannot start or load a verifier, which no answer can
        cause: it says so itself, or was lost three times in a row.
    """
    batch = _Batch(jobs)
    if together:
      share = math.ceil(len(jobs) / self._limit)
    else:
      share = min(max(math.ceil(len(jobs) / (4 * self._limit)), 1), _MAX_JOBS)
    try:
      while len(batch.outcomes) < len(jobs):
        self._hand_out(batch, share, together)
        busy = [worker for worker in self._workers if worker.jobs]
        patience = min([w.deadline for w in busy], default=0.)
        patience = min(patience - time.monotonic(), _PATIENCE_SECONDS)
        ready = connection.wait([w.pipe for w in busy], max(patience, 0.0))
        interrupts.check()
        for worker in busy:
          if worker.pipe in ready:
            self._take(worker, worker.read(), batch)
          elif worker.deadline <= time.monotonic():
            self._take(worker, worker.late(), batch)
          else:
            worker.say_slow()
    finally:
      # After an interrupt, later answers would be taken for those of new jobs.
      for worker in [w for w in self._workers if w.jobs]:
        self._drop(worker)
    return [batch.outcomes[index] for index in range(len(jobs))]

  def _hand_out(self, batch: _Batch, share: int, together: bool):
    for worker in [w for w in self._workers if w.process.poll() is not None]:
      if not worker.jobs:  # else its last message is still to be read
        self._drop(worker)
        self.restarts += 1
    while batch.waiting:
      idle = [worker for worker in self._workers if not worker.jobs]
      if not idle and (len(self._workers) == self._limit
                       or not (idle := self._started(batch))):
        return
      count = min(share, len(batch.waiting))
      idle[0].send([batch.waiting.popleft() for _ in range(count)], together)

  def _started(self, batch: _Batch) -> list[_Worker]:
    """A new worker; none if the system refuses, for which the others go on."""
    if batch.refused and self._workers:
      return []
    try:
      worker = _Worker(self._serve, self._load, self._timeout_seconds)
    except OSError as problem:  # no more processes, open files or memory
      batch.refused += 1
      if batch.refused == _LOADS:
        raise LoadError(
            f'{problem}, {_LOADS} times in a row; {_FEWER}') from problem
      logging.warning('a worker cannot be started now: %s', problem)
      if not self._workers:
        time.sleep(PAUSE_SECONDS)
      return []
    self._workers.append(worker)
    return [worker]

  def _take(self, worker: _Worker, message: Outcome, batch: _Batch):
    """Handles a message, or the loss of a worker."""
    if message.status == 'ready':
      return
    if not worker.loaded:
      self._load_again(worker, message, batch)
    elif message.status in _LOST:
      self._lose(worker, message, batch)
    else:
      index, job = worker.jobs.popleft()
      if _lacks_memory(message) and index not in batch.retried:
        batch.retried.add(index)
        self._replace(worker, [(index, job)], message, batch)
      else:
        batch.outcomes[index] = message

  def _load_again(self, worker: _Worker, message: Outcome, batch: _Batch):
    """A worker was lost while it loaded: another takes its jobs.

    What a new one says of itself is so, and final.
    """
    if message.status == _DIED and worker.fresh and not _lacks_memory(message):
      raise LoadError(message.detail)
    lost = list(worker.jobs)
    batch.loads.update(index for index, _ in lost)
    tries = max(batch.loads[index] for index, _ in lost)
    detail = message.detail if message.status not in (_HUNG, _SUSPENDED) else (
        f'it has not loaded within {START_SECONDS:g} s')
    if tries == _LOADS:
      raise LoadError(
          f'{detail}, {tries} times in a row; {_FEWER}')
    logging.warning('a worker is replaced before it has loaded: %s', detail)
    worker.jobs.clear()
    self._replace(worker, lost, message, batch)

  def _lose(self, worker: _Worker, message: Outcome, batch: _Batch):
    """A worker was lost within a job, or within all that it did together."""
    again = []
    for _ in range(len(worker.jobs) if worker.together else 1):
      index, job = worker.jobs.popleft()
      if message.status in (_KILLED, _SUSPENDED) and (
          index not in batch.retried):
        batch.retried.add(index)
        again.append((index, job))
      else:
        batch.outcomes[index] = Outcome(
            _STATUSES[message.status], 0.0,
            f'{message.detail}, on {str(job.answer)[:80]!r}')
    self._replace(worker, again, message, batch)

  def _replace(self, worker: _Worker, again: list[tuple[int, Job]],
               message: Outcome, batch: _Batch):
    """Drops a worker; the jobs that are tried `again`, and the rest, wait.

    Jobs done together have all been done when the first is answered: such a
    worker is still heard.
    """
    if again:
      self.restarts += 1
      if worker.loaded:
        logging.log_every_n_seconds(
            logging.WARNING, 'a worker is lost, and its answer tried once '
            'more: %s', 60, message.detail)
    batch.waiting.extendleft(reversed(again))
    if worker.together and message.status not in _LOST:
      return
    batch.waiting.extendleft(reversed(worker.jobs))
    self._drop(worker)

  def _drop(self, worker):
    self._workers.remove(worker)
    worker.stop()

  def close(self):
    """Ends the workers; a later `run` starts new ones."""
    while self._workers:
      self._drop(self._workers[-1])
