"""Schedules, weight decay, clipping, and updates that must not happen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import config as config_lib
from r1jax.parallel import mesh as mesh_lib
from r1jax.parallel import sharding
from r1jax.training import optim

PARAMS = {'w': jnp.array([[1., -2.], [3., 4.]]), 'bias': jnp.ones((2, 2)),
          'norm_scale': jnp.ones((3, 2)), 'vector': jnp.ones(2)}


def _update(optimizer, grads, params, state, skipped=0):
  return optim.update(optimizer, grads, params, state, jnp.int32(skipped))


def test_constant_schedule_warms_up_from_its_first_update():
  rate = optim.schedule('constant', 0.4, 100, 4, 0.1)
  np.testing.assert_allclose(
      [rate(i) for i in range(6)], [.1, .2, .3, .4, .4, .4], rtol=1e-6)
  np.testing.assert_allclose(
      optim.schedule('constant', 0.4, 100, 1, 0.1)(0), 0.4, rtol=1e-6)


def test_cosine_schedule_ends_at_its_fraction():
  rate = optim.schedule('cosine', 2., 14, 4, 0.1)
  # Half-way between 2 and .2 at the middle of the 10 updates of the cosine.
  np.testing.assert_allclose(
      [rate(3), rate(4), rate(9), rate(14)], [2., 2., 1.1, .2], rtol=1e-6)


def test_schedule_refuses():
  with pytest.raises(config_lib.ConfigError, match='config.optim.schedule'):
    optim.schedule('linear', 1., 10, 0, 0.1)
  with pytest.raises(config_lib.ConfigError, match='config.optim.warmup_steps'):
    optim.schedule('cosine', 1., 10, 10, 0.1)


def test_weight_decay_spares_norms_biases_and_vectors():
  assert optim.decays(PARAMS) == {
      'w': True, 'bias': False, 'norm_scale': False, 'vector': False}
  optimizer = optim.make(lr=0.1, steps=10, weight_decay=0.5)
  state = optimizer.tx.init(PARAMS)
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  new, *_ = _update(optimizer, zeros, PARAMS, state)
  np.testing.assert_allclose(new['w'], PARAMS['w'] * (1 - 0.1 * 0.5))
  for name in ('bias', 'norm_scale', 'vector'):
    np.testing.assert_array_equal(new[name], PARAMS[name])


def test_two_updates_against_adam_by_hand():
  b1, b2, eps, lr, decay = 0.9, 0.95, 1e-8, 0.01, 0.1
  optimizer = optim.make(lr=lr, steps=10, b1=b1, b2=b2, eps=eps,
                         weight_decay=decay, clip_norm=1.0)
  params = {'w': jnp.array([[1., 2.]])}
  state = optimizer.tx.init(params)
  expected, m, v = np.array([[1., 2.]]), 0., 0.
  for i, g in enumerate([np.array([[3., 4.]]), np.array([[.3, -.4]])], 1):
    params, state, skipped, metrics = _update(
        optimizer, {'w': jnp.array(g)}, params, state)
    norm = np.sqrt(np.sum(g ** 2))
    np.testing.assert_allclose(metrics['optim/grad_norm'], norm, rtol=1e-6)
    g = g / max(norm, 1.)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g ** 2
    step = m / (1 - b1 ** i) / (np.sqrt(v / (1 - b2 ** i)) + eps)
    expected = expected - lr * (step + decay * expected)
    np.testing.assert_allclose(params['w'], expected, rtol=1e-5)
    assert skipped == 0 and metrics['optim/skipped'] == 0.


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf])
def test_a_gradient_that_is_not_finite_changes_no_bit(bad):
  optimizer = optim.make(lr=0.1, steps=10, warmup_steps=5, weight_decay=0.1)
  update = jax.jit(lambda *args: optim.update(optimizer, *args))
  good = jax.tree.map(lambda x: 0.1 * x, PARAMS)
  wrong = good | {'vector': good['vector'].at[1].set(bad)}
  params, state, skipped, metrics = update(
      good, PARAMS, optimizer.tx.init(PARAMS), jnp.int32(0))
  np.testing.assert_allclose(metrics['optim/lr'], 0.02, rtol=1e-6)
  kept = params, state
  for count in (1, 2):
    params, state, skipped, metrics = update(wrong, params, state, skipped)
    assert skipped == count and metrics['optim/skipped'] == 1.
    assert not np.isfinite(metrics['optim/grad_norm'])
    jax.tree.map(np.testing.assert_array_equal, (params, state), kept)
  params, state, skipped, metrics = update(good, params, state, skipped)
  assert skipped == 0
  # The schedule goes on where it stood before the skipped updates.
  np.testing.assert_allclose(metrics['optim/lr'], 0.04, rtol=1e-6)
  assert not np.array_equal(params['w'], kept[0]['w'])


def test_moments_live_with_their_parameters():
  mesh = mesh_lib.make(dict(fsdp=-1))
  params = {'w': jnp.ones((8, 4)), 'scale': jnp.ones(4)}
  where = sharding.shardings(
      {'w': ('embed', None), 'scale': (None,)}, params, mesh,
      (('embed', 'fsdp'),))
  optimizer = optim.make(lr=0.1, steps=10)
  target = optim.state_shardings(
      optimizer.tx, params, where, sharding.replicated(mesh))
  state = jax.jit(optimizer.tx.init, out_shardings=target)(
      jax.device_put(params, where))
  assert state[1].mu['w'].addressable_shards[0].data.shape == (1, 4)
  assert state[1].nu['scale'].sharding.is_fully_replicated
  assert state[1].count.sharding.is_fully_replicated
