"""python -m r1jax.evaluate: what it makes of its flags, and a whole run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from r1jax import errors
from r1jax import evaluate
from r1jax.training import files

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _arguments(*flags):
  return evaluate.arguments(['evaluate', *flags])[1:]


def test_flags_are_fields_of_every_test(tmp_path):
  made = _arguments(
      '--model=mini', '--suite=gsm8k,aime', '--workdir=W', '--samples=3',
      '--temperature=0.5', '--limit=7', f'--data={tmp_path}/',
      '--config.eval.batch=2')
  assert made[:3] == ['--config=experiments/evaluate.py:gsm8k,aime',
                      '--workdir=W', '--config.init_from=mini']
  assert made[-1] == '--config.eval.batch=2'
  of_gsm8k = [flag.removeprefix('--config.tests.gsm8k.')
              for flag in made if flag.startswith('--config.tests.gsm8k.')]
  assert of_gsm8k == [
      'samples=3', 'temperature=0.5', 'problems=7', 'data.template=mini',
      f'data.task=jsonl:{tmp_path}/gsm8k/test.jsonl']
  assert '--config.tests.aime.samples=3' in made


def test_greedy_is_one_sample_whatever_the_suite_has(tmp_path):
  flags = ('--model=mini', '--suite=aime', '--workdir=W', '--temperature=0',
           f'--data={tmp_path}')
  assert '--config.tests.aime.samples=1' in _arguments(*flags)
  with pytest.raises(errors.ConfigError, match='--samples: expected 1 with'):
    _arguments(*flags, '--samples=4')


@pytest.mark.parametrize('model, suite, expected', [
    ('/runs/zero/', 'gsm8k', '/runs/zero-gsm8k'),
    ('m/model.gguf', 'aime,amc', 'm/model-aime-amc'),
    ('smollm2', 'reasoning_gym:chain_sum', 'smollm2-reasoning_gym-chain_sum')])
def test_the_usual_workdir_is_beside_the_model(model, suite, expected):
  assert evaluate.default_workdir(model, suite) == expected


@pytest.mark.parametrize('flags, words', [
    (['--model=nowhere/model', '--suite=mini'], '--model'),
    (['--model=mini', '--suite=mini', '--limit=0'], '--limit: .*at least 1'),
    (['--model=mini', '--suite=mini', '--config=experiments/r1_zero.py:mini'],
     '--config: expected none'),
    (['--model=mini', '--suite=gsm8kk'], '--suite: .*of gsm8k, aime'),
    (['--model=mini', '--suite=gsm8k,'], "--suite: .*received ''"),
])
def test_mistakes_are_one_line(flags, words, tmp_path):
  with pytest.raises(errors.ConfigError, match=words):
    _arguments(*flags, f'--workdir={tmp_path}')


@pytest.mark.parametrize('data', [[], ['--data=nowhere']], ids=str)
def test_a_missing_folder_is_named_before_a_model_is_read(
    data, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  flags = ('--model=mini', '--suite=mini_general,gsm8k,aime', '--workdir=W')
  with pytest.raises(errors.ConfigError,
                     match='--data: .* the files of aime, gsm8k .*received'):
    _arguments(*flags, *data)
  named = [f'--config.tests.{name}.data.task=jsonl:mine.jsonl'
           for name in ('gsm8k', 'aime')]
  assert _arguments(*flags, *data, *named)[-2:] == named


def test_a_model_on_a_suite_from_the_command_line(tmp_path):
  done = subprocess.run(
      [sys.executable, '-m', 'r1jax.evaluate', '--model=mini', '--suite=mini',
       f'--workdir={tmp_path}/run', '--limit=8', '--samples=2',
       '--response_tokens=24', '--config.rl.sample_chunk=24',
       '--config.mesh.fsdp=1'],
      cwd=ROOT, text=True, capture_output=True, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''})
  assert done.returncode == 0, done.stderr
  table = done.stdout.splitlines()[-3:]
  assert table[0].startswith('mini_general') and '8 × 2' in table[0]
  assert table[-1] == f'report: {tmp_path}/run/report.html'
  after = json.loads((tmp_path / 'run/summary.json').read_text())['after']
  rows = files.read_rows(tmp_path / 'run/rollouts.jsonl')
  assert len(rows) == 2 * 8 * 2
  right = [row['accuracy'] for row in rows if row['test'] == 'mini_general']
  assert after['mini_general']['pass@1'] == sum(right) / 16 > .5
  page = (tmp_path / 'run/report.html').read_text('utf-8')
  assert 'mini_reasoning' in page and 'cons@2' in page
