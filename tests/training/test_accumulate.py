"""However a batch is cut, loss and gradient are those of the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.training import accumulate

PARAMS = {'w': jnp.array([0.3, -0.7, 1.1]), 'b': jnp.array(0.2)}


def _batch(rows=8):
  """Rows of unequal numbers of tokens; what is masked is huge."""
  rng = np.random.default_rng(0)
  mask = np.arange(5) < rng.integers(0, 6, (rows, 1))
  x = rng.normal(size=(rows, 5, 3))
  return {'x': np.where(mask[..., None], x, 1e4).astype('f'), 'mask': mask}


def _loss(params, batch):
  value = jnp.sin(batch['x'] @ params['w'] + params['b'])
  total = lambda x: jnp.sum(jnp.where(batch['mask'], x, 0.))
  count = jnp.sum(batch['mask']).astype(jnp.float32)
  return (total(value ** 2), count), {
      'value': (total(value), count), 'rows': (jnp.float32(len(value)), 1.)}


def _plain(params, batch):
  (value, count), _ = _loss(params, batch)
  return value / count


@pytest.mark.parametrize('micro_batches', [1, 2, 4, 8])
def test_micro_batches_change_nothing(micro_batches):
  batch = _batch()
  counts = accumulate.split(batch, micro_batches)['mask'].sum((1, 2))
  assert micro_batches == 1 or len(set(counts.tolist())) > 1
  grads, figures = jax.jit(functools.partial(accumulate.gradients, _loss))(
      PARAMS, accumulate.split(batch, micro_batches))
  loss, expected = jax.value_and_grad(_plain)(PARAMS, batch)
  tiny.assert_near(grads, expected)
  np.testing.assert_allclose(figures['loss'], loss, rtol=1e-5)
  _, others = _loss(PARAMS, batch)
  np.testing.assert_allclose(
      figures['value'], others['value'][0] / others['value'][1], rtol=1e-5)
  np.testing.assert_allclose(figures['rows'], 8 / micro_batches)


@pytest.mark.parametrize('micro_batches', [1, 2])
def test_gradients_are_float32_whatever_the_parameters_are(micro_batches):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
  grads, _ = accumulate.gradients(
      _loss, half, accumulate.split(_batch(), micro_batches))
  assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {
      jnp.dtype(jnp.float32)}


def test_gradients_of_bfloat16_parameters_are_summed_in_float32():
  def loss(params, batch):
    return (jnp.sum(params * batch), jnp.float32(1.)), {}
  rows = jnp.array([256., 1., 1., 1.], jnp.bfloat16)  # 257 is none
  grad, _ = accumulate.gradients(
      loss, jnp.ones((), jnp.bfloat16), accumulate.split(rows, 4))
  assert grad == 259 / 4


def test_a_mean_of_means_would_be_another_loss():
  """So that the test above can fail."""
  batch = _batch()
  halves = accumulate.split(batch, 2)
  means = [_plain(PARAMS, jax.tree.map(lambda x, i=i: x[i], halves))
           for i in range(2)]
  assert abs(np.mean(means) - _plain(PARAMS, batch)) > 1e-3


@pytest.mark.parametrize('known', [True, False])
def test_a_loss_is_traced_once(known):
  """Whether or not the number of micro-batches is known meanwhile."""
  traced = []
  def loss(*args):
    traced.append(args)
    return _loss(*args)
  def gradients(params, batches, count):
    return accumulate.gradients_of(
        loss, params, 4 if known else count,
        functools.partial(accumulate.one_of, batches))
  jax.jit(gradients)(PARAMS, accumulate.split(_batch(), 4), np.int32(4))
  assert len(traced) == 1


def test_a_batch_without_tokens_has_no_gradient():
  batch = _batch() | {'mask': np.zeros((8, 5), bool)}
  grads, figures = accumulate.gradients(_loss, PARAMS,
                                        accumulate.split(batch, 2))
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, 0)
  assert figures['loss'] == 0


def test_split_takes_every_so_many_th_row():
  rows = accumulate.split({'a': np.arange(6)}, 2)
  np.testing.assert_array_equal(rows['a'], [[0, 2, 4], [1, 3, 5]])
  np.testing.assert_array_equal(accumulate.join(rows)['a'], np.arange(6))
