"""The check of an accelerator: its figures by hand, and what it makes of them.
"""

import argparse
import json
import math
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from r1jax.models import architecture
from r1jax.plan import chips
from tests import accelerator
from tests import on_accelerator

CHIP = chips.CHIPS['h100']._replace(bandwidth=1e4, flops=1e3)


def _args(*words):
  parser = argparse.ArgumentParser()
  accelerator.add_sizes(parser)
  return parser.parse_args(words)


def test_the_bytes_of_a_decoding_step():
  config = architecture.Config(
      vocab=16, width=8, layers=3, heads=4, kv_heads=2, head_size=4, mlp=8,
      max_len=16, dtype='bfloat16')
  # A token's keys and values are 2 * 3 * 2 * 4 numbers, 96 bytes. 2 prompts of
  # 5 tokens, and 6 responses with 1, 2, 3 and 4: 10 and 15 tokens on average.
  read = on_accelerator.decode_bytes(config, 1000, 2, 6, 5, 4)
  assert read == 2 * 1000 + 96 * (10 + 15)
  figures = on_accelerator.decode_figures(read, 6, 4, 2., CHIP)
  assert figures['seconds_per_step'] == .5
  assert figures['tokens_per_second'] == 12
  assert figures['bytes_per_second'] == 8800
  assert figures['share'] == .88


def test_a_chip_that_is_not_known_has_no_share():
  assert on_accelerator.decode_figures(1., 1, 1, 1., None)['share'] is None
  assert on_accelerator.flops_figures(100., 2., None)['share'] is None
  assert on_accelerator.flops_figures(100., 2., CHIP)['share'] == .05


def test_a_step_is_measured(capsys):
  args = _args('--small', '--repeats=1')
  device, chip = on_accelerator.find_device(args.small)
  config = on_accelerator.workload(args, None)
  step = on_accelerator.Step(config, device, chip, args.repeats)
  rollout = step.decode('decode', step.placed.sampling, config.rl.group)
  step.update(step.score(rollout))
  found = {}
  for line in capsys.readouterr().out.splitlines():
    found |= json.loads(line)
  assert found['device']['kind'] == 'cpu' and found['device']['chip'] is None
  # Of each of two layers: q and o of 32 * 32, k and v of 32 * 16, an MLP of
  # 3 * 32 * 48, two norms of 32; the last norm; the embedding of 64 * 32.
  weights = 2 * (4 * 32 * 32 - 2 * 32 * 16 + 3 * 32 * 48 + 64) + 32 + 64 * 32
  assert step.parameters == step.weights == weights
  assert found['decode']['rows'] == 4
  # 2 prompts of 8 tokens, 4 responses with 8.5 of 16; 2 * 2 * 16 numbers each.
  assert found['decode']['bytes_per_step'] == 2 * weights + 128 * (16 + 34)
  # Pairs of query and key: 36 in a prompt, 8 * 16 + 136 in a response; in each
  # layer 4 FLOPs for each of 32 numbers.
  once = 2 * weights * (16 + 64) + 2 * 128 * (2 * 36 + 4 * (128 + 136))
  assert found['scoring']['model_flops'] == 2 * once
  assert found['update']['model_flops'] == 3 * once
  assert found['update']['skipped_updates'] == 0
  for one in map(found.get, ('decode', 'scoring', 'update')):
    assert one['compile_seconds'] > 0 and one['share'] is None


def test_sampler_and_scorer():
  rollout = argparse.Namespace(
      logp=np.float32([[-1., -2., -3.]]), mask=np.array([[True, True, False]]))
  found = on_accelerator.difference(np.float32([[-1.5, -1.75, 9.]]), rollout)
  assert found == pytest.approx({
      'tokens': 2, 'logp_difference_max': .5, 'logp_difference': .375,
      'perplexity_ratio': math.exp(.125),
      # (r - 1) - log r of r = scorer / sampler
      'kl': (math.exp(-.5) - 1 + .5 + math.exp(.25) - 1 - .25) / 2}, rel=1e-5)


def test_a_kernel_that_is_wrong_is_noticed(monkeypatch):
  exact = {'x': np.float32([3., 4.])}
  rows = {('xla', 'float32'): 0., ('xla', 'bfloat16'): .1}
  monkeypatch.setattr(
      on_accelerator, 'whole_rows', lambda case, kernel, dtype, small: (
          exact['x'], {'x': exact['x'] + np.float32(
              [rows.get((kernel, dtype), error), 0.])}))
  error = .19
  good = on_accelerator.kernel_figures('packed rows', 'splash', True)
  assert good['ok'] and good['gradient of splash'] == pytest.approx(.19 / 5)
  error = .21
  assert not on_accelerator.kernel_figures('packed rows', 'splash', True)['ok']


def test_what_the_suite_says():
  found = accelerator.suite_figures('''\
tests/kernels/test_a.py::test_one PASSED                       [ 25%]
tests/kernels/test_a.py::test_two[a b] FAILED                  [ 50%]
tests/kernels/test_a.py::test_three SKIPPED (no such data)     [ 75%]
''')
  assert found == {
      'ok': False, 'passed': 1, 'failed': ['tests/kernels/test_a.py::test_two'
                                           '[a b]'],
      'skipped': {'tests/kernels/test_a.py::test_three': 'no such data'}}
  assert not accelerator.suite_figures('')['ok']


def test_targets():
  model = {'decode': {'share': .5}, 'decode, one': {'share': .61},
           'update': {'share': .49}, 'part_seconds': 1.}
  met = accelerator.verdicts({
      'model': model, 'kernels': {'packed': {'ok': False}, 'part_seconds': 1.,
                                  'problem': 'ended with status 1'}})
  assert met == {'model ended': True, 'kernels ended': False, 'packed': False,
                 'decode, target': True, 'update, target': False}


def test_a_part_without_time_keeps_what_it_had(monkeypatch):
  program = 'import time; print(\'{"a": 1}\', flush=True); time.sleep(60)'
  monkeypatch.setattr(accelerator, 'command', lambda part, args: (
      [sys.executable, '-S', '-c', program], {}))
  started = time.monotonic()
  found = accelerator.run('kernels', None, 2.)
  assert time.monotonic() - started < 30
  assert found['a'] == 1
  assert found['problem'] == 'not ended in the 2 s that were left'


def test_a_cpu_is_no_accelerator():
  with pytest.raises(SystemExit, match='no accelerator'):
    on_accelerator.find_device(small=False)


@pytest.mark.slow
def test_all_of_it_in_small():
  done = subprocess.run(
      [sys.executable, '-m', 'tests.accelerator', '--small', '--seconds=1200'],
      cwd=accelerator.ROOT, capture_output=True, text=True, check=False)
  found = json.loads(done.stdout)
  assert not done.returncode and all(found['met'].values()), done.stderr
  assert found['parts'].keys() == set(accelerator.PARTS)
  assert found['device']['jax'] == jax.__version__
  assert found['skipped']['smollm2: all'] == 'too large for --small'
  assert 'shares of peaks' in found['skipped']
