"""The loop around a toy stage: stops, kills, resumes, and what is left behind.

The stage fits a vector to noise that is a function of the step, with real
optimizer state, so that a lost or repeated step changes the parameters.
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax import types
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import history
from r1jax.training import logger
from r1jax.training import loop
from r1jax.training import optim
from r1jax.training import timing

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 12
CONFIG = dict(stage='toy', seed=3, steps=STEPS, lr=0.1, log=dict(a=1))
SETTINGS = loop.Settings(checkpoint_every_steps=3, keep=2)
OPTIMIZER = optim.make_optimizer(
    lr=0.1, steps=STEPS, kind='cosine', weight_decay=0.1)


@jax.jit
def _step(state):
  key = jax.random.fold_in(jax.random.key(CONFIG['seed']), state.step)
  grads = {'w': state.params['w'] + jax.random.normal(key, (4,))}
  state, metrics = optim.update(OPTIMIZER, grads, state)
  return state._replace(step=state.step + 1), metrics


def _init():
  params = {'w': jnp.arange(4.)}
  return types.TrainState(
      jnp.int32(0), params, OPTIMIZER.init(params), None, jnp.int32(0))


def _stage(steps=STEPS, on_step=None, on_evaluate=None, bad_from=None, **kw):
  def step(state, index):
    assert index == int(state.step)
    if on_step:
      on_step(index)
    if bad_from is not None and index >= bad_from:
      state = state._replace(params={'w': state.params['w'] * jnp.nan})
    state, metrics = _step(state)
    metrics = metrics | {'perf/tokens': 10}
    return state, metrics, [{'text': f'sample of {index}'}]

  def evaluate(state):
    if on_evaluate:
      on_evaluate(int(state.step))
    return {'norm': float(jnp.sum(state.params['w'] ** 2))}, [{'text': 'é'}]

  abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      _init())
  return loop.Stage(steps, _init, abstract, step, evaluate, **kw)


def _run(workdir, stage=None, settings=SETTINGS, config=None):
  return loop.train(stage or _stage(), settings, str(workdir), config or CONFIG)


def _final(workdir, step=STEPS):
  saves = checkpoint.Checkpointer(
      pathlib.Path(workdir) / 'checkpoints', keep=2)
  state, found = saves.restore_latest(_stage().abstract)
  saves.close()
  assert found == step
  return jax.device_get(state)


def _rows(workdir, name='metrics'):
  return files.read_rows(pathlib.Path(workdir) / f'{name}.jsonl')


def _deterministic(rows):
  wall = ('time/step_seconds', 'perf/tokens_per_second',
          'perf/peak_memory_mib', 'perf/host_memory_mib')
  return [{k: v for k, v in row.items() if k not in wall} for row in rows]


@pytest.fixture(name='whole', scope='module')
def _whole(tmp_path_factory):
  """A run that was never stopped."""
  workdir = tmp_path_factory.mktemp('whole')
  return workdir, _run(workdir)


def _assert_same_as(whole, workdir):
  jax.tree.map(np.testing.assert_array_equal, _final(workdir), _final(whole))
  assert _deterministic(_rows(workdir)) == _deterministic(_rows(whole))
  assert _rows(workdir, 'rollouts') == _rows(whole, 'rollouts')


def test_a_run_leaves_everything_behind(whole):
  workdir, summary = whole
  assert summary == json.loads((workdir / 'summary.json').read_text())
  assert (summary['stage'], summary['seed'], summary['steps']) == (
      'toy', 3, STEPS)
  assert summary['before'] == {'norm': 14.0}
  assert 0 < summary['after']['norm'] != 14.0
  assert summary['seconds'] > 0 and len(summary['config_digest']) == 64
  assert [row['step'] for row in _rows(workdir)] == list(range(STEPS))
  assert all(row['perf/tokens_per_second'] > 0 for row in _rows(workdir))
  assert all(row['perf/host_memory_mib'] > 50 for row in _rows(workdir))
  assert _rows(workdir, 'rollouts')[4] == {'step': 4, 'text': 'sample of 4'}
  before = json.loads((workdir / 'evaluation_before.json').read_text())
  assert before == {
      'step': 0, 'figures': {'norm': 14.0}, 'samples': [{'text': 'é'}]}
  assert json.loads((workdir / 'config.json').read_text()) == CONFIG


class Crash(Exception):
  """Stands for a kill: nothing after it runs."""


def test_a_crash_anywhere_ends_in_the_same_state(whole, tmp_path):
  evaluations = []
  for at in (1, 3, 5, 11):
    def crash(index, at=at):
      if index == at:
        raise Crash
    with pytest.raises(Crash):
      _run(tmp_path, _stage(on_step=crash, on_evaluate=evaluations.append))
  _run(tmp_path, _stage(on_evaluate=evaluations.append))
  assert evaluations == [0, STEPS]  # neither lost nor repeated
  _assert_same_as(whole[0], tmp_path)


PROGRAM = """
import os, signal, sys
sys.path[:0] = ['.', 'tests/training']
import test_loop
def kill(index):
  if index == int(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
test_loop._run(sys.argv[1], test_loop._stage(on_step=kill))
"""


def test_kill_9_ends_in_the_same_state(whole, tmp_path):
  """Step 7 dies while the checkpoint of step 6 may still be on its way."""
  for at in (7, -1):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(tmp_path), str(at)], cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True,
        check=False)
    assert done.returncode == (-signal.SIGKILL if at == 7 else 0), done.stderr
  _assert_same_as(whole[0], tmp_path)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_resumes(
    whole, tmp_path, capsys, number):
  handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  stop = lambda index: index == 4 and os.kill(os.getpid(), number)
  assert _run(tmp_path, _stage(on_step=stop)) is None
  assert 'stopped after step 5 of 12' in capsys.readouterr().out
  assert handlers == (
      signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
  assert _final(tmp_path, step=5).step == 5  # though no multiple of 3
  assert not (tmp_path / 'summary.json').exists()
  assert _run(tmp_path)['steps'] == STEPS
  _assert_same_as(whole[0], tmp_path)


def test_a_run_without_a_checkpoint_says_that_it_starts_again(
    tmp_path, capsys):
  class Killed(Exception):
    pass

  def die(index):
    if index == 1:  # a checkpoint is every third step
      raise Killed
  with pytest.raises(Killed):
    _run(tmp_path, _stage(on_step=die))
  assert 'starting again' not in capsys.readouterr().out
  _run(tmp_path)
  assert 'starting again from step 0; how often one' in capsys.readouterr().out


def test_a_finished_run_started_again_repeats_nothing(whole):
  def never(step):
    raise AssertionError(f'runs again at {step}')

  again = _run(whole[0], _stage(on_step=never, on_evaluate=never))
  assert again['after'] == whole[1]['after']
  assert again['seconds'] >= whole[1]['seconds']  # over all resumes


def test_another_config_in_the_same_workdir_is_refused(tmp_path):
  _run(tmp_path, _stage(steps=2), config=CONFIG | dict(steps=2))
  with pytest.raises(errors.ConfigError, match=r'config.lr \(0.1 there'):
    _run(tmp_path, config=CONFIG | dict(lr=0.2))
  longer = _run(tmp_path, _stage(steps=3),
                config=CONFIG | dict(steps=3, log=dict(a=2)))
  assert longer['steps'] == 3 and longer['before'] == {'norm': 14.0}


def test_other_inputs_in_the_same_workdir_are_refused(whole, tmp_path):
  """A data file replaced between stop and resume."""
  inputs = {'rows.jsonl': {'rows.jsonl': 'a' * 64}}
  run = lambda stage, inputs: loop.train(
      stage, SETTINGS, str(tmp_path), CONFIG, inputs)

  def crash(index):
    if index == 5:
      raise Crash
  with pytest.raises(Crash):
    run(_stage(on_step=crash), inputs)
  with pytest.raises(errors.ConfigError, match='rows.jsonl has changed; resto'):
    run(_stage(), {'rows.jsonl': {'rows.jsonl': 'b' * 64}})
  run(_stage(), inputs)
  _assert_same_as(whole[0], tmp_path)


def test_skipped_updates_in_a_row_stop_the_run(tmp_path):
  """The last good state stays, and a lower rate goes on from it."""
  settings = SETTINGS._replace(
      max_skipped_steps=7, checkpoint_every_steps=1, keep=2)
  with pytest.raises(logger.Diverged, match=(
      'step 10: 7 updates in a row had numbers that are not finite .*; the '
      'state of step 4 saved: start the same command again with a lower '
      'config.optim.lr')):
    _run(tmp_path, _stage(bad_from=4), settings)
  flags = [row['optim/skipped'] for row in _rows(tmp_path)]
  assert flags == [0.] * 4 + [1.] * 7
  assert sorted(p.name for p in (tmp_path / 'checkpoints').iterdir()) == [
      '3', '4']
  assert _final(tmp_path, step=4).skipped == 0
  steps = []
  lower = CONFIG | dict(optim=dict(lr=.01))
  assert _run(tmp_path, _stage(on_step=steps.append), settings, lower)[
      'steps'] == STEPS
  assert steps == [*range(4, STEPS)]


def test_a_state_that_is_ruined_can_be_left(tmp_path):
  """Finite, but no update can be made from it, at whatever rate."""
  settings = SETTINGS._replace(
      max_skipped_steps=3, checkpoint_every_steps=1, keep=1)
  for _ in range(2):
    with pytest.raises(logger.Diverged, match=(
        'if it diverges again at once, that state is ruined: remove '
        f'{tmp_path}/checkpoints/4 to go on from before it')):
      _run(tmp_path, _stage(bad_from=4), settings)
  shutil.rmtree(tmp_path / 'checkpoints/4')
  assert _run(tmp_path, settings=settings, config=CONFIG | dict(
      optim=dict(lr=.01)))['steps'] == STEPS


@pytest.mark.parametrize('name', ['metrics', 'rollouts'])
def test_rows_that_go_while_the_run_lives_are_told(tmp_path, capsys, name):
  path = tmp_path / f'{name}.jsonl'
  remove = lambda index: index == 7 and path.unlink()
  _run(tmp_path, _stage(on_step=remove))
  said = [line for line in capsys.readouterr().out.splitlines()
          if line.startswith('warning: ')]
  assert len(said) == 1 and f'{path} is not what it was at the' in said[0]


def test_a_run_that_ends_with_skipped_updates_has_diverged(tmp_path):
  with pytest.raises(logger.Diverged, match=(
      'the last 2 updates .* were skipped; no state saved: ')):
    _run(tmp_path, _stage(steps=2, bad_from=0), config=CONFIG | dict(steps=2))
  assert not (tmp_path / 'summary.json').exists()
  assert not any((tmp_path / 'checkpoints').iterdir())


def _saved(workdir):
  return sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir())


def test_a_save_waits_for_an_update_that_is_made(tmp_path):
  """Two updates are skipped, at one of which a state was to be saved."""
  @jax.jit
  def skip(state):
    return optim.update(OPTIMIZER, {'w': state.params['w'] * jnp.nan}, state)

  plain = _stage()
  def step(state, index):
    if index not in (2, 3):
      return plain.step(state, index)
    state, metrics = skip(state)
    return state._replace(step=state.step + 1), metrics, []
  _run(tmp_path, plain._replace(step=step), SETTINGS._replace(keep=9))
  assert _saved(tmp_path) == [5, 6, 9, 12]


def test_a_stop_keeps_the_good_states_beside_one_that_may_be_ruined(
    tmp_path, capsys):
  stop = lambda index: index == 7 and os.kill(os.getpid(), signal.SIGTERM)
  assert _run(tmp_path, _stage(on_step=stop, bad_from=7)) is None
  assert 'stopped after step 8 of 12, state saved' in capsys.readouterr().out
  assert _saved(tmp_path) == [3, 6, 8] and _final(tmp_path, 8).skipped == 1
  with pytest.raises(logger.Diverged):  # and the count goes on
    _run(tmp_path, _stage(bad_from=7), SETTINGS._replace(max_skipped_steps=3))
  assert _rows(tmp_path)[-1]['step'] == 9 and _saved(tmp_path) == [3, 6, 8]


def test_checkpoints_that_are_gone_are_told_and_the_rows_are_kept(
    whole, tmp_path, capsys):
  def crash(index):
    if index == 7:
      raise Crash
  with pytest.raises(Crash):
    _run(tmp_path, _stage(on_step=crash))
  rows = (tmp_path / 'metrics.jsonl').read_bytes()
  shutil.rmtree(tmp_path / 'checkpoints')
  with pytest.raises(Crash):
    _run(tmp_path, _stage(on_step=lambda index: crash(index + 6)))
  said = [line for line in capsys.readouterr().out.splitlines()
          if line.startswith('warning: ')]
  assert len(said) == 1 and said[0].startswith(
      f'warning: {tmp_path}/checkpoints has none of the states that were saved')
  assert 'up to step 6, are kept as metrics.jsonl.old' in said[0]
  _run(tmp_path)  # killed before its first save, it says another thing
  assert 'no checkpoint is there: starting again' in capsys.readouterr().out
  assert (tmp_path / 'metrics.jsonl.old').read_bytes() == rows
  _assert_same_as(whole[0], tmp_path)


def test_a_divergence_that_cannot_be_noted_is_said_all_the_same(
    tmp_path, capsys):
  def on_step(index):
    (tmp_path / 'diverged.json').mkdir(exist_ok=True)
  with pytest.raises(logger.Diverged, match='the last 2 updates'):
    _run(tmp_path, _stage(steps=2, bad_from=0, on_step=on_step),
         config=CONFIG | dict(steps=2))
  assert f'is not kept: {tmp_path}/diverged.json: Is a directory' in (
      capsys.readouterr().out)


def test_rows_that_are_gone_are_told_or_refused_at_a_resume(tmp_path, capsys):
  def crash(index):
    if index == 7:
      raise Crash
  with pytest.raises(Crash):
    _run(tmp_path, _stage(on_step=crash))
  for name in ('metrics', 'rollouts'):
    files.write_rows(tmp_path / f'{name}.jsonl', _rows(tmp_path, name)[:4])
  (tmp_path / 'evaluation_before.json').unlink()
  with pytest.raises(errors.ConfigError, match=r'rollouts\.jsonl .*steps 4 to 5'):
    _run(tmp_path, _stage(makes_rollouts=True))
  capsys.readouterr()
  summary = _run(tmp_path)
  said = [line for line in capsys.readouterr().out.splitlines()
          if line.startswith('warning: ')]
  assert len(said) == 3 and 'metrics.jsonl' in said[0] and (
      'rollouts.jsonl' in said[1] and 'evaluation_before.json' in said[2])
  assert summary['before'] is None and summary['steps'] == STEPS
  gone = [*range(4), *range(6, STEPS)]
  assert [row['step'] for row in _rows(tmp_path)] == gone
  assert [row['step'] for row in _rows(tmp_path, 'rollouts')] == gone


@pytest.mark.parametrize('name', ['rollouts.jsonl', 'metrics.jsonl'])
def test_a_file_of_the_run_that_cannot_be_written_is_one_line(
    tmp_path, monkeypatch, name):
  """Rows end the run; what was saved before is good, and it goes on."""
  def full(index):
    assert index < 6
    if index == 4:
      (tmp_path / name).rename(tmp_path / 'aside')
      (tmp_path / name).symlink_to('/dev/full')
  with pytest.raises(errors.RunError, match=(
      rf'^{tmp_path}/{name}: No space left on device; make room')):
    _run(tmp_path, _stage(on_step=full))
  (tmp_path / 'aside').rename(tmp_path / name)
  assert _run(tmp_path)['steps'] == STEPS
  # Nothing depends on the time of the run.
  monkeypatch.setattr(history, '_SECONDS', 'file/seconds.json')
  (tmp_path / 'file').write_text('')
  assert _run(tmp_path)['steps'] == STEPS


def test_a_save_that_fails_ends_the_run_at_the_next_step(
    tmp_path, monkeypatch):
  tried = threading.Event()
  def full(self):
    tried.set()
    raise OSError(errno.ENOSPC, 'full')
  monkeypatch.setattr(checkpoint.Checkpointer, '_sync_written', full)
  steps = []
  def on_step(index):
    steps.append(index)
    if index >= 3:  # saved after step 2; then it fails in the background
      tried.wait(60)
      time.sleep(.5)
  with pytest.raises(errors.RunError, match=(
      r'checkpoints/3 could not be written \(none before it\): No space left')):
    _run(tmp_path, _stage(on_step=on_step))
  assert len(steps) in (4, 5)  # the next save would be after a sixth
  monkeypatch.undo()
  assert _run(tmp_path)['steps'] == STEPS


def test_a_power_cut_costs_the_steps_since_the_last_save(
    whole, tmp_path, monkeypatch):
  """Files that were never put on disk are empty, all but the last save's."""
  synced, fsync = {}, os.fsync
  def traced(number):
    fsync(number)
    stat = os.fstat(number)
    synced[stat.st_ino] = stat.st_size
  monkeypatch.setattr(os, 'fsync', traced)
  def crash(index):
    if index == 8:
      raise Crash
  with pytest.raises(Crash):
    _run(tmp_path, _stage(on_step=crash))
  monkeypatch.undo()
  for path in tmp_path.rglob('*'):
    if path.is_file():
      os.truncate(path, synced.get(path.stat().st_ino, 0))
  steps = []
  assert len(_rows(tmp_path)) == 6
  _run(tmp_path, _stage(on_step=steps.append))
  assert steps[0] == 6
  _assert_same_as(whole[0], tmp_path)


def test_evaluations_on_the_way_and_rollouts_every_few_steps(tmp_path):
  asked = []
  _run(tmp_path, _stage(on_evaluate=asked.append), SETTINGS._replace(
      eval_every_steps=4, rollouts_every_steps=5))
  assert asked == [0, 4, 8, 12]
  rows = _rows(tmp_path)
  assert [row['step'] for row in rows if 'eval/norm' in row] == [3, 7]
  assert [row['step'] for row in _rows(tmp_path, 'rollouts')] == [0, 5, 10]


def test_a_stage_of_no_steps_evaluates_once(tmp_path, capsys):
  asked, told = [], []
  def finish(summary):
    told.append(summary)
    return 'what was learned'

  summary = _run(tmp_path, _stage(
      steps=0, on_evaluate=asked.append, finish=finish))
  assert asked == [0] and told == [summary]
  assert summary['before'] is None and summary['after'] == {'norm': 14.0}
  assert capsys.readouterr().out == 'what was learned\n'
  assert not (tmp_path / 'checkpoints').exists()


def test_a_stage_of_no_steps_needs_only_what_it_is_read_for(tmp_path):
  stage = loop.Stage(0, _init, _stage().abstract, step=None)
  summary = loop.train(stage, loop.Settings(), str(tmp_path), CONFIG)
  assert (summary['steps'], summary['before'], summary['after']) == (
      0, None, None)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
      'config.json', 'run.json', 'seconds.json', 'summary.json']


