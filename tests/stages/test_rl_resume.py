"""A run that was killed ends in bitwise the state of one that was not."""

import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import tiny_rl
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 4
CONFIG = dict(stage='rl', seed=0)
SETTINGS = loop.Settings(checkpoint_every_steps=1, keep=2)


def make_run() -> tiny_rl.Run:
  return tiny_rl.Run(
      objective=tiny_rl.OBJECTIVE._replace(mini_batches=2), epochs=2,
      ref_every_steps=2)


def train(run, workdir, on_step=lambda index: None, steps=STEPS):
  return loop.train(run.stage(steps, on_step), SETTINGS, str(workdir),
                  CONFIG | dict(steps=steps))


@pytest.fixture(name='run', scope='module')
def _run():
  return make_run()


@pytest.fixture(name='whole', scope='module')
def _whole(run, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  assert train(run, workdir)['steps'] == STEPS
  return workdir


def _final(run, workdir, steps):
  saves = checkpoint.Checkpointer(
      pathlib.Path(workdir) / 'checkpoints', keep=2)
  state, step = saves.restore_latest(run.abstract)
  saves.close()
  assert step == steps
  return jax.device_get(state)


def _assert_same(run, workdir, whole, steps=STEPS):
  jax.tree.map(np.testing.assert_array_equal, _final(run, workdir, steps),
               _final(run, whole, steps))
  rollouts = [files.read_rows(pathlib.Path(d) / 'rollouts.jsonl')
              for d in (workdir, whole)]
  assert rollouts[0] == rollouts[1]
  assert len(rollouts[0]) == steps * tiny_rl.PROMPTS * tiny_rl.GROUP


class Crash(Exception):
  """Stands for a kill: nothing after it runs."""


@pytest.mark.parametrize('at', [1, 2, 3])
def test_stopped_after_any_step_and_restored(run, whole, tmp_path, at):
  def crash(index):
    if index == at:
      raise Crash
  with pytest.raises(Crash):
    train(run, tmp_path, crash)
  begins = []
  train(run, tmp_path, begins.append)
  assert begins == list(range(at, STEPS))
  _assert_same(run, tmp_path, whole)


PROGRAM = """
import sys, time
import test_rl_resume as test
test.train(test.make_run(), sys.argv[1], lambda index: time.sleep(0.3),
           test.MANY)
"""
MANY = 12  # more than five lives of half a second have time for


def _start(workdir):
  paths = [str(ROOT / part) for part in ('', 'tests/support', 'tests/stages')]
  return subprocess.Popen(
      [sys.executable, '-c', PROGRAM, str(workdir)], cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu',
                        'PYTHONPATH': os.pathsep.join(paths)},
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _signs(workdir):
  """What a run has left in its workdir up to now."""
  return sorted((str(path), path.stat().st_size)
                for path in workdir.glob('*.json*'))


@pytest.mark.slow
def test_kill_9_at_random_moments(run, tmp_path):
  """Five kills, each within half a second of a sign of life."""
  moments = random.Random(0)
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  killed.mkdir()
  for _ in range(5):
    process = _start(killed)
    signs = _signs(killed)
    while process.poll() is None and _signs(killed) == signs:
      time.sleep(0.01)
    time.sleep(moments.uniform(0., 0.5))
    assert process.poll() is None
    process.kill()
    process.wait()
  assert _start(killed).wait() == 0
  train(run, whole, steps=MANY)
  _assert_same(run, killed, whole, MANY)
