"""Parameter files come back as they were, or say what is wrong with them."""

import dataclasses
import json
import random

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


def _rewritten(path, **changes):
  """The file with other arrays, or without those that are None."""
  with np.load(path) as file:
    arrays = dict(file)
  np.savez(path, **{name: x for name, x in (arrays | {
      key.replace('__', '/'): value for key, value in changes.items()}).items()
                    if x is not None})
  return path


@pytest.mark.parametrize('changes, words', [
    (dict(final_norm__scale=None), ['final_norm/scale', 'none']),
    (dict(final_norm__scale=np.ones(3, np.float32)), ['final_norm', '(3,)']),
    (dict(final_norm__scale=np.ones((1, 16), np.float32)), ['(1, 16)']),
    (dict(final_norm__scale=np.ones(16, np.int64)), ['final_norm', 'int64']),
    (dict(final_norm__scale=np.zeros(16, 'V4')), ['final_norm', 'V4']),
    (dict(another=np.ones(3)), ['another'])])
def test_arrays_are_those_of_the_model(path, changes, words):
  assert tiny.config().width == 16
  with pytest.raises(errors.ConfigError) as refusal:
    packaged.load_params(_rewritten(path, **changes), tiny.config(),
                         tiny.params())
  assert all(word in str(refusal.value) for word in [path, *words])


@pytest.mark.parametrize('fields', [
    [], 3, 'x', {}, {'vocab': 3, 'unheard_of': 1}, dict(layers=0),
    dict(heads=0), dict(kv_heads=3), dict(activation='relu')])
def test_a_config_is_checked_when_it_is_read(path, fields):
  if isinstance(fields, dict) and fields and 'vocab' not in fields:
    fields = dataclasses.asdict(tiny.config()) | fields
  _rewritten(path, config=np.array(json.dumps(fields)))
  for read in (packaged.read_config, lambda path: packaged.load_params(
      path, tiny.config(), tiny.params())):
    with pytest.raises(errors.ConfigError, match='config.init_from: .*model.n'):
      read(path)


def test_any_change_of_bytes_is_read_or_refused_in_one_line(tmp_path):
  path, rng = str(tmp_path / 'model.npz'), random.Random(0)
  config, params = tiny.config(), tiny.params()
  np.savez(path, config=json.dumps(dataclasses.asdict(config)))
  with open(path, 'rb') as file:
    whole = file.read()
  packaged.save_params(path, config, params)
  for number in range(200):
    data = bytearray(whole)
    if number % 3:
      data[rng.randrange(len(data))] = rng.choice([0, 1, 34, 255])
    else:
      data = data[:rng.randrange(len(data))]
    with open(path, 'wb') as file:
      file.write(data)
    try:
      packaged.read_config(path)
    except errors.ConfigError as refusal:
      assert path in str(refusal) and '\n' not in str(refusal)


def test_the_shipped_model_is_the_one_of_the_mini_configs():
  from experiments import common  # pylint: disable=g-import-not-at-top
  fields = common.mini_model().to_dict()
  config = dataclasses.replace(tiny.config(), **fields)
  model = models.build(config)
  params = packaged.load_params(
      'mini', config, jax.eval_shape(model.init, jax.random.key(0)))
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
