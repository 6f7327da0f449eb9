"""Every number of every section is finite and in range; something is to be done.

Of all experiments, in all variants, all sections of all stages.
"""

import math
import re

import ml_collections
import numpy as np
import pytest

import every_config
from experiments import common
from experiments import distill
from experiments import ppo
from experiments import pretrain
from experiments import r1_zero
from experiments import reward_model
from experiments import reward_sections
from experiments import sections
from r1jax import config as config_lib
from r1jax import errors
from r1jax import fields
from r1jax import flags
from r1jax import stages
from r1jax.data import sources


def _fields():
  """One stage for each number that some stage has, by the field's name."""
  with pytest.MonkeyPatch.context() as patch:
    configs = every_config.every(patch)
  found = {}
  for _, config in every_config.stages(configs):
    for field, declared in fields.declared(config):
      if declared.get_type() in (int, float):
        name = re.sub(r'^(tests|collect|rewards\.(?:models|tasks))\.\w+',
                      r'\1.*', field)
        found.setdefault(name, (config, field, declared))
  return found


FIELDS = _fields()


def _refused(config, field, check=config_lib.check_fields):
  with pytest.raises(errors.ConfigError) as caught:
    check(config)
  assert caught.value.field == field and '\n' not in str(caught.value)
  return caught.value.message


def _copy(config):
  return config.copy_and_resolve_references().unlock()


@pytest.mark.parametrize('section', sorted({
    name.rpartition('.')[0] for name in FIELDS}))
def test_no_number_is_infinite_or_none(section):
  """Each float of each section, and integers beyond 32 bits."""
  for name, (config, field, declared) in FIELDS.items():
    if name.rpartition('.')[0] == section:
      known = declared.get()
      for value in {float: (math.nan, math.inf, -math.inf, 1e300, 1e-300),
                    int: (2**40,)}[declared.get_type()]:
        declared.set(value)
        message = _refused(config, field)
        assert repr(value) in message
        assert ('a finite number' in message) == (not math.isfinite(value))
      declared.set(known)
      config_lib.check_fields(config)


@pytest.mark.parametrize('text', ['1e-400', '-3.5E-999', '.001e-350'])
def test_a_number_that_is_read_as_0_is_refused(text):
  argv = ['main', '--config=experiments/r1_zero.py:mini']
  with pytest.raises(errors.ConfigError, match=(
      'config.eval.temperature: expected a number that is not taken for 0')):
    flags.check_overrides([*argv, f'--config.eval.temperature={text}'])
  flags.check_overrides([*argv, '--config.eval.temperature=0.0e5'])


def test_a_long_value_is_not_shown_whole():
  with pytest.raises(errors.ConfigError) as caught:
    flags.check_overrides(['main', '--config=experiments/r1_zero.py:mini',
                           '--config.steps=' + 'x' * 5000])
  assert len(str(caught.value)) < 400


@pytest.mark.parametrize('field, value', [
    ('rewards.weights.accuracy', math.nan), ('rewards.weights.mine', math.inf),
    ('rewards.weights.mine', 1e39), ('rewards.weights.mine', '1'),
    ('rewards.weights.mine', True), ('rewards.weights.mine', 1e-7),
    ('rewards.weights.accuracy', -1e7), ('rewards.tasks.sums', None),
    ('rewards.tasks.sums.mine', -math.inf),
    ('data.options.size', math.nan), ('data.options.0.deep', -math.inf),
    ('data.options.rates', (1., (2., math.nan))),
    ('data.options.named', ({'a': math.inf},)),
    ('data.task', (('a', 1.), ('b', math.inf))),
    ('model.rope_scaling.factor', math.nan), ('model.rope_theta', 1e39),
    ('rules', (('batch', math.nan),)), ('rl.temperature', np.float32(np.inf))])
def test_nor_is_one_that_a_user_names(field, value):
  config = _copy(r1_zero.mini())
  config_lib.check_fields(config)
  *outer, name = field.split('.')
  section = config
  for part in outer:
    if part not in section:
      section[part] = {}
    section = section[part]
  if name in section:
    del section[name]
  section[name] = value
  _refused(config, field)


@pytest.mark.parametrize('field, values', {
    'rl.temperature': (0., -1., 1e-5, 1e5), 'eval.temperature': (-1., 1e-6),
    'optim.lr': (0., 1e-12), 'optim.b1': (1., .999999999), 'optim.eps': (2.,),
    'optim.clip_norm': (-1., 1e-9), 'optim.final_fraction': (1.5, -.1),
    'optim.router_bias_rate': (-1., 2.), 'lora.alpha': (0., -32.),
    'rewards.timeout_seconds': (0., 1e6, .001), 'optim.weight_decay': (1e30,), 'rl.beta': (-.1,),
    'rl.clip_low': (0.,), 'rl.clip_high': (-.2,),
    'rl.dual_clip': (1., 1 + 1e-12), 'rl.kl_target': (0.,),
    'eval.top_p': (0., 1.5), 'eval.top_k': (-1, 2**31), 'critic.lam': (1.01,),
    'critic.gamma': (-.5,), 'critic.value_clip': (0.,),
    'critic.lora.alpha': (0.,), 'critic.optim.b2': (.99999999,)}.items())
