"""The benchmark: what its line says, against counts made by hand."""

import collections
import contextlib
import io
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments import bench as experiment
from r1jax import config as config_lib
from r1jax import errors
from r1jax.parallel import sharding
from r1jax.stages import bench
from r1jax.stages import train_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
# 2 prompts of 3 tokens, 4 responses of 5 tokens each: 40 new tokens, and
# 2 * (3 + 4 * 5) = 46 with each prompt counted once.
NEW, SEEN = 40, 46
# Embedding 32 * 16; in the one layer q and o of 16 * 16 each, k and v of 16 * 8
# each, an MLP of 3 * 16 * 24 and two norms of 16; the last norm of 16.
PARAMETERS = 512 + (512 + 256 + 1152 + 32) + 16


SMALL = dict(
    model=dict(vocab=32, width=16, layers=1, heads=2, kv_heads=1, head_size=8,
               mlp=24, max_len=8),
    rl=dict(prompts=2, group=4, prompt_tokens=3, response_tokens=5,
            mini_batches=2, micro_batch=4, sample_chunk=2, logp_chunk=2),
    bench=dict(steps=3, warmup=1, matmul=32))


def _config(**rl):
  config = experiment.get_config('tiny').unlock()
  for section, fields in SMALL.items():
    config[section].update(fields)
  config.rl.update(rl)
  return config


def _run(config, devices=1):
  """The line that is printed, and nothing else may be."""
  config_lib.check(config, devices)
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
  with contextlib.redirect_stdout(io.StringIO()) as out:
    bench.run_bench(config, mesh)
  [line] = out.getvalue().splitlines()
  return json.loads(line)


@pytest.fixture(name='line', scope='module')
def _line():
  return _run(_config())


def test_the_line_has_every_field(line):
  assert line['jax'] == jax.__version__
  assert line['devices'] == {'kind': 'cpu', 'count': 1}
  assert line['peak_memory_mib'] > 50  # of a process that has imported jax
  assert line['matmul_gflop_per_second'] > 0
  assert line['workload'].items() >= dict(
      name='bench.py:tiny', parameters=PARAMETERS, dtype='float32', prompts=2,
      group=4, prompt_tokens=3, response_tokens=5, micro_batch=4, logp_chunk=2,
      sample_chunk=2, beta=0.001, kl='k3').items()


def test_seconds_are_medians_of_the_steps_after_the_warmup(line):
  assert len(line['step']['all']) == 2
  assert line['step']['seconds'] == pytest.approx(
      sum(line['step']['all']) / 2, rel=1e-4)
  for part in bench.PARTS:
    assert 0 < line[part]['seconds'] < line['step']['seconds']
    assert line[part]['cpu_seconds'] > 0


def test_a_step_compiles_nothing_after_the_first(line):
  for part in ('rollout', 'reference', 'update'):
    assert line[part]['seconds'] == pytest.approx(
        line[part]['dispatch'] + line[part]['wait'], rel=1e-3)
    assert not {'trace', 'compile', 'host'} & line[part].keys()
  for part in ('reward', 'metrics'):
    assert line[part]['host'] == line[part]['seconds']
  assert not {'trace', 'compile'} & line['step'].keys()


def test_tokens_per_second_count_response_tokens(line):
  for part in ('rollout', 'update', 'step'):
    assert line[part]['tokens_per_second'] == pytest.approx(
        NEW / line[part]['seconds'], rel=1e-4)
  assert line['last_step']['response_length/min'] == 5
  assert line['last_step']['response_length/max'] == 5


def test_flops_are_those_counted_by_hand(line):
  for part, times in dict(rollout=2, reference=2, update=6, step=10).items():
    gflop = times * PARAMETERS * SEEN / 1e9
    figures = line[part]
    assert figures['gflop'] == pytest.approx(gflop, rel=1e-4)
    assert figures['gflop_per_second'] == pytest.approx(
        gflop / figures['seconds'], rel=1e-4)
    assert figures['of_matmul'] == pytest.approx(
        figures['gflop_per_second'] / line['matmul_gflop_per_second'],
        rel=1e-4)


