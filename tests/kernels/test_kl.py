"""The claims of kl's table, checked by enumerating a small categorical."""

import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import kl

LOGITS = np.array([0.3, -1.2, 2.0, 0.1, -0.4])
REF_LOGITS = np.array([1.0, 0.5, -0.7, 0.2, -1.5])


def _on_policy_mean(estimator):
  """Exact mean of an estimate over the policy's own samples, as a loss.

  A sampler's choice carries no gradient, hence the stop.
  """
  ref_logp = jax.nn.log_softmax(jnp.asarray(REF_LOGITS))

  def mean(logits):
    logp = jax.nn.log_softmax(logits)
    probability = jax.lax.stop_gradient(jnp.exp(logp))
    return jnp.sum(probability * estimator(logp, ref_logp))

  return mean


def _kl(p_logits, q_logits):
  p, q = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
  return jnp.sum(jnp.exp(p) * (p - q))


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def test_hand_computed():
  # log(pi_ref / pi) = 1, -1, 0
  logp, ref_logp = np.array([-2., -1., -3.]), np.array([-1., -2., -3.])
  np.testing.assert_allclose(kl.k1(logp, ref_logp), [-1, 1, 0])
  np.testing.assert_allclose(kl.k2(logp, ref_logp), [.5, .5, 0])
  np.testing.assert_allclose(
      kl.k3(logp, ref_logp), [.71828, .36788, 0], atol=5e-6)
  for kind, function in [('k1', kl.k1), ('k2', kl.k2), ('k3', kl.k3)]:
    np.testing.assert_array_equal(
        kl.estimate(kind, logp, ref_logp), function(logp, ref_logp))


def test_agrees_with_numpy_in_float32_and_from_bfloat16():
  rng = np.random.default_rng(0)
  logp, ref_logp = -rng.exponential(2, (2, 4, 9)).astype(np.float32)
  d = ref_logp.astype(np.float64) - logp
  expected = {'k1': -d, 'k2': d**2 / 2, 'k3': np.exp(d) - d - 1}
  for kind, value in expected.items():
    got = jax.jit(kl.estimate, static_argnums=0)(kind, logp, ref_logp)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6)
    halves = [x.astype(jnp.bfloat16) for x in (logp, ref_logp)]
    half = kl.estimate(kind, *halves)
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(
        half, kl.estimate(kind, *(x.astype(np.float32) for x in halves)))


def test_k1_and_k3_are_unbiased():
  truth = _kl(LOGITS, REF_LOGITS)
  np.testing.assert_allclose(_on_policy_mean(kl.k1)(LOGITS), truth, rtol=1e-12)
  np.testing.assert_allclose(_on_policy_mean(kl.k3)(LOGITS), truth, rtol=1e-12)
  assert abs(_on_policy_mean(kl.k2)(LOGITS) - truth) > 0.1


def test_k1_in_the_loss_has_no_gradient_on_average():
  gradient = jax.grad(_on_policy_mean(kl.k1))(jnp.asarray(LOGITS))
  np.testing.assert_allclose(gradient, 0, atol=1e-15)


def test_k2_in_the_loss_has_the_gradient_of_the_reverse_kl():
  np.testing.assert_allclose(
      jax.grad(_on_policy_mean(kl.k2))(jnp.asarray(LOGITS)),
      jax.grad(_kl)(jnp.asarray(LOGITS), REF_LOGITS), rtol=1e-12)


def test_k3_in_the_loss_has_the_gradient_of_the_forward_kl():
  logits = jnp.asarray(LOGITS)
  gradient = jax.grad(_on_policy_mean(kl.k3))(logits)
  forward = jax.grad(_kl, argnums=1)(REF_LOGITS, logits)
  np.testing.assert_allclose(gradient, forward, rtol=1e-12)
  reverse = jax.grad(_kl)(logits, REF_LOGITS)
  assert np.max(np.abs(gradient - reverse)) > 0.1


def test_k3_is_never_negative_near_zero():
  d = np.linspace(-1e-3, 1e-3, 2001, dtype=np.float32)
  value = kl.k3(np.zeros_like(d), d)
  assert np.min(value) >= 0
  np.testing.assert_allclose(value, d.astype(np.float64)**2 / 2, atol=1e-9)


@pytest.mark.parametrize('estimator', [kl.k1, kl.k2, kl.k3])
def test_gradients_by_finite_differences(estimator):
  logp, ref_logp = np.log([.1, .5, .9]), np.log([.7, .5, .2])
  test_util.check_grads(estimator, (logp, ref_logp), order=1)


def test_k3_is_held_above_20_and_free_below():
  ref_logp = np.float32(-1)
  logp = ref_logp - np.float32([19, 21, 200, -21, -200])
  value = kl.k3(logp, ref_logp)
  assert np.all(np.isfinite(value)) and value[1] == value[2]
  np.testing.assert_allclose(value[3:], [20, 199], rtol=1e-6)
  slope = jax.vmap(jax.grad(kl.k3), (0, None))(logp, ref_logp)
  np.testing.assert_allclose(
      slope, [1 - np.exp(19.), 0, 0, 1, 1], rtol=1e-5)
