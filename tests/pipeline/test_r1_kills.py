"""R1's whole pipeline, killed at ten random moments, ends the same."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = 10


def _start(workdir, compiled):
  with open(workdir.with_suffix('.log'), 'ab') as log:
    return subprocess.Popen(
        [sys.executable, '-m', 'r1jax.main', '--config=tests/support/small_r1.py',
         f'--workdir={workdir}'], cwd=ROOT, stdout=log, stderr=log,
        env=os.environ | {
            'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(compiled),
            'XLA_FLAGS': '--xla_backend_optimization_level=0 '
                         '--xla_llvm_disable_expensive_passes=true'})


def _finish(workdir, compiled):
  code = _start(workdir, compiled).wait()
  assert code == 0, workdir.with_suffix('.log').read_text('utf-8')[-3000:]


def _manifests(workdir):
  found = {path.parent.name: json.loads(path.read_text('utf-8'))
           for path in workdir.glob('*/manifest.json')}
  for manifest in found.values():
    del manifest['seconds'], manifest['saved']  # Orbax draws names
  return found


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_the_same(tmp_path):
  """In the same directory: what is sampled notes the model that it is from."""
  workdir, compiled = tmp_path / 'r1', tmp_path / 'compiled'
  _finish(workdir, compiled)
  whole = _manifests(workdir)
  workdir.rename(tmp_path / 'whole')
  assert len(whole) > 40
  moments, seen = random.Random(0), []
  # Stages that have ended, and some seconds; the last ones are left to it.
  for stages in sorted(moments.sample(range(len(whole) - 8), KILLS)):
    process = _start(workdir, compiled)
    while len(_manifests(workdir)) < stages and process.poll() is None:
      time.sleep(.1)
    time.sleep(moments.uniform(0, 15))
    assert process.poll() is None, workdir.with_suffix('.log').read_text(
        'utf-8')[-3000:]
    process.kill()
    process.wait()
    seen.append(len(_manifests(workdir)))
  print(f'\nkilled after {seen} stages')
  _finish(workdir, compiled)
  assert whole == _manifests(workdir)
