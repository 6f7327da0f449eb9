"""A lack of memory is one line with the fields that help; other faults are not.
"""

import errno
import fnmatch
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import every_config
from experiments import dpo
from experiments import r1_zero
from experiments import reward_sections
from experiments import sft
from r1jax import config as config_lib
from r1jax import errors
from r1jax import fields
from r1jax.parallel import memory

HUGE = 1 << 46  # bytes, beyond any machine


def _of_a_program():
  jax.jit(lambda: jnp.ones((HUGE,), jnp.uint8))().block_until_ready()


def _of_numpy():
  np.ones((HUGE,), np.uint8)


def _of_a_process():
  raise OSError(errno.ENOMEM, 'Cannot allocate memory')


@pytest.mark.parametrize('fault', [_of_a_program, _of_numpy, _of_a_process])
def test_a_lack_of_memory_names_what_helps(fault):
  config = r1_zero.get_config('mini')
  with pytest.raises(errors.RunError, match='^out of memory: ') as caught:
    with memory.explained(config):
      fault()
  said = str(caught.value)
  assert '\n' not in said and '.;' not in said
  for field in ('rl.micro_batch', 'rl.sample_chunk', 'eval.batch'):
    assert f'a smaller config.{field}' in said
  assert 'lm.' not in said and 'judge' not in said  # there is none


@pytest.mark.parametrize('module, field', [
    (sft, 'lm.micro_batches'), (dpo, 'preference.micro_batches')])
def test_only_fields_that_the_stage_has_are_named(module, field):
  config = module.get_config('mini')
  with pytest.raises(errors.RunError) as caught:
    with errors.stage('one', config), memory.explained(config):
      raise MemoryError
  said, leaves = str(caught.value), config_lib.flatten(config)
  assert f'a larger config.stages.one.{field}' in said
  assert 'rl.' not in said and "'full' as config.stages.one.model.remat" in said
  for part in said.partition('what helps: ')[2].split(', '):
    assert part.split('config.stages.one.')[1] in leaves


def test_models_of_the_rewards_are_among_what_helps():
  config = r1_zero.get_config('mini')
  config.rewards.judge.init_from = 'mini'
  config.rewards.models = dict(fluency=reward_sections.reward_model(init_from='x'))
  with pytest.raises(errors.RunError) as caught, memory.explained(config):
    raise MemoryError
  for field in ('judge', 'models.fluency'):
    assert f'a smaller config.rewards.{field}.batch' in str(caught.value)


def test_a_field_with_its_last_value_is_not_named():
  config = r1_zero.get_config('mini')
  config.rl.update(micro_batch=1, cpu_threads=1, slots=1)
  config.model.remat = 'full'
  named = ' '.join(memory.smaller(config))
  assert 'config.rl.sample_chunk' in named and 'config.eval.batch' in named
  for field in ('rl.micro_batch', 'rl.cpu_threads', 'rl.slots', 'model.remat'):
    assert field not in named
  for module, section in ((sft, 'lm'), (dpo, 'preference')):
    config = module.get_config('mini')
    assert f'{section}.micro_batches' in ' '.join(memory.smaller(config))
    config[section].micro_batches = config[section].batch
    assert f'{section}.micro_batches' not in ' '.join(memory.smaller(config))


@pytest.mark.parametrize('backend, field, other', [
    ('cpu', 'rl.cpu_threads', 'optim.offload'),
    ('gpu', 'optim.offload', 'rl.cpu_threads')])
def test_threads_are_of_cpus_and_offloading_of_others(
    monkeypatch, backend, field, other):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  config = r1_zero.get_config('mini')
  assert config.rl.cpu_threads > 1 and not config.optim.offload
  named = ' '.join(memory.smaller(config))
  assert f'config.{field}' in named and f'config.{other}' not in named
  config.optim.offload = True
  assert 'optim.offload' not in ' '.join(memory.smaller(config))


# Sizes by which a stage learns otherwise: no one is advised to change them.
LEARNING = {'lm.batch', 'preference.batch', 'rl.mini_batches'}


def test_every_size_of_a_batch_or_a_chunk_is_known(monkeypatch):
  """A field that is declared as one is in the table, or changes the result."""
  found = {}
  for _, config in every_config.stages(every_config.every(monkeypatch)):
    found |= fields.declared(config)
  sizes = {name for name, field in found.items() if re.search(
      'batch|chunk|remat', name) or re.search(
          'at a time|at once|memory', field.meaning)}
  known = {name for pattern in memory._SMALLER
           for name in fnmatch.filter(sizes, pattern)}
  assert sizes - known == LEARNING
  assert all(fnmatch.filter(found, pattern) for pattern in memory._SMALLER)


@pytest.mark.parametrize('fault', [
    jax.errors.JaxRuntimeError('INTERNAL: a mistake'), OSError(28, 'full')])
def test_another_fault_keeps_its_own_words(fault):
  with pytest.raises(type(fault)) as caught:
    with memory.explained({}):
      raise fault
  assert caught.value is fault
