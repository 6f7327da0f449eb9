"""Kernels of process supervision: the loss of steps, and their advantages."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import advantages
from r1jax.kernels import losses
from r1jax.parallel import sharding


def _steps(seed=0, count=64):
  rng = np.random.default_rng(seed)
  score = rng.normal(size=count).astype(np.float32) * 3
  label = rng.choice([0, 1, .25, .5, .75], count).astype(np.float32)
  return score, label, rng.random(count) < .7


def _plain_loss(score, label, real):
  total, right, sided = 0., 0., 0
  for s, y, there in zip(*map(np.ndarray.tolist, (score, label, real))):
    if there:
      p = 1 / (1 + math.exp(-s))
      total -= y * math.log(p) + (1 - y) * math.log(1 - p)
      sided += y != .5
      right += y != .5 and (p > .5) == (y > .5)
  return (total, sum(real)), (right, sided)


def near(got, expected):
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('junk', [0., np.nan, np.inf, -100.])
def test_the_loss_of_steps_is_that_of_a_plain_loop(junk):
  score, label, real = _steps()
  spoiled = [np.where(real, x, np.float32(junk)) for x in (score, label)]
  got = jax.jit(losses.stepwise)(*spoiled, real)
  jax.tree.map(near, got, _plain_loss(score, label, real))
  slope = jax.grad(lambda s: losses.stepwise(s, spoiled[1], real)[0][0])(
      spoiled[0])
  near(slope, np.where(real, 1 / (1 + np.exp(-score)) - label, 0))


def test_the_loss_of_steps_by_hand():
  one = lambda s, y: losses.stepwise(
      np.float32([s]), np.float32([y]), np.array([True]))[0][0]
  near(one(0, .3), .6931472)
  near(one(2, .75), .6269280)
  near(one(1e30, 1), 0)  # no infinity


def test_halves_and_a_mesh_change_no_loss():
  batch = _steps()
  whole = losses.stepwise(*batch)
  halves = [losses.stepwise(*(x[part] for x in batch))
            for part in (slice(0, 9), slice(9, None))]
  jax.tree.map(near, jax.tree.map(jnp.add, *halves), whole)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 4})
  jax.tree.map(near, jax.jit(losses.stepwise)(
      *sharding.from_host(batch, mesh)), whole)


def _plain_advantages(reward, end, group, std, eps):
  advantage = np.zeros(reward.shape)
  for first in range(0, len(reward), group):
    rows = range(first, first + group)
    every = [reward[n][t] for n in rows for t in np.flatnonzero(end[n])]
    if not every:
      continue
    mean, size = np.mean(every), 1.
    if std != 'none':
      free = std == 'sample'
      size = (np.std(every, ddof=free) if len(every) > free else 0.) + eps
    for n in rows:
      for t in range(reward.shape[1]):
        advantage[n, t] = sum(
            (reward[n][j] - mean) / size
            for j in np.flatnonzero(end[n]) if j >= t)
  return advantage


@pytest.mark.parametrize('std', ['population', 'sample', 'none'])
def test_advantages_of_steps_are_those_of_a_plain_loop(std):
  rng = np.random.default_rng(0)
  reward = rng.random((12, 7)).astype(np.float32)
  end = rng.random((12, 7)) < .4
  end[:4] = False  # a group without a step
  end[4:8] = False
  end[5, 3] = True  # one with a single step
  got = jax.jit(advantages.process, static_argnums=(2, 3))(
      np.where(end, reward, np.nan), end, 4, std)
  near(got, _plain_advantages(reward, end, 4, std, 1e-6))
  assert not np.any(got[:8])


def test_advantages_of_steps_by_hand():
  end = np.array([[1, 0, 1], [1, 0, 1]], bool)
  reward = np.float32([[1, 9, 0], [0, 9, 1]])
  near(advantages.process(reward, end, 2, eps=0), [[0, -1, -1], [0, 1, 1]])
  # Without a step after them, the last tokens have no advantage.
  end = np.array([[1, 0, 0], [1, 0, 0]], bool)
  near(advantages.process(reward, end, 2, eps=0), [[1, 0, 0], [-1, 0, 0]])


def test_one_step_each_is_whitened_over_the_group():
  rng = np.random.default_rng(0)
  reward, end = rng.normal(3, 2, (40, 1)), rng.random((40, 1)) < .7
  np.testing.assert_array_equal(
      advantages.process(reward, end, 40, eps=1e-8),
      advantages.whiten(np.float32(reward), end))


def test_equal_steps_have_no_advantage():
  """Of 100 groups: the mean of equal numbers need not be that number."""
  rng = np.random.default_rng(0)
  end = rng.random((300, 5)) < .7
  reward = np.repeat(rng.random(100), 3)[:, None] * np.ones(5)
  got = advantages.process(reward, end, 3, eps=0)
  np.testing.assert_array_equal(got, np.zeros(end.shape))
