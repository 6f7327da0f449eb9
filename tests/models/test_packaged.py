"""Parameter files come back as they were, or say what is wrong with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax import errors
from r1jax import models
from r1jax.models import packaged


@pytest.fixture(name='path')
def _path(tmp_path):
  path = str(tmp_path / 'model.npz')
  packaged.save_params(path, tiny.config(), tiny.params())
  return path


def _refused(path, message, **switches):
  with pytest.raises(errors.ConfigError, match=message):
    packaged.load_params(path, tiny.config(**switches), tiny.params(**switches))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_round_trip(tmp_path, dtype):
  path = str(tmp_path / 'model.npz')
  config = tiny.config(param_dtype=dtype)
  params = tiny.params(param_dtype=dtype)
  packaged.save_params(path, config, params)
  loaded = packaged.load_params(path, config, params)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {
      jnp.dtype(dtype)}


def test_how_a_model_computes_may_differ(path):
  config = tiny.config(dtype='bfloat16', remat='full', max_len=32,
                       scan_layers=False, param_dtype='bfloat16')
  like = jax.eval_shape(models.build(config).init, jax.random.key(0))
  loaded = packaged.load_params(path, config, like)
  jax.tree.map(
      lambda got, saved: np.testing.assert_array_equal(
          got, saved.astype(jnp.bfloat16)), loaded, tiny.params())


def test_another_model_is_refused_by_the_field_that_differs(path):
  _refused(path, r'config.model.layers: expected 2, as in .*model.npz, '
           'received 3', layers=3)
  _refused(path, 'config.model.rope_theta: expected 10000.0', rope_theta=10.)
  _refused(path, 'config.model.qk_norm: expected False', qk_norm=True)


def test_what_is_no_parameter_file_is_refused(tmp_path):
  _refused(str(tmp_path / 'none.npz'), 'config.init_from: expected an existing')
  message = 'config.init_from: expected a parameter file of r1jax'
  for content in (b'', b'some text', b'PK\x03\x04 cut short'):
    path = tmp_path / 'other.npz'
    path.write_bytes(content)
    _refused(str(path), message)
  np.savez(path, weights=np.ones(3))
  _refused(str(path), message)
  np.save(open(path, 'wb'), np.ones(3))
  _refused(str(path), message)


def test_the_shipped_model_is_the_one_of_the_mini_configs():
  from experiments import common  # pylint: disable=g-import-not-at-top
  fields = common.mini_model().to_dict()
  config = dataclasses.replace(tiny.config(), **fields)
  model = models.build(config)
  params = packaged.load_params(
      'mini', config, jax.eval_shape(model.init, jax.random.key(0)))
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
