"""Published shapes have their published numbers of parameters."""

import dataclasses
import math

import jax
import pytest

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
