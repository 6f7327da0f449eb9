"""Importance weights: by hand, and unbiased where nothing is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import importance

OLD = np.log(np.array([[.6, .1, .5], [.2, .9, 1.]], np.float32))
SAMPLER = np.log(np.array([[.2, .2, .5], [.4, .3, 1.]], np.float32))
MASK = np.array([[True, True, True], [True, True, False]])


@pytest.mark.parametrize('mode, weight, cut', [
    # Ratios 3, 1/2, 1; and 1/2, 3, of whose responses the products are 3/2.
    ('token_truncate', [[2, .5, 1], [.5, 2, 0]], [[1, 0, 0], [0, 1, 0]]),
    ('token_mask', [[0, .5, 1], [.5, 0, 0]], [[1, 0, 0], [0, 1, 0]]),
    ('sequence_truncate', [[1.5] * 3, [1.5, 1.5, 0]], [[0] * 3] * 2)])
def test_weights_by_hand(mode, weight, cut):
  found = importance.weights(mode, OLD, SAMPLER, MASK, cap=2., floor=.4)
  np.testing.assert_allclose(found.weight, weight, rtol=1e-6)
  np.testing.assert_array_equal(found.cut, np.array(cut, bool))


def test_a_sequence_is_cut_as_a_whole():
  found = importance.weights('sequence_mask', OLD, SAMPLER, MASK, cap=1.4)
  np.testing.assert_array_equal(found.weight, 0.)
  np.testing.assert_array_equal(found.cut, MASK)
  found = importance.weights('sequence_truncate', OLD, SAMPLER, MASK, cap=1.4)
  np.testing.assert_allclose(found.weight, 1.4 * MASK, rtol=1e-6)


@pytest.mark.parametrize('mode, kept', [
    ('token_mask', [[0, 0, 1], [0, 0, 0]]),
    ('token_truncate', [[2, .5, 1], [.5, 2, 0]])])
def test_small_weights_are_masked_and_not_truncated(mode, kept):
  found = importance.weights(mode, OLD, SAMPLER, MASK, cap=2., floor=.6)
  np.testing.assert_allclose(found.weight, kept, rtol=1e-6)


def test_what_is_on_padding_is_of_no_weight():
  padded = np.where(MASK, OLD, np.nan)
  for mode in ('token_mask', 'sequence_truncate'):
    found = importance.weights(mode, padded, SAMPLER, MASK, cap=9.)
    assert np.isfinite(found.weight).all() and found.weight[1, 2] == 0
  figures = importance.figures(padded, SAMPLER, MASK)
  assert np.isfinite(list(figures.values())).all()


def test_equal_probabilities_weigh_one():
  for mode in ('token_truncate', 'token_mask', 'sequence_truncate',
               'sequence_mask'):
    found = importance.weights(mode, OLD, OLD, MASK, cap=1., floor=1.)
    np.testing.assert_array_equal(found.weight, MASK)
    assert not found.cut.any()


def test_figures_by_hand():
  found = importance.figures(OLD, SAMPLER, MASK)
  log_ratio = (OLD - SAMPLER)[MASK]
  ratio = np.exp(log_ratio)
  np.testing.assert_allclose(
      found['sampling/kl'], (ratio - 1 - log_ratio).mean(), rtol=1e-5)
  np.testing.assert_allclose(
      found['sampling/perplexity_ratio'],
      np.exp(-OLD[MASK].mean()) / np.exp(-SAMPLER[MASK].mean()), rtol=1e-5)
  np.testing.assert_allclose(
      found['sampling/logp_difference'], np.abs(log_ratio).mean(), rtol=1e-5)


def test_figures_and_gradient_are_those_of_the_scorer_in_expectation():
  """Over all tokens, weighted by the sampler's probability of each."""
  random = np.random.default_rng(0)
  logits, noise, advantage = (
      random.normal(size=5).astype(np.float32) for _ in range(3))
  sampler = jax.nn.log_softmax(logits + .4 * noise)
  every = np.ones((5, 1), bool)

  def gradient(weight):  # of the expected objective under the sampler
    return jax.grad(lambda x: jnp.sum(
        jnp.exp(sampler) * weight * advantage * jax.nn.log_softmax(x)))(logits)

  old = jax.nn.log_softmax(logits)
  weight = importance.weights(
      'token_truncate', old[:, None], sampler[:, None], every, 99.).weight[:, 0]
  right = jax.grad(lambda x: jnp.sum(
      jax.nn.softmax(x) * advantage))(logits)
  np.testing.assert_allclose(gradient(weight), right, atol=1e-6)
  assert np.abs(gradient(1.) - right).max() > .01
  each = [importance.figures(*(x[:, None] for x in one))['sampling/kl']
          for one in zip(old[:, None], sampler[:, None], every)]
  np.testing.assert_allclose(
      jnp.sum(jnp.exp(sampler) * jnp.stack(each)),
      jnp.sum(jnp.exp(sampler) * (sampler - old)), atol=1e-6)
