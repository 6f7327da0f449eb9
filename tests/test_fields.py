"""A field keeps its bound and its meaning, whatever happens to its config."""

import copy

import ml_collections
import pytest

from experiments import common
from r1jax import config as config_lib
from r1jax import errors
from r1jax import fields


def _config():
  return ml_collections.ConfigDict(dict(
      a=dict(lr=fields.field(.1, '>= 0, < 1', 'a rate')),
      kind=fields.field('x', ('x', 'yes'), 'of two'),
      top=fields.optional(int, 'may be unset', '>= 1')))


def _declared(config):
  return {name: (field.get(), field.bound, field.meaning)
          for name, field in fields.declared(config)}


def test_a_field_stays_one_through_overrides_locks_and_copies():
  config = _config().lock()
  config.a.lr, config.top = .5, 3
  config.update_from_flattened_dict({'kind': 'yes'})
  config.a.update(lr=0)  # as ConfigDict has it, an int becomes a float
  wanted = {'a.lr': (0., '>= 0, < 1', 'a rate'),
            'kind': ('yes', ('x', 'yes'), 'of two'),
            'top': (3, '>= 1', 'may be unset')}
  assert _declared(config) == wanted
  other = copy.deepcopy(config)
  other.a.lr = .25
  assert _declared(config) == wanted
  assert _declared(other) == wanted | {
      'a.lr': (.25, '>= 0, < 1', 'a rate')}
  assert _declared(ml_collections.ConfigDict(config.to_dict())) == {}


def test_only_what_may_be_unset_is():
  config = _config()
  config.top = None
  with pytest.raises(TypeError, match='this field cannot be None'):
    config.a.lr = None
  with pytest.raises(TypeError):
    config.a.lr = 'fast'


@pytest.mark.parametrize('changes, message', [
    ({'a.lr': -1.}, 'config.a.lr: expected at least 0, received -1.0'),
    ({'a.lr': 1.}, 'config.a.lr: expected less than 1, received 1.0'),
    ({'a.lr': float('nan')}, 'config.a.lr: expected a finite number, received nan'),
    ({'top': 0}, 'config.top: expected at least 1, received 0'),
    ({'kind': 'yse'}, "config.kind: expected one of x, yes; received 'yse'; did you mean yes?"),
])
def test_a_value_out_of_bounds_is_named(changes, message):
  config = _config()
  config_lib.check_fields(config)
  config.update_from_flattened_dict(changes)
  with pytest.raises(errors.ConfigError) as caught:
    config_lib.check_fields(config)
  assert str(caught.value) == message


def test_a_stage_is_given_what_it_has_and_nothing_else():
  for changes, word in ((dict(optm={}), 'optim'), (dict(eval=dict(bach=2)),
                                                   'batch')):
    with pytest.raises(errors.ConfigError, match=word):
      common.base('rl', **changes)
  with pytest.raises(errors.ConfigError, match='lr: no such field'):
    common.base('sample', lr=1.)
