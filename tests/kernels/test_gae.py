"""PPO's advantages and its critic's loss."""

import functools

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import advantages
from r1jax.kernels import kl
from r1jax.kernels import losses
from r1jax.parallel import sharding

near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def _batch(seed=0, rows=8, size=37):
  """Responses of length 0 to all of `size`."""
  rng = np.random.default_rng(seed)
  length_N = rng.integers(0, size + 1, rows)
  length_N[:2] = 0, size
  mask_NR = np.arange(size) < length_N[:, None]
  reward_NR, value_NR = rng.normal(size=(2, rows, size)).astype(np.float32)
  return reward_NR, value_NR, mask_NR


def _plain(reward_NR, value_NR, mask_NR, gamma, lam):
  """Eq. 16 as it is printed: a sum over all later steps."""
  advantage_NR = np.zeros(reward_NR.shape)
  for n, length in enumerate(mask_NR.sum(1)):
    value = np.append(value_NR[n, :length].astype(np.float64), 0)
    delta = reward_NR[n, :length] + gamma * value[1:] - value[:-1]
    for t in range(length):
      advantage_NR[n, t] = sum(
          (gamma * lam) ** (l - t) * delta[l] for l in range(t, length))
  return advantage_NR, np.where(mask_NR, advantage_NR + value_NR, 0)


def test_by_hand():
  reward, value = np.float32([[0, 0, 4]]), np.float32([[1, 2, 3]])
  mask = np.ones((1, 3), bool)
  advantage, target = advantages.gae(reward, value, mask, 1., 1.)
  near(advantage, [[3, 2, 1]])
  near(target, [[4, 4, 4]])
  near(advantages.gae(reward, value, mask, 1., 0.)[0], [[1, 1, 1]])
  reward, value = np.float32([[0, 0, 1]]), np.float32([[.2, .5, .7]])
  near(advantages.gae(reward, value, mask, 1., 1.)[0], [[.8, .5, .3]])
  near(advantages.gae(reward, value, mask, 1., .95)[0], [[.76075, .485, .3]])
  reward, value = np.float32([[0, 0, 4]]), np.float32([[1, 2, 3]])
  # deltas 0, -.5, 1 at gamma 1/2; decay 1/4
  near(advantages.gae(reward, value, mask, .5, .5)[0], [[-.0625, -.25, 1]])


def test_values_of_lower_precision_are_summed_in_float32():
  reward, value, mask = _batch()
  halves = [x.astype(jnp.bfloat16) for x in (reward, value)]
  got = advantages.gae(*halves, mask, 1., .95)
  expected = advantages.gae(
      *(x.astype(jnp.float32) for x in halves), mask, 1., .95)
  jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize('gamma, lam', [(1., .95), (.99, 1.), (.9, 0.), (1, 1)])
def test_agrees_with_the_printed_sum(gamma, lam):
  got = jax.jit(advantages.gae)(*_batch(), gamma, lam)
  for ours, plain in zip(got, _plain(*_batch(), gamma, lam)):
    near(ours, plain)
    assert ours.dtype == jnp.float32


@jax.jit
@functools.partial(jax.value_and_grad, argnums=0)
def _slope(value, reward, mask):
  advantage, target = advantages.gae(reward, value, mask, .99, .95)
  error = losses.value_loss(
      jnp.where(mask, value, 0), jnp.zeros_like(value), target, .2).loss
  return jnp.sum(advantages.whiten(advantage, mask) ** 3) + jnp.sum(error)


@pytest.mark.parametrize('junk', [7., np.nan, np.inf])
def test_what_is_masked_never_matters(junk):
  reward, value, mask = _batch()
  clean = _slope(value, reward, mask)
  spoiled = _slope(*(
      np.where(mask, x, np.float32(junk)) for x in (value, reward)), mask)
  jax.tree.map(np.testing.assert_array_equal, clean, spoiled)
  assert np.all(np.isfinite(clean[1])) and not np.any(clean[1][~mask])


def test_whitened():
  advantage, _, mask = _batch(3)
  got = np.asarray(advantages.whiten(5 + 3 * advantage, mask))
  near(got[mask].mean(), 0)
  near(got[mask].std(), 1)
  assert not got[~mask].any()
  for same in (0., .1, -.1, -.7, 1e6):
    for junk in (same, 7., np.nan):
      equal = advantages.whiten(
          np.where(mask, np.float32(same), np.float32(junk)), mask)
      np.testing.assert_array_equal(equal, 0)
  np.testing.assert_array_equal(
      advantages.whiten(advantage, np.zeros_like(mask)), 0)


def test_a_mesh_whitens_all_together():
  reward, value, mask = _batch(rows=16)

  def whole(reward, value, mask):
    advantage, target = advantages.gae(reward, value, mask, 1., .95)
    return advantages.whiten(advantage, mask), target

  mesh = sharding.make_mesh({'data': 2, 'fsdp': 4})
  placed = sharding.from_host((reward, value, mask), mesh)
  jax.tree.map(near, jax.jit(whole)(*placed),
               jax.jit(whole)(reward, value, mask))


def test_value_by_hand():
  value = np.float32([2, 2, .3, -2, 2.9])
  got = losses.value_loss(value, np.zeros(5), np.float32([3, 1, 3, 3, 3]), .5)
  # Too far towards 3, past 1, near, away from 3, too far.
  near(got.loss, [3.125, .5, 3.645, 12.5, 3.125])
  np.testing.assert_array_equal(got.clipped, [1, 0, 0, 0, 1])
  plain = losses.value_loss(value, np.zeros(5), 3.)
  near(plain.loss, (value - 3) ** 2 / 2)
  assert not plain.clipped.any()


def test_value_gradient_is_zero_exactly_where_it_is_clipped():
  rng = np.random.default_rng(0)
  old, target, value = rng.normal(size=(3, 200)).astype(np.float32)
  loss = lambda v: losses.value_loss(v, old, target, .3)
  slope = jax.grad(lambda v: jnp.sum(loss(v).loss))(value)
  clipped = np.asarray(loss(value).clipped)
  assert 20 < clipped.sum() < 180
  np.testing.assert_array_equal(slope == 0, clipped)
  np.testing.assert_allclose(slope[~clipped], (value - target)[~clipped],
                             rtol=1e-5, atol=1e-6)
  with jax.enable_x64(True):
    test_util.check_grads(
        lambda v: losses.value_loss(v, 0., 3., .5).loss, (jnp.asarray(.2),), 1,
        modes=['rev'])


def test_the_controller_of_beta():
  near(kl.adapt(0.1, 6., 6.), 0.1)
  near(kl.adapt(0.1, 6.6, 6.), 0.101)
  near(kl.adapt(0.1, 60., 6.), 0.102)
  near(kl.adapt(0.1, -1., 6.), 0.098)
