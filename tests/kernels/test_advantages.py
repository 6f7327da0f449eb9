import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import advantages

STDS = ('population', 'sample', 'none')


@pytest.mark.parametrize(
    'std, size', [('population', 1.), ('sample', .8660254), ('none', .5)])
def test_hand_computed(std, size):
  got = advantages.grpo(jnp.array([[1, 0, 0, 1]]), std, eps=0)
  np.testing.assert_allclose(got, [[size, -size, -size, size]], rtol=1e-6)
  assert got.dtype == jnp.float32


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.int32])
def test_rewards_of_any_type_are_computed_with_in_float32(dtype):
  reward_BG = jnp.array([[3, 0, 0, 256]], dtype)
  for function in (advantages.grpo, advantages.rloo):
    got = function(reward_BG)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, function(reward_BG.astype(jnp.float32)))


def test_eps_stands_beside_the_standard_deviation():
  got = advantages.grpo(jnp.array([[1., 0., 0., 1.]]), eps=0.5)
  np.testing.assert_allclose(got, [[.5, -.5, -.5, .5]], rtol=1e-6)


def test_rloo_by_hand():
  got = advantages.rloo(jnp.array([[1., 0., 0.5], [2., 2., 2.]]))
  np.testing.assert_allclose(got, [[.75, -.75, 0.], [0., 0., 0.]], atol=1e-7)


def test_agrees_with_plain_loops():
  reward_BG = np.random.default_rng(0).normal(3, 2, (5, 7)).astype(np.float32)
  deviation = {
      'population': statistics.pstdev, 'sample': statistics.stdev,
      'none': lambda row: 1.}
  for std in STDS:
    expected = [
        [(r - statistics.fmean(row)) / (deviation[std](row) + 1e-6)
         for r in row] for row in reward_BG.tolist()]
    np.testing.assert_allclose(
        jax.jit(advantages.grpo, static_argnums=1)(reward_BG, std), expected,
        rtol=1e-5, atol=1e-5)
  expected = [
      [r - statistics.fmean(row[:i] + row[i + 1:]) for i, r in enumerate(row)]
      for row in reward_BG.tolist()]
  np.testing.assert_allclose(
      jax.vmap(advantages.rloo)(reward_BG), expected, rtol=1e-5, atol=1e-5)


def test_sum_is_zero_and_size_is_bounded_in_every_group():
  rng = np.random.default_rng(1)
  for group in (2, 3, 16, 64):
    solved_BG = (rng.random((50, group)) < 0.2).astype(np.float32)
    for advantage_BG in (
        *(advantages.grpo(solved_BG, std) for std in STDS),
        advantages.rloo(solved_BG)):
      np.testing.assert_allclose(
          np.sum(advantage_BG, axis=1), 0, atol=2e-6 * group)
    bound = np.sqrt(group - 1)
    assert np.max(np.abs(advantages.grpo(solved_BG))) <= bound * (1 + 1e-5)


@pytest.mark.parametrize('eps', [0., 1e-6])
@pytest.mark.parametrize('reward', [0., .1, 0.7, 1., 1000.1, -1e30])
def test_equal_rewards_give_exactly_zero(reward, eps):
  for group in (3, 7, 16):
    reward_BG = np.full((1, group), reward, np.float32)
    for std in STDS:
      got = jax.jit(advantages.grpo, static_argnums=1)(reward_BG, std, eps)
      np.testing.assert_array_equal(got, 0)
    np.testing.assert_array_equal(advantages.rloo(reward_BG), 0)
    assert not advantages.informative(reward_BG)[0]


def test_rounding_noise_is_not_blown_up():
  noisy = np.full((1, 8), 0.3, np.float32)
  noisy[0, 3] = np.nextafter(noisy[0, 3], np.float32(1))
  assert np.max(np.abs(advantages.grpo(noisy))) < 0.1


def test_a_large_common_reward_does_not_cost_precision():
  reward_BG = np.array([[1, 0, 0, 1]], np.float32) + 4096
  np.testing.assert_allclose(
      advantages.grpo(reward_BG), [[1, -1, -1, 1]], rtol=1e-5)


def test_informative_is_false_exactly_where_no_advantage_is_left():
  reward_BG = jnp.array([[1., 1, 1], [0, 0, 0], [0, 1, 0], [.3, .3, .2]])
  informative_B = advantages.informative(reward_BG)
  np.testing.assert_array_equal(informative_B, [False, False, True, True])
  for std in STDS:
    np.testing.assert_array_equal(
        informative_B,
        np.any(np.asarray(advantages.grpo(reward_BG, std)), axis=1))