@pytest.mark.parametrize('name', ['file', 'file/below', 'dangling'])
def test_a_workdir_that_cannot_be_made_is_refused(tmp_path, name):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'dangling').symlink_to(tmp_path / 'file/nowhere')
  with pytest.raises(errors.ConfigError, match='^--workdir: expected a dir'):
    _run(tmp_path / name)


def test_metrics_are_on_disk_before_the_checkpoint_that_follows(
    tmp_path, monkeypatch):
  """Of steps whose figures nobody has waited for."""
  save, saved = checkpoint.Checkpointer.save, []

  def spied(self, step, state, **kwargs):
    rows = _rows(tmp_path)
    assert [row['step'] for row in rows] == [*range(step)]
    assert len(_rows(tmp_path, 'rollouts')) == step
    saved.append(step)
    return save(self, step, state, **kwargs)

  monkeypatch.setattr(checkpoint.Checkpointer, 'save', spied)
  monkeypatch.setattr(logger, '_is_ready', lambda tree: False)
  _run(tmp_path)
  assert saved == [3, 6, 9, 12] and len(_rows(tmp_path)) == STEPS


def test_a_stage_s_readings_become_the_seconds_of_its_parts(tmp_path):
  plain = _stage()

  def step(state, index):
    readings = {timing.BEGAN: timing.wait_for(state)}
    readings[timing.ROLLED_OUT] = timing.now()
    state, metrics, records = plain.step(state, index)
    return state, metrics | readings, records

  _run(tmp_path, plain._replace(step=step))
  for row in _rows(tmp_path):
    parts = row['timing/rollout_seconds'], row['timing/update_seconds']
    assert min(parts) >= 0
    np.testing.assert_allclose(sum(parts), row['time/step_seconds'])


def test_the_progress_line_shows_the_chosen_metrics(tmp_path, capfd):
  _run(tmp_path, _stage(progress={'optim/lr': 'rate', 'not/there': 'x'}))
  last = capfd.readouterr().err.splitlines()[-1]
  assert last.startswith('step 12/12  rate ')
