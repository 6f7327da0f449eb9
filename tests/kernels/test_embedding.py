"""r1jax/kernels/embedding.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import embedding

VOCAB, WIDTH = 50, 8
TOKENS = np.array([[3, 3, 0], [49, 3, 7]])


@pytest.mark.parametrize('form', ['_scattered', '_multiplied'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_of_equal_tokens_are_summed_in_float32(form, dtype):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, WIDTH)), dtype)
  expected = np.zeros((VOCAB, WIDTH), np.float32)
  for token, row in zip(TOKENS.ravel(), np.asarray(x, np.float32)):
    expected[token] += row
  summed = getattr(embedding, form)(VOCAB, jnp.asarray(TOKENS).ravel(), x)
  assert summed.dtype == jnp.float32
  np.testing.assert_allclose(summed, expected, rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_rows_and_gradient_are_those_of_indexing(dtype):
  table = jnp.asarray(
      np.random.default_rng(1).normal(size=(VOCAB, WIDTH)), jnp.float32)
  found, gradient = jax.value_and_grad(
      lambda t: jnp.sum(jnp.sin(embedding.look_up(t, TOKENS, dtype))))(table)
  expected, other = jax.value_and_grad(
      lambda t: jnp.sum(jnp.sin(t[TOKENS].astype(dtype))))(table)
  assert found == expected and gradient.dtype == table.dtype
  np.testing.assert_array_equal(gradient, other)


def test_a_tpu_adds_no_rows_one_by_one():
  def loss(table):
    return jnp.sum(embedding.look_up(table, TOKENS, 'bfloat16') ** 2)

  lower = jax.jit(jax.grad(loss)).trace(jnp.ones((VOCAB, WIDTH))).lower
  assert 'scatter' in lower(lowering_platforms=('cpu',)).as_text()
  assert 'scatter' not in lower(lowering_platforms=('tpu',)).as_text()
