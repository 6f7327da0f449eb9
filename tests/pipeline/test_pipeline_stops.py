"""A signal anywhere in a pipeline ends it before another stage begins."""

import os
import signal
import sys

import pytest

import test_pipeline
from r1jax import errors
from r1jax import pipeline
from r1jax import stages
from r1jax.training import lock


def _ask(*_):
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(name='asking', autouse=True)
def _asking(monkeypatch):
  """Where stage a gets a signal: a function of its loop.Stage, or its build."""
  where = {}
  build = test_pipeline._build

  def asking(config, mesh, workdir):
    if config.name == 'a' and where.pop('build', None):
      _ask()
    stage = build(config, mesh, workdir)
    if config.name != 'a':
      return stage
    changes = {}
    for name in list(where):
      plain = getattr(stage, name)
      def asks(*args, plain=plain, name=name):
        where.pop(name, None) and _ask()
        return plain(*args) if plain else 'ended'
      changes[name] = asks
    return stage._replace(**changes)

  module = type(sys)('toy_stage')
  module.build = asking
  monkeypatch.setitem(sys.modules, 'toy_stage', module)
  monkeypatch.setitem(stages.KINDS, 'toy', 'toy_stage')
  test_pipeline.ran.clear()
  return where


@pytest.mark.parametrize('place', [
    'build', 'init', 'evaluate', 'step', 'finish'])
@pytest.mark.parametrize('steps', [
    pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_signal_in_any_stage_ends_the_pipeline(
    tmp_path, asking, capsys, place, steps):
  if place == 'step' and not steps:
    pytest.skip('it takes none')
  config = test_pipeline._config()
  config.stages.a.steps = steps
  if not steps:
    config.stages.a.out = str(tmp_path / 'a')
  asking[place] = True
  assert not pipeline.run_pipeline(config, str(tmp_path))
  assert not asking
  said, = (line for line in capsys.readouterr().out.splitlines()
           if line.startswith('stopped'))
  assert said.startswith(
      'stopped while no stage took steps, ' if place == 'build' else
      'stopped; nothing was to be saved' if not steps else
      'stopped after step 2 of 2, ' if place == 'finish' else
      'stopped before the first step; nothing to save')
  assert not (tmp_path / 'b').exists() and 'b' not in test_pipeline.ran
  assert not list(tmp_path.rglob('lock'))
  assert pipeline.run_pipeline(config, str(tmp_path))
  assert test_pipeline.ran[-4:] == list('bbcc')


def test_a_pipeline_in_use_is_refused(tmp_path):
  with lock.held(tmp_path):
    with pytest.raises(errors.ConfigError, match='is in use by process'):
      pipeline.run_pipeline(test_pipeline._config(), str(tmp_path))
    config = test_pipeline._config()
    config.dry_run = True  # which writes nothing
    assert not pipeline.run_pipeline(config, str(tmp_path))
  assert not test_pipeline.ran


def test_a_stage_in_use_is_not_moved_away(tmp_path):
  assert pipeline.run_pipeline(test_pipeline._config(), str(tmp_path))
  config = test_pipeline._config()
  config.stages.b.value = 5
  with lock.held(tmp_path / 'b'):
    with pytest.raises(errors.ConfigError, match=f'{tmp_path}/b is in use'):
      pipeline.run_pipeline(config, str(tmp_path))
  assert not (tmp_path / 'b.old1').exists()


def test_a_lack_of_memory_names_the_stage_s_fields(tmp_path, monkeypatch):
  def build(*_):
    raise MemoryError
  monkeypatch.setattr(sys.modules['toy_stage'], 'build', build)
  config = test_pipeline._config()
  config.stages.a.lm = dict(micro_batches=1)
  with pytest.raises(errors.RunError, match='larger config.stages.a.lm.micro'):
    pipeline.run_pipeline(config, str(tmp_path))
