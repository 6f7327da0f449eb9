"""The command line from outside: one line on stderr, status 2, nothing run."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax import run
from r1jax import stages

ROOT = pathlib.Path(__file__).resolve().parents[1]
MINI = '--config=experiments/r1_zero.py:mini'


def _main(*args):
  return subprocess.run(
      [sys.executable, '-m', 'r1jax.main', *args], cwd=ROOT, text=True,
      capture_output=True, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})


@pytest.mark.parametrize('args, message', [
    (['--config.rl.grop=3'],
     'config.rl.grop: no such field; did you mean config.rl.group?'),
    (['--config.rl.group=1'], 'config.rl.group: expected at least 2'),
    (['--confg.rl.group=1'], "Unknown command line flag 'confg.rl.group'"),
    (['--config.stage=rk'],
     "config.stage: expected 'rl', which this experiment has the fields of"),
    (['--config.stage=lm'], "config.stage: expected 'rl'"),
    (['stray'], "unexpected argument 'stray'"),
])
def test_a_wrong_command_is_one_line_and_status_2(args, message, tmp_path):
  done = _main(MINI, f'--workdir={tmp_path}/run', *args)
  assert done.returncode == 2
  lines = done.stderr.splitlines()
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith(f'error: {message}')
  assert not (tmp_path / 'run').exists()


def test_help_without_an_experiment_says_what_there_is():
  done = _main('--help')
  assert done.returncode == 0
  assert '--config=experiments/r1_zero.py:mini \\\n' in done.stdout
  assert '  r1_zero.py ' in done.stdout and '  common.py' not in done.stdout


def test_help_with_an_experiment_prints_its_fields():
  done = _main(MINI, '--config.rl.group=4', '--help')
  assert done.returncode == 0, done.stderr
  assert max(map(len, done.stdout.splitlines())) <= 100
  sections = dict(text.split('\n', 1) for text in re.findall(
      r'^(config[\w.]*\n(?:  .*\n)+)', done.stdout, re.MULTILINE))
  assert re.search(r'^  group +4 +>= 1 +responses per prompt, G$',
                   sections['config.rl'], re.MULTILINE)
  assert re.search(r'^  dual_clip +unset +> 1 ', sections['config.rl'],
                   re.MULTILINE)
  assert re.search(r'^  advantage +grpo +grpo \| rloo \| gae: ',
                   sections['config.rl'], re.MULTILINE)
  config = r1_zero.get_config('mini')
  for field in config_lib.flatten(config):
    section, _, name = f'config.{field}'.rpartition('.')
    assert re.search(rf'^  {name} ', sections[section], re.MULTILINE), field


def test_help_with_a_pipeline_prints_its_stages_or_one_of_them():
  done = _main('--config=experiments/rlhf.py:mini', '--help')
  assert done.returncode == 0, done.stderr
  assert re.search(r'^  dry_run +False ', done.stdout, re.MULTILINE)
  assert re.search(r'^  dpo_measured +rl$', done.stdout, re.MULTILINE)
  how = '--config=experiments/rlhf.py:mini --config.only=NAME --help'
  assert how in done.stdout and 'config.stages.' not in done.stdout
  done = _main(*how.replace('NAME', 'dpo').split())
  assert done.returncode == 0, done.stderr
  assert re.search(r'^config.stages.dpo.preference\n(  .*\n)*  loss +dpo ',
                   done.stdout, re.MULTILINE)


@pytest.mark.parametrize('args, message', [
    ([], '--config: expected an experiment, such as --config=experiments/r1_'),
    ([MINI, '--rl.group=8'],
     "Unknown command line flag 'rl.group'; did you mean --config.rl.group?"),
    ([MINI, '--lr=1'],
     "Unknown command line flag 'lr'; did you mean --config.optim.lr?"),
    ([MINI, '--wrkdir=x'],
     "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
    ([MINI, '--help', '--config.rl.grop=3'], 'config.rl.grop: no such field'),
    (['--config=experiments/rlhf.py:mini', '--config.only=dop', '--help'],
     'config.only: expected one of '),
])
def test_what_begins_wrong_is_told_how_to_begin(args, message):
  done = _main(*args)
  assert done.returncode == 2 and not done.stdout
  [line] = done.stderr.splitlines()
  assert line.startswith(f'error: {message}')


PROGRAM = """
import sys
sys.path[:0] = ['.']
from absl import app
from r1jax import interrupts, main, stages, terminal
interrupts.install()
terminal.secure()
stages.KINDS['rl'] = 'toy_stage'
app.run(main.main, flags_parser=main.parse)
"""
STAGE = """
import sys
sys.path[:0] = ['tests/training']
import test_loop
def build(config, mesh, workdir):
  assert mesh.shape['fsdp'] == 8 and config.is_locked
  return test_loop._stage(steps=config.steps)
