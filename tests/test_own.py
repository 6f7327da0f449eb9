"""The example in tests/own, run from another folder, with faults added."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

_OWN = pathlib.Path(__file__).resolve().parent / 'own'
_BAD = '''
import asyncio, time

def raises(response, record):
  if record['step'] is None:
    return 1
  raise LookupError('nobody knows this class: %d' % record['number'])

def nothing(response, record):
  return float('nan')

def stuck(response, record):
  if record['step'] == 0 and record['number'] % 3 == 0:
    time.sleep(60)
  return 1

async def late(response, record):
  await asyncio.sleep(60 if record['step'] else 0)
  return 2
'''
_NAMES = ('raises', 'nothing', 'stuck', 'late')


def _lines(path):
  return [json.loads(line) for line in path.read_text('utf-8').splitlines()]


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('elsewhere')
  (folder / 'bad.py').write_text(_BAD)
  root = str(_OWN.parents[1])
  done = subprocess.run(
      [sys.executable, '-m', 'r1jax.main', '--workdir=run',
       f'--config={_OWN}/my_experiment.py',
       '--config.rewards.timeout_seconds=2.0', *(
           f'--config.rewards.functions.{name}=bad.py:{name}'
           for name in _NAMES), '--config.rewards.weights.late=.25'],
      cwd=folder, capture_output=True, text=True, check=False,
      env={**os.environ, 'PYTHONPATH': root, 'XLA_FLAGS': (
          '--xla_backend_optimization_level=0 '
          '--xla_llvm_disable_expensive_passes=true')})
  assert done.returncode == 0, done.stderr
  rows = _lines(folder / 'run' / 'rollouts.jsonl')
  return folder / 'run', rows, _lines(folder / 'run' / 'metrics.jsonl'), (
      done.stdout + done.stderr)


def test_functions_are_parts_of_the_reward_with_columns(run):
  workdir, rows, metrics, _ = run
  config = json.loads((workdir / 'config.json').read_text())
  assert config['rewards']['functions']['stuck'] == 'bad.py:stuck'
  assert len(rows) == 2 * 16
  for row in rows:
    assert row['prompt'].startswith('What is ') and row['task'] == 'sums'
    assert row['polite/level'] in (1, 2) and row['close/numbers'] >= 0
    assert row['brief'] == pytest.approx(-min(len(row['response']) / 500, 1.))
    assert row['reward'] == pytest.approx(
        row['accuracy'] + .1 * row['brief'] + .5 * row['close'] + row['polite']
        + row['raises'] + row['nothing'] + row['stuck'] + .25 * row['late'],
        abs=1e-5)
  steps = [m for m in metrics if 'reward/brief' in m]
  assert len(steps) == 2
  for number, step in enumerate(steps):
    here = rows[16 * number:16 * (number + 1)]
    for name in ('brief', 'close', 'polite/level', 'close/numbers'):
      assert step[f'reward/{name}'] == pytest.approx(
          sum(row[name] for row in here) / 16, abs=1e-5)
    assert 'reward/close/guess' not in step  # a text


def test_what_fails_scores_0_and_is_counted(run):
  _, rows, metrics, output = run
  first, second = (m for m in metrics if 'reward/brief' in m)
  for step in (first, second):
    assert step['verifier/raises_errors'] == 16
    assert step['verifier/nothing_errors'] == 16
    assert step['verifier/brief_errors'] == step['verifier/errors'] == 0
    assert step['reward/raises'] == step['reward/nothing'] == 0
    assert all(map(math.isfinite, step.values()))
  assert first['verifier/late_timeouts'] == 0 and first['reward/late'] == 2
  assert second['verifier/late_timeouts'] == 16 and second['reward/late'] == 0
  stuck = [row['stuck'] for row in rows[:16]]
  assert first['verifier/stuck_timeouts'] == stuck.count(0.)
  assert set(stuck) <= {0., 1.}
  assert all(row['stuck'] == 1 for row in rows[16:])
  for reason in ('raises: LookupError: nobody', 'nothing: expected a finite',
                 'late: no result in 2 s'):
    assert output.count(f'scored 0: {reason}') == 1
