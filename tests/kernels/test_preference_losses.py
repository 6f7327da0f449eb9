"""Bradley-Terry over pairs, and the point-wise loss."""

import functools
import math

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import losses
from r1jax.parallel import sharding

near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def _batch(seed=0, prompts=8, size=4):
  """Graded responses, 0 to all of `size` of them to a prompt, some equal."""
  rng = np.random.default_rng(seed)
  score = rng.normal(size=(prompts, size)).astype(np.float32)
  grade = rng.integers(0, 3, (prompts, size)).astype(np.float32)
  count = rng.integers(0, size + 1, prompts)
  count[:2] = 0, size
  return score, grade, np.arange(size) < count[:, None]


def _plain(score_BK, grade_BK, real_BK, margin):
  terms, prompts, right, pairs = [], 0, 0., 0
  for score, grade, real in zip(score_BK, grade_BK, real_BK):
    kept = [(float(s), g) for s, g, here in zip(score, grade, real) if here]
    found = [(s - t) for s, g in kept for t, h in kept if g > h]
    if found:
      terms.append(math.fsum(
          math.log1p(math.exp(margin - lead)) for lead in found) / len(found))
      prompts += 1
    right += sum((lead > 0) + .5 * (lead == 0) for lead in found)
    pairs += len(found)
  return (math.fsum(terms), prompts), (right, pairs)


def test_by_hand():
  pair = lambda score, grade, margin=0.: losses.bradley_terry(
      np.float32([score]), np.float32([grade]), np.ones((1, len(score)), bool),
      margin)
  jax.tree.map(near, pair([1, 0], [1, 0]), ((.3132617, 1), (1, 1)))
  jax.tree.map(near, pair([1, 0], [0, 1]), ((1.3132617, 1), (0, 1)))
  jax.tree.map(near, pair([2, 2], [1, 0]), ((.6931472, 1), (.5, 1)))
  jax.tree.map(near, pair([1, 0], [1, 0], 1.), ((.6931472, 1), (1, 1)))
  jax.tree.map(near, pair([1, 0], [1, 1]), ((0, 0), (0, 0)))
  # 2 > 1 > 0 scored 0, 0, 1: leads 0, -1, -1.
  jax.tree.map(near, pair([0, 0, 1], [2, 1, 0]),
               (((.6931472 + 2 * 1.3132617) / 3, 1), (.5, 3)))


@pytest.mark.parametrize('margin', [0., .7])
def test_agrees_with_a_plain_loop(margin):
  jax.tree.map(near, jax.jit(losses.bradley_terry)(*_batch(), margin),
               _plain(*_batch(), margin))


def test_only_differences_matter_and_gradients_are_right():
  score, grade, real = _batch()
  loss = lambda score: losses.bradley_terry(score, grade, real)[0][0]
  near(loss(score + 5), loss(score), atol=1e-4)
  slope = jax.grad(loss)(score)
  near(slope.sum(1), np.zeros(len(score)))
  with jax.enable_x64(True):
    test_util.check_grads(loss, (jnp.asarray(score, jnp.float64),), 1,
                          modes=['rev'])


@pytest.mark.parametrize('junk', [7., np.nan, np.inf])
def test_what_is_not_there_never_matters(junk):
  score, grade, real = _batch()
  good, weight = grade[:, 0] > 0, real[:, 0].astype(np.float32)

  def loss(score):
    pairs, _ = losses.bradley_terry(score, grade, real)
    points, _ = losses.pointwise(score[:, 0], good, weight)
    return pairs[0] + points

  clean = jax.value_and_grad(loss)(score)
  spoiled = jax.value_and_grad(loss)(jnp.where(real, score, junk))
  jax.tree.map(np.testing.assert_array_equal, clean, spoiled)
  assert np.all(np.isfinite(clean[1]))


def test_a_mesh_and_halves_change_nothing():
  batch = _batch(prompts=16)
  whole = losses.bradley_terry(*batch)
  halves = [losses.bradley_terry(*(x[part] for x in batch))
            for part in (slice(0, 3), slice(3, 16))]
  jax.tree.map(near, jax.tree.map(jnp.add, *halves), whole)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 4})
  jax.tree.map(near, jax.jit(losses.bradley_terry)(
      *sharding.from_host(batch, mesh)), whole)


def test_pointwise():
  score = np.float32([2, 2, -3, 0])
  good = np.array([True, False, False, True])
  weight = np.float32([1, 1, 1, .5])
  expected = [math.log1p(math.exp(x)) for x in (-2, 2, -3, 0)]
  total, count = losses.pointwise(score, good, weight)
  near(total, np.dot(expected, weight))
  near(count, 3.5)
  huge = losses.pointwise(np.float32([1e30, -1e30]), np.array([True, False]),
                          np.ones(2, np.float32))
  near(huge[0], 0)