def test_the_first_update_waits_for_compilation(line):
  first = line['first_update']
  parts = first['parts']
  assert list(parts) == ['import', 'weights', *bench.PARTS]
  kinds = ('trace', 'compile', 'dispatch', 'wait', 'host')
  assert first['seconds'] == pytest.approx(
      sum(first[kind] for kind in kinds), rel=1e-3)
  for kind in ('seconds', 'cpu_seconds', *kinds):
    assert first[kind] == pytest.approx(
        sum(part.get(kind, 0) for part in parts.values()), rel=1e-3)
  for part in ('weights', 'rollout', 'reference', 'update'):
    assert parts[part]['trace'] > 0 and parts[part]['compile'] > 0
  assert first['compiled'] >= 4 and first['kept'] == 0  # conftest.py keeps none


@pytest.mark.slow
def test_the_command_needs_no_workdir_and_finds_kept_programs(tmp_path):
  """Two processes; the second reads what the first has compiled."""
  small = [f'--config.{section}.{name}={value}'
           for section, fields in SMALL.items()
           for name, value in fields.items()]
  firsts = []
  for _ in range(2):
    done = subprocess.run(
        [sys.executable, '-m', 'r1jax.main',
         '--config=experiments/bench.py:tiny', *small],
        stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT,
        env=os.environ | {
            'R1JAX_CACHE': str(tmp_path), 'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': '',  # one device
            'JAX_ENABLE_COMPILATION_CACHE': 'true',
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'})
    firsts.append(json.loads(done.stdout)['first_update'])
  assert firsts[0]['compiled'] == firsts[1]['kept'] >= 4
  assert firsts[0]['kept'] == firsts[1]['compiled'] == 0


def test_a_step_learns(line):
  metrics = line['last_step']
  assert metrics['optim/grad_norm'] > 0 and metrics['optim/skipped'] == 0
  assert metrics['reward/std'] > 0
  assert metrics['kl/ref'] > 0  # the reference stayed behind
  assert metrics['policy/logp_drift'] < 1e-4  # and the sampler did not


def test_every_epoch_counts_and_an_unused_reference_does_not():
  rl = _config(epochs=3, beta=0.).rl
  rows = [{part: collections.Counter(wait=1.5, dispatch=.5)
           for part in ('rollout', 'reward', 'reference', 'update')}
          | {'metrics': collections.Counter()}] * 3
  figures = bench.summary(rl, PARAMETERS, rows, bound=1., tokens=NEW)
  assert figures['update']['gflop'] == pytest.approx(
      3 * 6 * PARAMETERS * SEEN / 1e9)
  assert figures['update']['tokens_per_second'] == 3 * NEW / 2
  assert figures['rollout']['tokens_per_second'] == NEW / 2
  assert figures['reference']['gflop'] == 0
  assert figures['step']['gflop_per_second'] == pytest.approx(
      (2 + 18) * PARAMETERS * SEEN / 1e9 / 8)


@pytest.mark.slow
def test_two_devices_and_the_profile_of_one_more_step(tmp_path):
  config = _config(prompts=4, micro_batch=8, epochs=2)
  config.bench.update(steps=2, profile=str(tmp_path))
  line = _run(config, devices=2)
  assert line['devices']['count'] == 2
  assert len(line['step']['all']) == 1
  assert line['last_step']['response_length/min'] == 5
  assert list(tmp_path.rglob('*.xplane.pb'))


@pytest.mark.parametrize('warmup', [0, 3])
def test_a_warmup_that_leaves_no_steady_step_is_refused(warmup):
  config = _config()
  config.bench.warmup = warmup
  with pytest.raises(errors.ConfigError, match='config.bench.warmup'):
    bench.run_bench(config, sharding.make_mesh({}, jax.devices()[:1]))


@pytest.mark.parametrize('arg, parameters, tokens', [
    ('tiny', 3_082_496, 16 * (64 + 16 * 128)),
    ('tail', 3_082_496, 16 * (64 + 16 * 384)),
    ('long_prompt', 3_082_496, 16 * (512 + 16 * 64)),
    ('smollm2', 134_515_008, 4 * (64 + 8 * 64)),  # as published
])
def test_the_shipped_workloads(arg, parameters, tokens):
  config = experiment.get_config(arg)
  config_lib.check(config, 1)
  assert config.is_locked and config.bench.profile is None
  placed = train_state.configured_model(
      config, sharding.make_mesh({}, jax.devices()[:1])).placed
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(placed.params)
             ) == parameters
  sampled = config.rl.prompts * config.rl.group * config.rl.response_tokens
  assert bench.model_flops(config.rl, parameters, sampled)['step'] == (
      10 * parameters * tokens)
  assert (config.rl.kl, config.rl.beta, config.rl.epochs) == ('k3', 0.001, 1)
