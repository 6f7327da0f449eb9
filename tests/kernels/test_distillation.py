"""The divergence of a student from its teacher, by hand and by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import distillation

P, Q = np.log([[.5, .25, .25]]), np.log([[.25, .25, .5]])


@pytest.mark.parametrize('kind, top_k, expected', [
    ('forward', 0, .25 * np.log(2)), ('reverse', 0, .25 * np.log(2)),
    ('forward', 1, .5 * np.log(2) + .5 * np.log(2 / 3)),
    ('reverse', 1, .25 * np.log(.5) + .75 * np.log(1.5)),
    ('forward', 2, .25 * np.log(2)), ('forward', 9, .25 * np.log(2))])
def test_hand_values(kind, top_k, expected):
  got = distillation.divergence(Q + 3., P - 1., kind, top_k=top_k)
  np.testing.assert_allclose(got, [expected], rtol=1e-5)


def _reference(student, teacher, kind, temperature, top_k):
  def softmax(x):
    x = np.exp(np.float64(x) / temperature)
    return x / x.sum()
  p, q = softmax(teacher), softmax(student)
  if top_k:
    best = np.argsort(-p, kind='stable')[:top_k]
    p, q = (np.append(x[best], np.delete(x, best).sum()) for x in (p, q))
  if kind == 'reverse':
    p, q = q, p
  return temperature ** 2 * np.sum(p * np.log(p / q))


@pytest.mark.parametrize('kind', ('forward', 'reverse'))
@pytest.mark.parametrize('temperature, top_k', [(1., 0), (2., 0), (.5, 3)])
def test_against_numpy_with_its_gradient(kind, temperature, top_k):
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 4, 7))
  total = lambda s: jnp.sum(distillation.divergence(
      s, teacher, kind, temperature=temperature, top_k=top_k))
  reference = lambda s: sum(
      _reference(a, b, kind, temperature, top_k) for a, b in zip(s, teacher))
  np.testing.assert_allclose(total(student), reference(student), rtol=1e-4)
  along = rng.normal(size=student.shape)
  slope = (reference(student + 1e-5 * along)
           - reference(student - 1e-5 * along)) / 2e-5
  np.testing.assert_allclose(
      np.vdot(jax.grad(total)(student), along), slope, rtol=1e-3)


@pytest.mark.parametrize('kind', ('forward', 'reverse'))
def test_of_itself_it_is_0_and_the_teacher_has_no_gradient(kind):
  logits = np.random.default_rng(1).normal(size=(3, 6))
  for top_k in (0, 2):
    np.testing.assert_allclose(distillation.divergence(
        logits, logits, kind, top_k=top_k), 0, atol=1e-6)
    gradient = jax.grad(lambda t, k=top_k: jnp.sum(distillation.divergence(
        logits[::-1], t, kind, top_k=k)))(logits)
    np.testing.assert_array_equal(gradient, 0)


def test_logits_of_bfloat16_are_compared_in_float32():
  student, teacher = np.random.default_rng(2).normal(size=(2, 3, 6))
  half = [jnp.asarray(x, jnp.bfloat16) for x in (student, teacher)]
  got = distillation.divergence(*half, 'forward', temperature=3.)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, distillation.divergence(
      *(x.astype('f') for x in half), 'forward', temperature=3.), rtol=1e-6)


def test_a_token_that_one_rules_out_is_no_nan():
  sure = np.array([[0., -1e30, -1e30]], np.float32)
  for kind in ('forward', 'reverse'):
    value, gradient = jax.value_and_grad(lambda s, k=kind: jnp.sum(
        distillation.divergence(s, sure, k, top_k=1)))(np.zeros((1, 3), 'f'))
    assert np.isfinite(value) and np.isfinite(gradient).all()
