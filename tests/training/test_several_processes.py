"""Where the main process alone works, the others learn what it has met."""

import errno
import types

import jax
import orbax.checkpoint as ocp
import pytest

import test_loop
from r1jax import buckets
from r1jax import errors
from r1jax import pipeline
from r1jax.parallel import distributed
from r1jax.parallel import roll_call
from r1jax.training import checkpoint
from r1jax.training import history
from r1jax.training import lock
from r1jax.training import logger
from r1jax.training import loop
from r1jax.training import mirror
from r1jax.training import owners
from r1jax.training import record
from r1jax.training import surroundings
from r1jax.training import timing


@pytest.fixture(name='another')
def _another(monkeypatch):
  """This process is the second, and the first has met a problem."""
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed, 'gather', lambda value: [
      [None, ['--workdir', 'of the first']], value])


def _held(workdir):
  with lock.held(workdir / 'run'):
    raise AssertionError('goes on')


def _status(workdir):
  node = types.SimpleNamespace(name='a', workdir=workdir, config={}, inputs=())
  pipeline._status(node, [], {})


def _logged(workdir):
  log = logger.Log(workdir, {}, clock=timing.Clock(), total_steps=2,
                   max_skipped_steps=5, tensorboard=False)
  with log.aside(test_loop._init()):
    raise AssertionError('goes on')


def _run(workdir, **fields):
  return loop._Run(test_loop._stage(**fields), test_loop.SETTINGS, workdir, {},
                   timing.Clock(), types.SimpleNamespace(wait=lambda: None))


@pytest.mark.parametrize('use', [
    _held, _logged, _status,
    lambda workdir: history.claim(workdir, {}),
    lambda workdir: history.take_up(
        workdir, 3, None, rollouts_every=1, product=False),
    lambda workdir: record.check_inputs(workdir, {'a': {'': '1'}}),
    lambda workdir: surroundings.note(workdir, resumed=True),
    lambda workdir: loop._log_rollouts(_run(workdir), 0, [{'text': 'a'}]),
    lambda workdir: loop._save(_run(workdir), 3, test_loop._init(), False),
    lambda workdir: loop._evaluate(_run(workdir), None, 0, 0, 'x.json'),
    lambda workdir: loop._conclude(
        _run(workdir, finish=lambda summary: 'done'), {'steps': 3}),
])
def test_what_the_first_process_meets_ends_the_others(another, tmp_path, use):
  del another
  with pytest.raises(errors.ConfigError, match='^--workdir: of the first$'):
    use(tmp_path)
  assert not list(tmp_path.iterdir())


def test_all_see_a_workdir_but_one_in_a_bucket(monkeypatch, tmp_path):
  """This process is the second; what the first has written is not there."""
  owner = owners.identity() | {'pid': 7}
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
      distributed, 'gather', lambda value: [[owner, None], value])
  monkeypatch.setattr(lock, '_SEEN_SECONDS', 0.)
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path))
  with lock.held(buckets.place('parts', 'gs://bucket/run')):
    pass
  with pytest.raises(errors.ConfigError, match='does not see .*/run/lock, '):
    with lock.held(tmp_path / 'run'):
      raise AssertionError('goes on')


@pytest.mark.parametrize('fails, do', [
    ((mirror, 'follow'), lambda saves: saves.poll()),
    ((mirror, 'wait'), lambda saves: saves.wait()),
    ((ocp.CheckpointManager, 'save'),
     lambda saves: saves.save(1, test_loop._init())),
])
def test_what_one_meets_of_a_save_ends_the_others(
    monkeypatch, tmp_path, fails, do):
  told = []
  saves = checkpoint.Checkpointer(tmp_path, keep=1)
  def fail(*args, **fields):
    raise OSError(errno.ENOSPC, '') if args else errors.RunError('No space')
  with monkeypatch.context() as patch:
    patch.setattr(*fails, fail)
    patch.setattr(roll_call, 'hold', lambda *given: told.append(given))
    patch.setattr(distributed, 'gather', lambda value: [value, value])
    patch.setattr(jax, 'process_count', lambda: 2)
    if fails[1] == 'wait':
      saves._saving = checkpoint._Saving(1, False, None, on_disk=True)
    with pytest.raises(errors.RunError, match='No space'):
      do(saves)
  (words, trace), = told
  assert 'No space' in words and trace == ''
  saves._saving = None
  saves.close()
