"""A signal at any place of a run: what is kept, and the same end after all.

Around the toy stage of test_loop, in this process.
"""

import contextlib
import json
import os
import signal

import pytest

import test_loop
from r1jax import interrupts
from r1jax.parallel import distributed
from r1jax.training import files
from r1jax.training import loop

EVALUATED = test_loop.SETTINGS._replace(eval_every_steps=4)
STEPS = test_loop.STEPS


def _ask(number=signal.SIGTERM):
  os.kill(os.getpid(), number)


def _stopping(at, number=signal.SIGTERM):
  """An evaluation that gets a signal at a step, and looks for it as ours do."""
  asked = []
  def on_evaluate(step):
    asked.append(step)
    if step == at:
      _ask(number)
      distributed.check_stopped()
      raise AssertionError('goes on')
  return test_loop._stage(on_evaluate=on_evaluate), asked


@pytest.fixture(autouse=True)
def _not_ignored():
  """SIGHUP as in a terminal, also where nohup runs these tests."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)


@pytest.fixture(name='whole', scope='module')
def _whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  test_loop._run(workdir, settings=EVALUATED)
  return workdir


def _texts(workdir):
  """The run's records, byte for byte but for the times and the memory."""
  rows = test_loop._deterministic(test_loop._rows(workdir))
  return [json.dumps(row) for row in rows], *(
      (workdir / name).read_text() for name in (
          'rollouts.jsonl', 'evaluation_before.json', 'evaluation_after.json'))


def _assert_ends_as(whole, workdir):
  assert test_loop._run(workdir, settings=EVALUATED)['steps'] == STEPS
  assert _texts(workdir) == _texts(whole)
  assert (test_loop._final(workdir).params['w']
          == test_loop._final(whole).params['w']).all()


@pytest.mark.parametrize('at, kept', [(0, 0), (4, 4), (8, 8), (STEPS, STEPS)])
def test_a_signal_in_an_evaluation_stops_it(whole, tmp_path, capsys, at, kept):
  stage, asked = _stopping(at)
  assert test_loop._run(tmp_path, stage, EVALUATED) is None
  assert asked[-1] == at
  said = capsys.readouterr().out.splitlines()[-1]
  assert said == (
      f'stopped after step {kept} of {STEPS}, state saved in {tmp_path}; start '
      'the same command again to resume' if kept else
      'stopped before the first step; nothing to save')
  if 0 < at < STEPS:  # the step's row is there, without the evaluation
    last = test_loop._rows(tmp_path)[-1]
    assert last['step'] == at - 1 and 'eval/norm' not in last
  assert not (tmp_path / 'lock').exists()
  _assert_ends_as(whole, tmp_path)


def test_what_a_stopped_evaluation_lacks_is_made_up_once(
    whole, tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'write_rows', None)  # however many there are
  assert test_loop._run(tmp_path, _stopping(4)[0], EVALUATED) is None
  stage, asked = _stopping(4)  # and once more, as the first that is done
  assert test_loop._run(tmp_path, stage, EVALUATED) is None and asked == [4]
  asked = []
  test_loop._run(
      tmp_path, test_loop._stage(on_evaluate=asked.append), EVALUATED)
  assert asked == [4, 8, STEPS]
  assert _texts(tmp_path) == _texts(whole)


@pytest.mark.parametrize('at', [0, 1, 4, STEPS - 1])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_within_a_step_before_its_update(whole, tmp_path, at, number):
  def on_step(index):
    if index == at:
      _ask(number)
      distributed.check_stopped()  # nothing of the state is donated yet
      raise AssertionError('goes on')
  assert test_loop._run(
      tmp_path, test_loop._stage(on_step=on_step), EVALUATED) is None
  rows = test_loop._rows(tmp_path)
  assert [row['step'] for row in rows] == list(range(at))
  _assert_ends_as(whole, tmp_path)


def test_a_signal_in_the_last_step_is_not_forgotten(whole, tmp_path, capsys):
  on_step = lambda index: index == STEPS - 1 and _ask()
  assert test_loop._run(
      tmp_path, test_loop._stage(on_step=on_step), EVALUATED) is None
  assert f'stopped after step {STEPS} of {STEPS}' in capsys.readouterr().out
  assert not (tmp_path / 'evaluation_after.json').exists()
  _assert_ends_as(whole, tmp_path)


def test_a_first_step_that_is_interrupted_saves_nothing(whole, tmp_path):
  """It may have donated the state."""
  def on_step(index):
    assert index == 0
    _ask()
  stage = test_loop._stage(on_step=on_step)
  assert test_loop._run(tmp_path, stage, EVALUATED) is None
  assert not list(tmp_path.glob('checkpoints/[0-9]*'))
  _assert_ends_as(whole, tmp_path)


@pytest.mark.parametrize('where', ['init', 'evaluate', 'finish'])
def test_a_stage_without_steps_stops_wherever_it_is(tmp_path, where):
  def ask(*_):
    _ask(signal.SIGINT)
    raise AssertionError('goes on')
  plain = test_loop._stage(steps=0, finish=lambda summary: 'done')
  stage = plain._replace(**{where: ask})
  assert test_loop._run(tmp_path, stage) is None
  assert not (tmp_path / 'lock').exists()
  assert test_loop._run(tmp_path, plain)['steps'] == 0


def test_a_run_in_use_is_refused_and_goes_on(tmp_path):
  """Neither its files nor its end are touched by the one that is refused."""
  def on_step(index):
    if index == 2:
      with pytest.raises(test_loop.errors.ConfigError, match='is in use by'):
        test_loop._run(tmp_path)
  test_loop._run(tmp_path, test_loop._stage(on_step=on_step), EVALUATED)
  assert len(test_loop._rows(tmp_path)) == STEPS


def test_other_surroundings_are_said_by_a_run_that_resumes(
    tmp_path, monkeypatch, capsys):
  now = loop.surroundings.found()
  stop = lambda index: index == 4 and _ask()
  test_loop._run(tmp_path, test_loop._stage(on_step=stop))
  for cores, warnings in ((99, 1), (7, 0)):  # when it computes nothing more
    monkeypatch.setattr(
        loop.surroundings, 'found', lambda: now | dict(cores=cores))
    capsys.readouterr()
    test_loop._run(tmp_path)
    assert capsys.readouterr().out.count('cores (') == warnings
  assert files.read_json(tmp_path / 'run.json')['surroundings']['cores'] == 99


def test_of_several_processes_none_raises_alone(monkeypatch):
  monkeypatch.setattr(distributed.jax, 'process_count', lambda: 2)
  with interrupts.handled(), distributed.signals_noted():
    _ask()
    assert interrupts.asked()
  monkeypatch.setattr(distributed.jax, 'process_count', lambda: 1)
  with interrupts.handled(), distributed.signals_noted():
    with pytest.raises(interrupts.Stopped), contextlib.nullcontext():
      _ask()
