import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import masked

NAN, INF = float('nan'), float('inf')
X = np.array([[1., NAN, 3., 8.], [INF, 5., -INF, NAN], [NAN] * 4], np.float32)
MASK = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)


def test_hand_computed_with_nan_and_inf_behind_the_mask():
  np.testing.assert_array_equal(
      masked.select(X, MASK, -1), [[1, -1, 3, 8], [-1, 5, -1, -1], [-1] * 4])
  np.testing.assert_array_equal(masked.total(X, MASK, axis=1), [12, 5, 0])
  np.testing.assert_array_equal(masked.count(X, MASK, axis=1), [3, 1, 0])
  np.testing.assert_array_equal(masked.mean(X, MASK, axis=1), [4, 5, 0])
  np.testing.assert_allclose(
      masked.variance(X, MASK, axis=1), [26 / 3, 0, 0], rtol=1e-6)
  assert masked.mean(X, MASK) == 17 / 4
  assert masked.mean(X, MASK, axis=1, keepdims=True).shape == (3, 1)


@pytest.mark.parametrize('axis', [None, 0, 1])
def test_agrees_with_numpy_masked_arrays(axis):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(6, 7)).astype(np.float32)
  mask = rng.random((6, 7)) < 0.6
  reference = np.ma.array(x.astype(np.float64), mask=~mask)
  for ours, theirs in [
      (masked.total, reference.sum), (masked.mean, reference.mean),
      (masked.variance, reference.var)]:
    np.testing.assert_allclose(
        jax.jit(ours, static_argnames='axis')(x, mask, axis=axis),
        theirs(axis=axis), rtol=1e-5, atol=1e-6)


def test_a_mask_broadcasts_and_counts_what_it_covers():
  x = np.arange(6, dtype=np.float32).reshape(2, 3)
  rows = np.array([[True], [False]])
  assert masked.mean(x, rows) == 1
  assert masked.count(x, rows) == 3
  np.testing.assert_array_equal(masked.mean(x, rows, axis=1), [1, 0])


@pytest.mark.parametrize(
    'function', [masked.total, masked.mean, masked.variance])
def test_gradients_are_zero_behind_the_mask_and_right_before_it(function):
  clean = np.where(MASK, X, 0).astype(np.float32)
  weight = np.array([1., 2., 3.], np.float32)
  loss = lambda x: jnp.sum(weight * function(x, MASK, axis=1))
  gradient = jax.grad(loss)(X)
  np.testing.assert_array_equal(np.asarray(gradient)[~MASK], 0)
  np.testing.assert_array_equal(gradient, jax.grad(loss)(clean))
  with jax.enable_x64(True):
    test_util.check_grads(loss, (clean.astype(np.float64),), order=1)


def test_select_before_a_steep_function_keeps_its_gradient_finite():
  x, mask = jnp.array([0., 4.]), jnp.array([False, True])
  outside = jax.grad(lambda x: masked.total(jnp.sqrt(x), mask))(x)
  inside = jax.grad(
      lambda x: masked.total(jnp.sqrt(masked.select(x, mask, 1)), mask))(x)
  assert np.isnan(outside[0])  # the trap that the module's docstring names
  np.testing.assert_array_equal(inside, [0, .25])


def test_divide_by_nothing_is_zero_with_zero_gradient():
  assert masked.divide(jnp.float32(0), jnp.int32(0)) == 0
  assert masked.divide(jnp.float32(1), jnp.float32(0.25)) == 4
  assert masked.divide(jnp.float32(1), jnp.float32(-2)) == 0
  assert jnp.isnan(masked.divide(jnp.float32(1), jnp.float32(np.nan)))
  gradient = jax.grad(masked.divide, argnums=(0, 1))(0., 0.)
  assert gradient == (0, 0)


def test_a_fill_takes_the_dtype_of_what_is_selected():
  for fill in (1, 1., np.float32(1), np.float64(1)):
    found = masked.select(jnp.ones(2, jnp.bfloat16), np.array([1, 0], bool), fill)
    assert found.dtype == jnp.bfloat16


def test_sums_are_float32_and_counts_exact():
  x = jnp.full(1000, 1.01, jnp.bfloat16)
  total = masked.total(x, True)
  assert total.dtype == jnp.float32
  np.testing.assert_allclose(total, 1000 * float(x[0]), rtol=1e-6)
  assert masked.mean(x, True).dtype == jnp.float32
  assert masked.select(x, False).dtype == jnp.bfloat16
  assert masked.count(x, True).dtype == jnp.int32
