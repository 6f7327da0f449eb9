"""A stage of each kind by one, two and four processes with four devices.

`launch/local.sh` starts them. What they sample is the same, letter by letter;
parameters differ by the rounding of sums in another order.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

import pod_faults

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLOSE = 1e-5

pytestmark = pytest.mark.slow


def _start(workdir, processes, variant, **fields):
  return subprocess.Popen(
      ['launch/local.sh', f'--processes={processes}',
       f'--config=tests/support/each_kind.py:{variant}', f'--workdir={workdir}',
       *(f'--config.{name}={value}' for name, value in fields.items())],
      cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      env=os.environ | {
          'PYTHON': sys.executable, 'DEVICES': '4',
          'JAX_ENABLE_COMPILATION_CACHE': 'true',
          'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'compiled'),
          'XLA_FLAGS':
          '--xla_backend_optimization_level=0 '
          '--xla_llvm_disable_expensive_passes=true'})


def _run(*args, **fields):
  local = _start(*args, **fields)
  out, _ = local.communicate()
  assert local.returncode == 0, out[-3000:]


def _params(workdir):
  """The parameters of the last checkpoint; {} of a stage that trains none."""
  steps = [int(path.name) for path in workdir.glob('checkpoints/[0-9]*')]
  saved = workdir / f'checkpoints/{max(steps, default=0)}/params'
  if not saved.exists():
    return {}
  with ocp.PyTreeCheckpointer() as reader:
    names = reader.metadata(saved).item_metadata.tree
    return reader.restore(saved, restore_args={
        name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})


def _samples(workdir):
  """What the stage has written but metrics, less the scores of models."""
  return {path.name: [
      {name: value for name, value in json.loads(line).items()
       if type(value) is not float} for line in path.open(encoding='utf-8')]
          for path in workdir.glob('*.jsonl') if path.name != 'metrics.jsonl'}


def _compare(one, other):
  """(samples, the largest difference of a parameter); samples are equal.

  The other run may have been evaluated at more steps.
  """
  samples, params, others = _samples(one), _params(one), _params(other)
  assert _samples(other) | samples == _samples(other)
  assert params.keys() == others.keys()
  return sum(map(len, samples.values())), max(
      (float(np.abs(value - others[name]).max())
       for name, value in params.items()), default=0.)


def test_every_kind_of_stage_is_the_same_by_one_two_and_four(tmp_path):
  """In the same directory: what is sampled notes the model that it is from."""
  for processes in (1, 2, 4):
    _run(tmp_path / 'run', processes, 'all')
    (tmp_path / 'run').rename(tmp_path / f'by{processes}')
  stages = sorted(path.parent.name
                  for path in tmp_path.glob('by1/*/manifest.json'))
  assert len(stages) == 9
  for stage in stages:
    (samples, by2), (_, by4) = (
        _compare(tmp_path / 'by1' / stage, tmp_path / name / stage)
        for name in ('by2', 'by4'))
    print(f'{stage:12} {samples:4} samples equal, parameters by two '
          f'{by2:.1e}, by four {by4:.1e}')
    assert max(by2, by4) < CLOSE


@pytest.mark.parametrize('variant', ['sft', 'zero'])
def test_a_checkpoint_of_four_resumes_on_one_and_two_and_back(
    tmp_path, variant):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  _run(whole, 1, variant, steps=4)
  for steps, processes in ((1, 4), (2, 1), (3, 2), (4, 4)):
    _run(parts, processes, variant, steps=steps)
  assert _compare(whole, parts)[1] < CLOSE


def test_two_score_while_they_sample_as_one_does_afterwards(tmp_path):
  long = {'rl.response_tokens': 150, 'rl.sample_chunk': 75}  # several pieces
  _run(tmp_path / 'after', 1, 'zero', steps=2, **long)
  _run(tmp_path / 'while', 2, 'zero', steps=2, **long,
       **{'rl.score_while_sampling': True})
  samples, most = _compare(tmp_path / 'after', tmp_path / 'while')
  assert samples and most < CLOSE


@pytest.fixture(name='whole', scope='module')
def _whole(tmp_path_factory):
  """A run by one process that nobody has disturbed."""
  whole = tmp_path_factory.mktemp('whole') / 'run'
  _run(whole, 1, 'zero', steps=8)
  return whole


@pytest.mark.parametrize('number, status, said', [
    (signal.SIGTERM, 75, 'stopped after step '),
    (signal.SIGKILL, 137, 'error: process 2 (pid ')])
def test_a_signal_to_one_ends_all_and_another_number_goes_on(
    whole, tmp_path, number, status, said):
  parts = tmp_path / 'parts'
  local = _start(parts, 4, 'zero', steps=8)
  out = []
  for line in local.stdout:
    out.append(line)
    if line.startswith('step 2/8'):
      os.kill(pod_faults.child(local.pid, 2), number)
  assert local.wait() == status, ''.join(out[-30:])
  assert sum('has ended with status 75' in line for line in out) == (
      3 + (status == 75))
  assert sum(line.startswith(said) for line in out) == 1
  _run(parts, 2, 'zero', steps=8)
  assert _compare(whole, parts)[1] < CLOSE
