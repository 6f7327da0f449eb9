"""Whole steps: the same on every mesh, and what a step changes."""

import jax
import numpy as np
import pytest

import tiny
import tiny_rl


def _steps(run, count):
  state, metrics, rows = run.init(), [], []
  for step in range(count):
    state, figures, records = run.learner(state, tiny_rl.draw, 0, step)
    metrics.append(jax.device_get(figures))
    rows.append(records)
  return jax.device_get(state), metrics, rows


@pytest.fixture(name='one_device', scope='module')
def _one_device():
  return _steps(tiny_rl.Run(), 3)


@pytest.mark.parametrize('sizes', [
    dict(data=8), dict(data=2, fsdp=2, tensor=2)])
def test_8_devices_take_the_steps_of_one(one_device, sizes):
  run = tiny_rl.Run(sizes)
  state, metrics, rows = _steps(run, 3)
  expected, expected_metrics, expected_rows = one_device
  assert rows == expected_rows  # the same samples and rewards
  tiny.assert_near(state.params, expected.params)
  tiny.assert_near(state.opt_state, expected.opt_state)
  for got, want in zip(metrics, expected_metrics):
    assert got.keys() == want.keys()
    for name in want.keys() - {'timing/rollout_seconds',
                               'timing/update_seconds'}:
      np.testing.assert_allclose(got[name], want[name], atol=1e-4)


def test_a_step_moves_the_policy_and_not_the_reference(one_device):
  state, metrics, rows = one_device
  first = tiny.params()
  assert state.step == 3 and state.skipped == 0
  jax.tree.map(np.testing.assert_array_equal, state.ref, first)
  assert all(np.all(new != old) for new, old in zip(
      *map(jax.tree.leaves, (state.params, first))))
  assert all(len(records) == 32 for records in rows)
  assert metrics[0]['verifier/errors'] == 1
  assert metrics[0]['kl/ref'] < 1e-6 < 1e-4 < metrics[2]['kl/ref']


def test_the_metrics_are_those_of_the_rows(one_device):
  _, metrics, rows = one_device
  mean = lambda name: np.mean([row[name] for row in rows[1]])
  expected = {
      'reward/mean': mean('reward'), 'reward/accuracy': mean('accuracy'),
      'reward/format': mean('format'), 'response_length/mean': mean('tokens'),
      'response_length/clip_ratio': 1 - mean('finished'),
      'perf/tokens': 32 * mean('tokens')}
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[1][name], value, rtol=1e-5)
  assert 0 < expected['response_length/clip_ratio'] < 1


def test_the_reference_becomes_the_policy_every_so_many_steps():
  run = tiny_rl.Run(ref_every_steps=2)
  state, differs = run.init(), []
  for step in range(3):
    before = jax.device_get(state.ref)
    state, _, _ = run.learner(state, tiny_rl.draw, 0, step)
    refreshed = jax.tree.all(jax.tree.map(
        np.array_equal, state.ref, state.params))
    kept = jax.tree.all(jax.tree.map(np.array_equal, state.ref, before))
    differs.append((refreshed, kept))
  assert differs == [(False, True), (True, False), (False, True)]


def test_epochs_and_mini_batches_make_more_updates_of_a_rollout():
  run = tiny_rl.Run(
      objective=tiny_rl.OBJECTIVE._replace(mini_batches=2), epochs=3)
  state, metrics, _ = _steps(run, 1)
  assert state.step == 1
  assert state.opt_state[1].count == 6  # Adam's
  assert metrics[0]['sampling/logp_difference'] < 1e-5  # the first update
  assert metrics[0]['policy/logp_drift'] > 1e-3  # the mean over all six


class _Fickle(tiny_rl.Scorer):
  """Prompts with an even id are solved by every response."""

  def score(self, records, responses):
    scores = super().score(records, responses)
    solved = np.array([int(r['answer']) % 2 == 0 for r in records])
    return scores._replace(total=np.where(solved, 1, scores.total).astype('f'))


def test_dynamic_sampling_draws_on_for_groups_of_equal_rewards():
  run = tiny_rl.Run(
      objective=tiny_rl.OBJECTIVE._replace(drop_equal_groups=True),
      sampling_rounds=3, scorer=_Fickle())
  drawn = []

  def draw(number):
    drawn.append(number)
    return tiny_rl.draw(number)

  _, metrics, rows = run.learner(run.init(), draw, 0, 2)
  # Two rounds go once through all prompts, of which half have an odd id.
  assert drawn == [6, 7]
  assert metrics['reward/frac_zero_std'] == 0
  assert len(rows) == 2 * 32  # what was dropped is logged and counted, too
  assert metrics['verifier/errors'] == 2
  odd = [row['reward'] for row in rows if row['id'] % 2]
  np.testing.assert_allclose(metrics['reward/mean'], np.mean(odd), rtol=1e-5)
