"""Architectures: published numbers of parameters, and what is refused."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

import tiny
from experiments import common
from r1jax import errors
from r1jax import fields
from r1jax import models
from r1jax.models import architecture
from r1jax.models import hf_config
from r1jax.models import presets


@pytest.mark.parametrize('name, parameters', [
    ('smollm2_135m', 134_515_008), ('qwen2.5_0.5b', 494_032_768),
    ('qwen2.5_1.5b', 1_543_714_304),
    ('qwen2.5_math_1.5b', 1_543_714_304), ('qwen2.5_7b', 7_615_616_512),
    ('qwen2.5_math_7b', 7_615_616_512), ('qwen2.5_14b', 14_770_033_664),
    ('qwen2.5_32b', 32_763_876_352), ('llama3.1_8b', 8_030_261_248),
    ('llama3.3_70b', 70_553_706_496), ('deepseek_v3', 671_026_419_200)])
def test_the_number_of_parameters(name, parameters):
  params = jax.eval_shape(
      models.build(presets.PRESETS[name]).init, jax.random.key(0))
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize('name', presets.PRESETS)
def test_a_config_json_says_all_of_it(name):
  config = presets.PRESETS[name]
  read = hf_config.from_json(hf_config.to_json(config), 'config.json')
  computed = {field: getattr(config, field) for field in architecture.FREE}
  assert dataclasses.replace(read, **computed) == config


@pytest.mark.parametrize('switches, message', [
    (dict(layers=0), 'model.layers: expected at least 1, received 0'),
    (dict(vocab=1), 'model.vocab: expected at least 2, received 1'),
    (dict(max_len=1), 'model.max_len: expected at least 2'),
    (dict(rms_eps=0.), 'model.rms_eps: expected more than 0, received 0'),
    (dict(width=2**31), 'model.width: expected less than 2147483648'),
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
     'model.rope_scaling.kind: .*ntk'),
    (dict(rope_scaling=architecture.RopeScaling('llama3', 2., high_freq=1.)),
     'model.rope_scaling.high_freq: expected more than low_freq = 1'),
    (dict(rope_scaling=architecture.RopeScaling('yarn', 2.), rope_theta=1.),
     'model.rope_theta: expected more than 1 for yarn'),
    (dict(moe=architecture.Experts(4, 1, 8, active_groups=2)),
     'model.moe.active_groups: expected at most moe.groups = 1'),
    (dict(window=3, local_layers=(True,)), 'model.local_layers: .*of 2 layers'),
    (dict(local_layers=(True, False)), 'model.local_layers: .*model.window'),
    (dict(window=3, local_layers=(1, 0)), 'model.local_layers: .*true and f'),
    (dict(rope_scaling=4.), 'model.rope_scaling: expected a section')])
def test_a_value_out_of_bounds_is_refused(switches, message):
  tiny.config().check()
  with pytest.raises(errors.ConfigError, match=message):
    tiny.config(**switches).check()


def _sections():
  full = tiny.config(
      latent=architecture.Latent(4, 4, 2, 2, 4),
      moe=architecture.Experts(4, 1, 8), window=3, local_layers=(True, False),
      rope_scaling=architecture.RopeScaling('yarn', 2.))
  full.check()
  return full, [(full, '', None), *(
      (getattr(full, name), f'{name}.', name)
      for name in ('latent', 'moe', 'rope_scaling'))]


def test_every_field_has_a_type_and_every_number_is_finite():
  full, sections = _sections()
  values = ('2', [1], {}, float('nan'), float('inf'), -1, 10 ** 400)
  for section, prefix, name in sections:
    for field in dataclasses.fields(section):
      kind = architecture.type_of(type(section), field.name)
      for value in (*values, True, 2.5, None):
        if (value is True and kind is bool or kind is str and value == '2'
            or value == 2.5 and kind is float
            or value == -1 and field.name == 'lora_scale'
            or value is None and kind is not field.type):
          continue
        wrong = dataclasses.replace(section, **{field.name: value})
        config = dataclasses.replace(full, **{name: wrong}) if name else wrong
        with pytest.raises(errors.ConfigError) as caught:
          config.check()
        assert caught.value.field == f'model.{prefix}{field.name}', value


def test_a_configuration_in_json_comes_back():
  full, _ = _sections()
  said = json.loads(json.dumps(dataclasses.asdict(full)))
  assert architecture.from_fields(said) == full
  for wrong, name in (([1], 'model'), (said | dict(moe=5), 'model.moe'),
                      (said | dict(latent=[1]), 'model.latent')):
    with pytest.raises(errors.ConfigError) as caught:
      architecture.from_fields(wrong)
    assert caught.value.field == name


def test_every_bound_is_of_a_field_and_every_choice_is_computed():
  """Bounds are written once, in fields.MODEL; config.model has the same."""
  known = {field.name for kind in (
      architecture.Config, architecture.Latent, architecture.Experts,
      architecture.RopeScaling) for field in dataclasses.fields(kind)}
  assert fields.MODEL.keys() < known
  assert set(fields.MODEL['activation']) == architecture.ACTIVATIONS.keys()
  for name, value in (('silu', .7310586), ('gelu', .8411920),
                      ('exact_gelu', .8413447)):
    assert abs(architecture.ACTIVATIONS[name](1.) - value) < 1e-6
  assert set(fields.MODEL['remat']) == architecture.REMAT.keys()
  section = common.model(rms_eps=1e-6, heads=4, remat='none', tied=True)
  bounds = {name: field.bound for name, field in fields.declared(section)}
  assert bounds == dict(
      rms_eps='> 0', heads='>= 1', remat=('none', 'full', 'dots'), tied='')


def test_what_float32_rounds_is_no_difference():
  """As a GGUF file has a factor, within a section, too."""
  one, same, other = (tiny.config(
      rms_eps=x * 1e-5, rope_scaling=architecture.RopeScaling('linear', x))
                      for x in (1.1, float(np.float32(1.1)), 1.2))
  assert architecture.difference(one, same) is None
  assert architecture.difference(one, other)[0] == 'rope_scaling'
