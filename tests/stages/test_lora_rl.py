"""Reinforcement learning of LoRA's factors over a frozen base."""

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax.models import lora
from r1jax.stages import model_source
from r1jax.stages import rl
from r1jax.training import files
from r1jax.training import loop

LORA = dict(rank=2, alpha=4., targets=('attention/*', 'mlp/down'))
SETTINGS = loop.Settings(checkpoint_every_steps=1, keep=2)
CONFIG = dict(stage='rl', seed=0, lora=LORA, model=tiny.SHAPE)


@pytest.fixture(name='run', scope='module')
def _run():
  return tiny_rl.Run(lora=LORA)


def test_only_the_factors_move(run):
  state, history = tiny_rl.steps(run, 3)
  assert set(state.params) == {'lora'}
  jax.tree.map(np.testing.assert_array_equal, state.ref, tiny.params())
  factors = state.params['lora']['blocks']
  assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(factors))
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state))
  assert moments <= 2 * sum(x.size for x in jax.tree.leaves(factors)) + 4
  # The reference is the base: at first the policy is it, and then leaves it.
  assert history[0]['kl/ref'] < 1e-9 and history[2]['kl/ref'] > 1e-5
  assert all(row['sampling/logp_difference'] < 1e-5 for row in history)


def test_the_seed_draws_the_factors(run):
  first, second = (rl.state_from_params(
      run.placed, tiny_rl.OPTIMIZER, run.abstract, tiny.placed(run.placed),
      tiny_rl.OBJECTIVE, seed=seed).params['lora']['blocks']['attention']
                   for seed in (0, 1))
  assert np.abs(first['q']['a'] - second['q']['a']).max() > .1


def test_it_learns(run):
  _, history = tiny_rl.steps(run, 12)
  mean = lambda rows: np.mean([row['reward/mean'] for row in rows])
  assert mean(history[-3:]) > mean(history[:3]) + 0.05


def test_eight_devices_are_one(run):
  eight = tiny_rl.Run(dict(fsdp=2, data=2, tensor=2), lora=LORA)
  tiny.assert_near(tiny_rl.steps(eight, 2)[0], tiny_rl.steps(run, 2)[0], 1e-4)


def test_stopped_resumed_and_begun_from(run, tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  train = lambda workdir, steps: loop.train(
      run.stage(steps), SETTINGS, str(workdir), CONFIG | dict(steps=steps))
  train(whole, 3)
  train(parts, 1)
  train(parts, 3)
  rollouts = [files.read_rows(d / 'rollouts.jsonl') for d in (whole, parts)]
  assert rollouts[0] == rollouts[1]
  load = lambda workdir: model_source.find(str(workdir)).load_params(
      run.placed.model.config, run.placed.params, run.placed.replicated)
  merged = load(whole)
  jax.tree.map(np.testing.assert_array_equal, merged, load(parts))
  state, _ = tiny_rl.steps(run, 3)
  expected = lora.merge(lora.join(state.ref, state.params), run.placed.lora.scale)
  tiny.assert_near(merged, expected)
