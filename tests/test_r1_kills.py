"""R1's whole pipeline, killed at ten random moments, ends the same."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
KILLS = 10


def _start(workdir, compiled):
  return subprocess.Popen(
      [sys.executable, '-m', 'r1jax.main', '--config=tests/small_r1.py',
       f'--workdir={workdir}'], cwd=ROOT, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL, env=os.environ | {
          'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(compiled),
          'XLA_FLAGS': '--xla_backend_optimization_level=0 '
                       '--xla_llvm_disable_expensive_passes=true'})


def _manifests(workdir):
  found = {path.parent.name: json.loads(path.read_text('utf-8'))
           for path in workdir.glob('*/manifest.json')}
  for manifest in found.values():
    del manifest['seconds']
  return found


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_the_same(tmp_path):
  """In the same directory: what is sampled notes the model that it is from."""
  workdir, compiled = tmp_path / 'r1', tmp_path / 'compiled'
  begun = time.monotonic()
  assert _start(workdir, compiled).wait() == 0
  seconds = time.monotonic() - begun
  workdir.rename(tmp_path / 'whole')
  moments, kills, stages = random.Random(0), 0, []
  while kills < KILLS:
    process = _start(workdir, compiled)
    # Nine tenths of a run in all, so that it is not done before the last.
    time.sleep(moments.uniform(.03, .15) * seconds)
    assert process.poll() is None, f'ended, or failed, after {kills} kills'
    process.kill()
    process.wait()
    kills += 1
    stages.append(len(list(workdir.glob('*/manifest.json'))))
  print(f'\nkilled after {stages} stages')
  assert _start(workdir, compiled).wait() == 0
  whole = _manifests(tmp_path / 'whole')
  assert len(whole) > 35 and whole == _manifests(workdir)
