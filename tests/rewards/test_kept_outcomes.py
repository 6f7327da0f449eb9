"""What was verified once is not verified again, unless it failed."""

import contextlib

import pytest

from r1jax.rewards import kept
from r1jax.rewards import workers


def _job(answer, reference='1/2', task='t'):
  return workers.Job('math', task, answer, (reference, 0., ''))


@pytest.fixture(name='asked')
def _asked(monkeypatch):
  """The jobs that reach a worker; an answer 'late' is late the first time."""
  asked = []

  def run(self, jobs, together=False):
    del self, together
    late = [job.answer == 'late' and job not in asked for job in jobs]
    asked.extend(jobs)
    return [workers.Outcome('timeouts', 0., 'late') if is_late else
            workers.Outcome('ok', float(job.answer == '0.5'), '')
            for job, is_late in zip(jobs, late)]

  monkeypatch.setattr(workers.Pool, 'run', run)
  return asked


def _values(pool, jobs):
  return [outcome.value for outcome in pool.run(jobs)]


def test_equal_jobs_are_verified_once(asked):
  pool = kept.Pool(1, 20.)
  jobs = [_job('0.5'), _job('1/3'), _job('0.5')]
  assert _values(pool, jobs) == [1, 0, 1]
  assert asked == jobs[:2]
  new = _job('2')
  assert _values(pool, [jobs[1], new, jobs[0]]) == [0, 0, 1]
  assert asked == [*jobs[:2], new]


@pytest.mark.parametrize('other', [
    _job('0.5 '), _job('0.5', '1/3'), _job('0.5', task='u'),
    _job('0.5')._replace(kind='exact'),
    _job('0.5')._replace(reference=('1/2', .1, '')),
    _job('0.5')._replace(reference={'answer': '1/2', 'rows': [1, 2]})])
def test_jobs_that_differ_are_verified_each(asked, other):
  pool = kept.Pool(1, 20.)
  pool.run([_job('0.5')])
  pool.run([other])
  pool.run([other])
  assert asked == [_job('0.5'), other]


def test_what_was_late_is_verified_again(asked):
  pool = kept.Pool(1, 20.)
  late = _job('late')
  statuses = [pool.run([late])[0].status for _ in range(3)]
  assert statuses == ['timeouts', 'ok', 'ok'] and asked == [late] * 2


def test_those_met_last_are_kept(asked):
  pool = kept.Pool(1, 20., most=2)
  for answer in ('1', '2', '1', '3'):
    pool.run([_job(answer)])
  del asked[:]
  pool.run([_job('1'), _job('3')])
  assert not asked
  pool.run([_job('2')])
  assert asked == [_job('2')]


def test_a_batch_that_is_stopped_forgets_nothing(asked, monkeypatch):
  pool = kept.Pool(1, 20.)
  pool.run([_job('1')])
  with monkeypatch.context() as patch:
    def stopped(*unused):
      raise KeyboardInterrupt
    patch.setattr(workers.Pool, 'run', stopped)
    with pytest.raises(KeyboardInterrupt):
      pool.run([_job('1'), _job('2')])
  pool.run([_job('1')])
  assert asked == [_job('1')]


def test_a_second_batch_needs_no_worker():
  jobs = [_job(answer) for answer in ('0.5', '1/3', r'\frac{2}{4}')]
  with contextlib.closing(kept.Pool(1, 20.)) as pool:
    assert _values(pool, jobs) == [1, 0, 1]
    pool.close()
    assert _values(pool, jobs) == [1, 0, 1] and not pool._workers
