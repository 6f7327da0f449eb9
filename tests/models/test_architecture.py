"""Architectures: published numbers of parameters, and what is refused."""

import dataclasses
import math

import jax
import pytest

import tiny
from r1jax import errors
from r1jax import models
from r1jax.models import architecture
from r1jax.models import hf_config


@pytest.mark.parametrize('name, parameters', [
    ('smollm2_135m', 134_515_008), ('qwen2.5_32b', 32_763_876_352),
    ('deepseek_v3', 671_026_419_200)])
def test_the_number_of_parameters(name, parameters):
  params = jax.eval_shape(
      models.build(architecture.PRESETS[name]).init, jax.random.key(0))
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize('name', architecture.PRESETS)
def test_a_config_json_says_all_of_it(name):
  config = architecture.PRESETS[name]
  read = hf_config.from_json(hf_config.to_json(config), 'config.json')
  computed = {field: getattr(config, field) for field in architecture.FREE}
  assert dataclasses.replace(read, **computed) == config


@pytest.mark.parametrize('switches, message', [
    (dict(layers=0), 'model.layers: expected at least 1, received 0'),
    (dict(vocab=1), 'model.vocab: expected at least 2, received 1'),
    (dict(max_len=1), 'model.max_len: expected at least 2'),
    (dict(window=0), 'model.window: expected at least 1'),
    (dict(global_every=0), 'model.global_every: expected at least 1'),
    (dict(attention_chunk=0), 'model.attention_chunk: expected at least 1'),
    (dict(head_size=5), 'model.head_size: expected an even number'),
    (dict(latent=architecture.Latent(4, 4, 3, 3, 3), head_size=6),
     'model.latent.rope_size: expected an even number'),
    (dict(remat='half'), 'model.remat: .*half'),
    (dict(activation='relu'), 'model.activation: .*relu'),
    (dict(dtype='float16'), 'model.dtype: .*float16'),
    (dict(param_dtype='int8'), 'model.param_dtype: .*int8'),
    (dict(rope_scaling=architecture.RopeScaling('ntk', 2.)),
     'model.rope_scaling.kind: .*ntk')])
def test_a_value_out_of_bounds_is_refused(switches, message):
  tiny.config().check()
  with pytest.raises(errors.ConfigError, match=message):
    tiny.config(**switches).check()