def test_a_range_is_kept_also_as_float32(field, values):
  for value in values:
    config = ppo.mini('mini').unlock()
    config.update_from_flattened_dict({field: value})
    _refused(config, field)


@pytest.mark.parametrize('field, values', {
    'eval.temperature': (0., 1e-4, 1e4), 'optim.clip_norm': (0., .5),
    'rl.temperature': (.1, 2.), 'optim.b1': (0., .999), 'seed': (2**32 - 1,),
    'eval.top_k': (2**31 - 1,), 'rewards.weights.mixed': (-3.,),
    'rl.beta': (0.,), 'rl.clip_low': (10.,), 'optim.eps': (1e-30, 1.),
    'optim.lr': (1e-10, 1e3)}.items())
def test_what_is_in_range_is_not_refused(field, values):
  for value in values:
    config = ppo.mini('mini').unlock()
    config.update_from_flattened_dict({field: value})
    config_lib.check_fields(config)


@pytest.mark.parametrize('rate', [0., -1., math.nan, math.inf, '1', True])
def test_each_task_of_a_mixture_has_a_rate(rate):
  with pytest.raises(errors.ConfigError, match='config.data.task: .*above 0'):
    sources.parts((('a', 1.), ('b', rate)), {})
  assert sources.parts((('a', 1), ('b', .5)), {})


def _check(config):
  config_lib.check(config, 1)


@pytest.mark.parametrize('make, changes, field', [
    (r1_zero.mini, {'lora.rank': 4, 'lora.targets': ()}, 'lora.targets'),
    (r1_zero.mini, {'lora.rank': 4, 'lora.targets': (1,)}, 'lora.targets'),
    (lambda: ppo.mini('mini'), {'critic.lora.rank': 1,
                                'critic.lora.targets': ()},
     'critic.lora.targets'),
    (pretrain.mini, {'steps': 0, 'eval.split': None}, 'steps'),
    (pretrain.mini, {'steps': 0, 'eval.split': ''}, 'steps'),
    (lambda: distill.mini(teaching='forward'), {'distill.weight': 1., 'init_from': 'mini',
                    'distill.init_from': 'mini'}, 'distill.init_from'),
    (r1_zero.mini, {'rl.kl': 'none', 'rl.measure_kl': True}, 'rl.measure_kl'),
    (r1_zero.mini, {'rl.kl': 'none', 'rl.ref_every_steps': 5},
     'rl.ref_every_steps'),
    (r1_zero.mini, {'rl.beta': 0., 'rl.ref_every_steps': 5},
     'rl.ref_every_steps'),
    (lambda: reward_model.mini('mini'), {
        'preference.loss': 'pointwise', 'preference.margin': 1.},
     'preference.margin')])
def test_a_run_with_nothing_to_do_is_refused(make, changes, field):
  config = make().unlock()
  config.update_from_flattened_dict(changes)
  _refused(config, field, _check)


@pytest.mark.parametrize('make, changes', [
    (r1_zero.mini, {'lora.rank': 0, 'lora.targets': ()}),
    (r1_zero.mini, {'lora.rank': 1, 'lora.targets': ('attention/q',)}),
    (r1_zero.mini, {'steps': 0}),  # it evaluates
    (pretrain.mini, {'steps': 0, 'eval.split': 'heldout'}),
    (pretrain.mini, {'eval.split': None}),
    (r1_zero.mini, {'rl.beta': 0., 'rl.measure_kl': True,
                    'rl.ref_every_steps': 5}),
    (lambda: distill.mini(teaching='forward'), {'distill.weight': .9, 'init_from': 'mini',
                    'distill.init_from': 'mini'}),
    (lambda: reward_model.mini('mini'), {'preference.margin': 1.})])
def test_one_with_something_to_do_is_not(make, changes):
  config = make().unlock()
  config.update_from_flattened_dict(changes)
  _check(config)


@pytest.mark.parametrize('name', ['collect', 'tests', 'stages'])
def test_nothing_is_no_collection_no_test_and_no_pipeline(name):
  config = ml_collections.ConfigDict({
      'stage': {'stages': 'pipeline', 'tests': 'evaluate'}.get(name, name),
      name: {}})
  _refused(config, name, (
      stages.check if name == 'stages' else config_lib.check_parts))


def test_the_penalty_of_length_begins_within_it_in_every_stage():
  """Also in one that only samples, and in the rewards of a test."""
  config = common.base(
      'sample', rl=sections.sampling(response_tokens=100),
      rewards=reward_sections.rewards(overlong_cache_tokens=101))
  _refused(config, 'rewards.overlong_cache_tokens', _check)
  config = common.base(
      'evaluate', rl=sections.lengths(response_tokens=100),
      rewards=reward_sections.rewards(), tests=dict(a=sections.test(
          sections.questions('mini_reasoning'), 4,
          overlong_cache_tokens=101)))
  _refused(config, 'tests.a.rewards.overlong_cache_tokens', _check)
