"""Workers that hang, crash or attack cost the answer at fault, no other."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from r1jax import errors
from r1jax import interrupts
from r1jax.rewards import workers


@pytest.fixture(name='pool')
def _pool():
  pool = workers.Pool(2, timeout_seconds=1.0, load='misbehaving:load')
  yield pool
  pool.close()


def _good(answer, reference):
  return workers.Job('good', '', answer, reference)


def _reckless(answer):
  return workers.Job('reckless', '', answer, 'x')


def test_outcomes_come_in_the_order_of_the_jobs(pool):
  jobs = [_good(str(i % 3), '1') for i in range(200)]
  outcomes = pool.run(jobs)
  assert [o.value for o in outcomes] == [float(i % 3 == 1) for i in range(200)]
  assert {o.status for o in outcomes} == {'ok'}
  assert pool.run([]) == []


@pytest.mark.parametrize('answer, status, detail', [
    ('sleep 60', 'timeouts', 'no result in time'),
    ('spin', 'timeouts', 'no result in time'),
    ('segfault', 'errors', 'worker died with status -11'),
    ('exit', 'errors', 'worker died with status 3'),
    ('swell', 'errors', 'MemoryError'),
    ('recurse', 'errors', 'RecursionError'),
    ('raise', 'errors', 'ValueError: cannot read this'),
    ('raise_unknown', 'errors', 'Exception: of no known class'),
])
def test_one_bad_answer_costs_that_answer_only(pool, answer, status, detail):
  jobs = [_good('1', '1') for _ in range(40)]
  jobs[7] = _reckless(answer)
  outcomes = pool.run(jobs)
  assert outcomes[7].status == status
  assert outcomes[7].value == 0.0
  assert detail in outcomes[7].detail
  assert all(o == workers.Outcome('ok', 1.0, '')
             for i, o in enumerate(outcomes) if i != 7)
  # And the pool is as good as before.
  assert [o.value for o in pool.run(jobs[:7])] == [1.0] * 7


def test_several_hanging_answers_are_each_given_their_time(pool):
  jobs = [_reckless('sleep 60'), _good('1', '1'), _reckless('sleep 60'),
          _good('2', '1'), _reckless('x')]
  assert [o.status for o in pool.run(jobs)] == [
      'timeouts', 'ok', 'timeouts', 'ok', 'ok']
  assert [o.value for o in pool.run(jobs[3:])] == [0.0, 1.0]


@pytest.mark.parametrize('action', ['system', 'swallow'])
def test_side_effects_are_refused(pool, tmp_path, action):
  sentinel = tmp_path / 'sentinel'
  bad, good = pool.run([_reckless(f'{action} {sentinel}'), _good('1', '1')])
  assert not sentinel.exists()
  assert bad.status == 'refused' and bad.value == 0.0
  assert good.value == 1.0


def test_a_worker_killed_between_batches_is_replaced(pool):
  pool.run([_good('1', '1')])
  (worker,) = pool._workers
  os.kill(worker.process.pid, 9)
  worker.process.wait()
  assert pool.run([_good('1', '1')])[0].value == 1.0 and pool.restarts == 1


def test_workers_start_when_needed_and_end_on_close(pool):
  assert not pool._workers
  pool.run([_good('1', '1')] * 8)
  processes = [worker.process for worker in pool._workers]
  assert 1 <= len(processes) <= 2
  pool.close()
  assert all(process.poll() is not None for process in processes)


def test_a_worker_ends_when_its_parent_hangs_up(pool):
  pool.run([_good('1', '1')])
  (worker,) = pool._workers
  worker.pipe.close()
  assert worker.process.wait(timeout=10) == 0
  pool._workers.clear()


# A trainer that, as ours does, finishes its step when it is interrupted.
_TRAINER = """
import signal
from r1jax.rewards import workers
signal.signal(signal.SIGINT, lambda *args: None)
pool = workers.Pool(1, timeout_seconds=20.0, load="misbehaving:load")
pool.run([workers.Job("good", "", "1", "1")])
print(pool._workers[0].process.pid, flush=True)
slow = workers.Job("reckless", "", "sleep 1", "sleep 1")
print(pool.run([slow])[0].status, flush=True)
signal.pause()
"""


@pytest.fixture(name='trainer')
def _trainer():
  """A process in a group of its own, as a shell starts it, and its worker."""
  here = pathlib.Path(__file__).parent
  path = os.pathsep.join([str(here), str(here.parents[1])])
  with subprocess.Popen(
      [sys.executable, '-c', _TRAINER], stdout=subprocess.PIPE, text=True,
      start_new_session=True, env=os.environ | {'PYTHONPATH': path}) as process:
    yield process, int(process.stdout.readline())
    process.kill()


def test_ctrl_c_does_not_cost_the_answer_in_progress(trainer):
  process, _ = trainer
  time.sleep(0.3)
  os.killpg(process.pid, signal.SIGINT)
  assert process.stdout.readline() == 'ok\n'


@pytest.mark.skipif(not shutil.which('ps'), reason='needs ps')
def test_a_worker_does_not_outlive_a_trainer_that_is_killed(trainer):
  process, worker = trainer
  process.kill()
  process.wait()
  deadline = time.monotonic() + 20.0
  while _runs(worker) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not _runs(worker)


def _runs(pid: int) -> bool:
  """Whether a process lives; a zombie that nobody has waited for does not."""
  done = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)],
                        capture_output=True, text=True, check=False)
  return done.stdout.strip()[:1] not in ('', 'Z')


def test_an_interrupt_leaves_no_stale_answers(pool, monkeypatch):
  taken = []

  def interrupt(*args):
    taken.append(args)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pool, '_take', interrupt)
    with pytest.raises(KeyboardInterrupt):
      pool.run([_good('1', '1')] * 20)
  assert taken
  assert [o.value for o in pool.run([_good('1', '2'), _good('3', '3')])] == [
      0.0, 1.0]


def test_a_signal_does_not_wait_for_a_worker(monkeypatch):
  pool = workers.Pool(2, timeout_seconds=60., load='misbehaving:load')
  monkeypatch.setattr(interrupts._Signals, 'asked', True)
  began = time.monotonic()
  with pytest.raises(interrupts.Stopped):
    pool.run([_reckless('sleep 60')])
  assert time.monotonic() - began < 3 and not pool._workers


def test_a_verifier_that_cannot_load_stops_the_run(pool):
  with pytest.raises(
      errors.RunError, match="could not start: KeyError: 'absent'"):
    pool.run([workers.Job('absent', '', '1', '1')])
  missing = workers.Pool(1, 1.0, load='no_such_module:load')
  with pytest.raises(errors.RunError, match="No module named 'no_such_module'"):
    missing.run([_good('1', '1')])
  missing.close()
  assert not missing.restarts + pool.restarts  # it is not tried again


###############################################################################
# Faults of the machine
###############################################################################


def _later(pool, number, seconds=.4):
  """Sends a signal to the first worker, once it is in the middle of its job."""
  def send():
    while not (pool._workers and pool._workers[0].loaded):
      time.sleep(.01)
    time.sleep(seconds)
    os.kill(pool._workers[0].process.pid, number)
  threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_whose_worker_the_system_takes_is_tried_once_more(number):
  with contextlib.closing(
      workers.Pool(1, 2., load='misbehaving:load')) as pool:
    _later(pool, number)
    jobs = [workers.Job('reckless', '', 'sleep 1', 'sleep 1'), _good('1', '1')]
    assert [o.value for o in pool.run(jobs)] == [1., 1.]
    assert pool.restarts == 1


@pytest.mark.parametrize('answer, restarts', [
    ('segfault', 1), ('exit', 0), ('swell', 1), ('raise_unknown', 0),
    ('spin', 0)])
def test_what_takes_its_own_worker_is_an_error_soon(pool, answer, restarts):
  """One that is only late, or says what is wrong, is not even tried again."""
  outcome, = pool.run([_reckless(answer)])
  assert outcome.status in ('errors', 'timeouts') and outcome.value == 0.
  assert pool.restarts == restarts


def test_memory_that_other_answers_have_taken_costs_no_answer():
  with contextlib.closing(
      workers.Pool(1, 20., load='misbehaving:load')) as pool:
    outcomes = pool.run([workers.Job('leaky', '', '1', '1')] * 5)
    assert {outcome.value for outcome in outcomes} == {1.}
    assert pool.restarts  # two at a time are one too many


@pytest.mark.parametrize('action, times, value', [
    ('kill', 2, 1.), ('kill', 9, 'status -9, 3 times in a row'),
    ('exit', 1, 'could not start: worker died with status 0$'),
    ('sleep', 1, 1.)])
def test_a_worker_lost_while_it_loads_is_replaced_at_most_twice(
    pool, tmp_path, monkeypatch, caplog, action, times, value):
  monkeypatch.setattr(workers, 'START_SECONDS', 4.)
  job = workers.Job('good', f'{tmp_path}/count {times} {action}', '1', '1')
  if value == 1.:
    assert [o.value for o in pool.run([job, _good('2', '1')])] == [1., 0.]
    assert pool.restarts == times
    assert 'is replaced before it has loaded' in caplog.text
    assert 'tried once more' not in caplog.text  # one loss, one line
  else:
    with pytest.raises(errors.RunError, match=value):
      pool.run([job])


def test_a_worker_that_loads_for_long_is_named_once(
    pool, tmp_path, monkeypatch, caplog):
  pool.run([_good('1', '1')])
  assert 'this step waits' not in caplog.text
  monkeypatch.setattr(workers, 'START_SECONDS', 4.)
  monkeypatch.setattr(workers, 'SLOW_SECONDS', 1.)
  pid = pool._workers[0].process.pid
  pool.run([workers.Job('good', f'{tmp_path}/count 1 sleep', '1', '1')])
  said, = (text for text in caplog.messages if f'(process {pid}) has' in text)
  assert re.fullmatch(
      rf'a worker \(process {pid}\) has not loaded good for [12] s: this step '
      r'waits; in [23] s the worker is replaced', said)


def test_a_worker_that_reads_nothing_is_replaced(pool, monkeypatch):
  """One suspended between batches, sent more than a pipe holds."""
  monkeypatch.setattr(workers, 'START_SECONDS', 4.)
  pool.run([_good('1', '1')])
  os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
  long = 'x' * (1 << 20)
  assert pool.run([_good(long, long)])[0].value == 1.
  assert pool.restarts == 1


def test_an_old_worker_that_cannot_load_is_not_the_last_word(pool, tmp_path):
  """It may lack the memory that a new one has, or have died since."""
  pool.run([_good('1', '1')])
  job = workers.Job('good', f'{tmp_path}/count 1 exit', '1', '1')
  assert pool.run([job])[0].value == 1. and pool.restarts == 1
  pool._workers[0].process.poll = lambda: None  # as if it died right after
  os.kill(pool._workers[0].process.pid, 9)
  assert pool.run([_good('1', '1')])[0].value == 1. and pool.restarts == 2


def test_a_trainer_that_was_suspended_blames_no_answer(pool):
  pool.run([_good('1', '1')])
  worker = pool._workers[0]
  for seconds, status in ((.1, 'hung'), (5., 'suspended')):
    worker.deadline = time.monotonic() - seconds
    assert worker.late().status == status


@pytest.mark.parametrize('refused', [2, 9])
def test_starts_that_the_system_refuses_are_tried_again(
    pool, monkeypatch, refused):
  monkeypatch.setattr(workers, 'PAUSE_SECONDS', .01)
  popen, calls = subprocess.Popen, []

  def start(*args, **kwargs):
    calls.append(args)
    if len(calls) <= refused:
      raise BlockingIOError(11, 'Resource temporarily unavailable')
    return popen(*args, **kwargs)

  monkeypatch.setattr(workers.subprocess, 'Popen', start)
  if refused == 2:
    assert pool.run([_good('1', '1')] * 20)[19].value == 1.
  else:
    with pytest.raises(errors.RunError, match='unavailable, 3 times in a row'):
      pool.run([_good('1', '1')])
    assert len(calls) == 3


def test_a_fast_batch_is_cheap_once_workers_run(pool):
  jobs = [_good(str(i), str(i)) for i in range(300)]
  pool.run(jobs)
  start = time.monotonic()
  pool.run(jobs)
  assert time.monotonic() - start < 2.0  # 0.02 s on a quiet machine