"""


def test_a_run_from_the_command_line_to_the_summary(tmp_path):
  (tmp_path / 'toy_stage.py').write_text(STAGE)
  command = [sys.executable, '-c', PROGRAM, MINI, f'--workdir={tmp_path}/run',
             '--config.steps=3', '--config.optim.lr', '1e-3',
             '--config.log.tensorboard=False']
  done = subprocess.run(
      command, cwd=ROOT, text=True, capture_output=True, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)})
  assert done.returncode == 0, done.stderr
  summary = json.loads((tmp_path / 'run/summary.json').read_text())
  assert (summary['stage'], summary['steps']) == ('rl', 3)
  assert done.stdout.splitlines()[-1] == (
      f'checkpoint: {tmp_path}/run/checkpoints/3')
  record = json.loads((tmp_path / 'run/config.json').read_text())
  assert record['optim']['lr'] == 1e-3 and record['steps'] == 3


def _toy(tmp_path, code, *args, redirect='RUN', **environment):
  """A run of the toy stage, whose functions `code` may define and name."""
  (tmp_path / 'toy_stage.py').write_text(STAGE.replace(
      'steps=config.steps', 'steps=config.steps, ' + code.partition('\n')[0])
      + code.partition('\n')[2])
  command = shlex.join([
      sys.executable, '-c', PROGRAM, MINI, f'--workdir={tmp_path}/run',
      '--config.steps=3', '--config.log.tensorboard=False', *args])
  return subprocess.run(
      ['bash', '-c', redirect.replace('RUN', f'exec {command}')], cwd=ROOT,
      text=True, capture_output=True, check=False, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)} | environment)


def test_a_run_that_is_stopped_has_a_status_of_its_own(tmp_path):
  code = """on_step=stop
import os, signal
def stop(index):
  if index == 1:
    os.kill(os.getpid(), signal.SIGTERM)
"""
  done = [_toy(tmp_path, code) for _ in range(2)]
  assert [one.returncode for one in done] == [75, 0], done[0].stderr
  assert 'stopped after step 2 of 3' in done[0].stdout


FAULTS = {
    'memory': ("""on_step=grow
import jax.numpy as jnp
def grow(index):
  jnp.zeros((1 << 46,), jnp.uint8).block_until_ready()
""", 'out of memory: .*what helps: a smaller config.rl.micro_batch, a smaller '
     'config.rl.sample_chunk, .*config.eval.batch'),
    'file': ("""on_step=lose
def lose(index):
  open('/nowhere/at/all')
""", '/nowhere/at/all: No such file or directory; look at this '
             r'path, then start the same command again$'),
    'machine': ("""on_step=fail
from r1jax import errors
def fail(index):
  raise errors.RunError('this machine is on fire')
""", 'this machine is on fire$'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_fault_of_the_machine_is_one_line_and_status_1(tmp_path, name):
  code, said = FAULTS[name]
  done = _toy(tmp_path, code)
  *_, line = done.stderr.splitlines()
  assert done.returncode == 1 and re.match(f'error: {said}', line), done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'run/lock').exists()


@pytest.mark.parametrize('redirect', [
    '(RUN) 2>&1 | head -1; exit ${PIPESTATUS[0]}', 'RUN >/dev/full 2>&1',
    'RUN >&- 2>&-'])
def test_a_run_ends_well_wherever_its_output_goes(tmp_path, redirect):
  """Its closing words have an arrow, of an encoding that has none."""
  code = """finish=lambda summary: '70 → 90 %' * 9999, progress={'optim/lr': 'r'}
"""
  done = _toy(tmp_path, code, redirect=redirect, PYTHONIOENCODING='ascii')
  assert done.returncode == 0, done.stderr
  summary = json.loads((tmp_path / 'run/summary.json').read_text())
  assert summary['steps'] == 3 and (tmp_path / 'run/checkpoints/3').exists()


def test_a_run_looks_at_the_machine_and_at_what_its_config_names(
    tmp_path, monkeypatch):
  calls, config = [], r1_zero.get_config('mini')
  (tmp_path / 'a.jsonl').write_text('{}')
  config.data.task = f'jsonl:{tmp_path}/a.jsonl'
  for module, name in (
      (run.backend, 'check_environment'), (run.distributed, 'initialize'),
      (run.backend, 'check_devices'), (run.stages, 'check'),
      (run.stages, 'build'), (run.loop, 'train'), (run.memory, 'keep_freed')):
    monkeypatch.setattr(module, name, lambda *args, called=name, **_: (
        calls.append((called, args))))
  run.run(config, str(tmp_path))
  assert [name for name, _ in calls] == [
      'check_environment', 'initialize', 'check_devices', 'keep_freed', 'check',
      'build', 'train']
  *_, inputs = calls[-1][1]
  assert inputs[f'{tmp_path}/a.jsonl'].keys() == {f'{tmp_path}/a.jsonl'}


@pytest.fixture(name='gin_config')
def _gin_config():
  gin = pytest.importorskip('gin')
  yield gin
  gin.clear_config()


def test_gin_bindings_reach_seqio_and_the_record(gin_config, tmp_path):
  file = tmp_path / 'a.gin'
  file.write_text('seqio.TfdsDataSource.caching_permitted = False\n')
  record = run.bind_gin([str(file)], [
      "seqio.TfdsDataSource.decoders = {'number': 3}"])
  assert 'caching_permitted = False' in record and "'number': 3" in record
  assert gin_config.query_parameter(
      'seqio.TfdsDataSource.caching_permitted') is False


@pytest.mark.parametrize('files, bindings, word', [
    ([], ['seqio.no_such_thing.x = 1'], 'no_such_thing'),
    ([], ['not a binding'], 'parse'),
    (['missing.gin'], [], 'missing.gin'),
])
def test_a_wrong_gin_binding_is_refused(gin_config, files, bindings, word):
  del gin_config
  with pytest.raises(errors.ConfigError, match=word) as caught:
    run.bind_gin(files, bindings)
  assert str(caught.value).startswith('--gin_file, --gin_bindings: ')


def test_settings_come_from_the_config():
  config = r1_zero.get_config('mini')
  config.checkpoint.update(every_steps=7, keep=3)
  settings = stages.loop_settings(config)
  assert (settings.checkpoint_every_steps, settings.keep) == (7, 3)
  assert settings.max_skipped_steps == config.optim.max_skipped_steps
