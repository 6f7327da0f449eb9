"""Workdirs written by an earlier version: resumed, and started from.

`support/old_workdirs.tar.gz` was written at commit 474b245, before sections
that a stage does not read were dropped from its config: `lm` by
pretrain.py:mini and `rl` by r1_zero.py:mini from it, a model of width 16 after
two steps each.
"""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from r1jax.training import files

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = ('width=16', 'layers=1', 'heads=2', 'kv_heads=1', 'head_size=8',
         'mlp=16')
FLAGS = [f'--config.model.{size}' for size in SIZES] + [
    '--config.log.tensorboard=False', '--config.checkpoint.every_steps=1',
    '--config.checkpoint.keep=1']
LM = ['--config=experiments/pretrain.py:mini', '--config.data.options.size=256',
      '--config.lm.batch=4', '--config.optim.schedule=constant',
      '--config.optim.warmup_steps=0']
RL = ['--config=experiments/r1_zero.py:mini', '--config.rl.prompts=4',
      '--config.rl.group=4', '--config.rl.micro_batch=8',
      '--config.rl.response_tokens=16', '--config.rl.sample_chunk=16',
      '--config.data.num_prompts=16', '--config.eval.problems=4',
      '--config.eval.batch=4', '--config.optim.warmup_steps=0']


@pytest.fixture(name='old')
def _old(tmp_path):
  with tarfile.open(ROOT / 'tests/support/old_workdirs.tar.gz') as archive:
    archive.extractall(tmp_path, filter='data')
  config = tmp_path / 'rl' / 'config.json'
  config.write_text(config.read_text().replace('/WORKDIRS', str(tmp_path)))
  return tmp_path


def _run(*flags):
  done = subprocess.run(
      [sys.executable, '-m', 'r1jax.main', *flags, *FLAGS], cwd=ROOT, text=True,
      capture_output=True, check=False, env=os.environ | {
          'JAX_PLATFORMS': 'cpu',
          'XLA_FLAGS': '--xla_backend_optimization_level=0'})
  assert done.returncode == 0, done.stderr[-2000:]


def test_an_old_pretraining_resumes(old):
  _run(*LM, f'--workdir={old}/lm', '--config.steps=3')
  summary = json.loads((old / 'lm/summary.json').read_text())
  assert summary['steps'] == 3
  assert [row['step'] for row in files.read_rows(old / 'lm/metrics.jsonl')] == [
      0, 1, 2]


@pytest.mark.slow
def test_a_run_begins_from_an_old_one(old):
  _run(*RL, f'--workdir={old}/new', f'--config.init_from={old}/lm',
       '--config.steps=1')
  assert (old / 'new/checkpoints/1').is_dir()


def test_an_old_rl_run_resumes(old):
  before = files.read_rows(old / 'rl/rollouts.jsonl')
  _run(*RL, f'--workdir={old}/rl', f'--config.init_from={old}/lm',
       '--config.steps=3')
  rows = files.read_rows(old / 'rl/rollouts.jsonl')
  assert rows[:len(before)] == before and rows[-1]['step'] == 2
  metrics = files.read_rows(old / 'rl/metrics.jsonl')
  assert [row['step'] for row in metrics] == [0, 1, 2]
  # What is logged has kept its names; timing/update_seconds is the logger's.
  assert metrics[1].keys() - {'timing/update_seconds'} <= metrics[2].keys()
