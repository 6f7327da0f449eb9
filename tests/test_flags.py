"""Overrides on the command line are refused by name, before absl sees them."""

import pytest

from r1jax import config as config_lib
from r1jax import flags

FILE = '''
import ml_collections
from ml_collections import config_dict
def get_config(arg='a'):
  return ml_collections.ConfigDict(dict(
      steps=1, lr=1e-3, live=True, name='x', top=config_dict.placeholder(int),
      untyped=None, shape=(1, 2), rl=dict(group=4, prompts=2),
      optim=dict(lr=.1)))
'''


@pytest.fixture(name='spec')
def _spec(tmp_path):
  path = tmp_path / 'toy.py'
  path.write_text(FILE)
  return f'{path}:a'


@pytest.mark.parametrize('arg, message', [
    ('--config.rl.grop=3',
     'config.rl.grop: no such field; did you mean config.rl.group?'),
    ('--config.rll.group=3',
     'config.rll.group: no such field; did you mean config.rl.group?'),
    ('-config.stesp=3',
     'config.stesp: no such field; did you mean config.steps?'),
    ('--config.steps.more=3', 'config.steps.more: no such field'),
    ('--noconfig.lve', 'config.lve: no such field; did you mean config.live?'),
    ('--config.rl=3', 'config.rl: a section, set one of its fields'),
    ('--config.steps=many', "config.steps: expected int, received 'many'"),
    ('--config.steps=1.5', "config.steps: expected int, received '1.5'"),
    ('--config.top=x', "config.top: expected int, received 'x'"),
    ('--config.lr=fast', "config.lr: expected float, received 'fast'"),
    ('--config.live=maybe', "config.live: expected bool, received 'maybe'"),
    ('--config.untyped=1', 'config.untyped: has no type'),
])
def test_a_wrong_override_names_field_and_remedy(spec, arg, message):
  with pytest.raises(config_lib.ConfigError) as caught:
    flags.check(['main', f'--config={spec}', arg])
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


def test_right_overrides_pass(spec):
  flags.check(['main', '--config', spec, '--config.steps=3', '--config.lr=1',
               '--config.live', '--noconfig.live', '--config.rl.group', '8',
               '--config.name=any thing', '--config.shape=(3,4)',
               '--config.top=5', '--other=1', '--', '--config.not_mine=1'])


def test_the_value_after_a_space_is_checked(spec):
  with pytest.raises(config_lib.ConfigError, match="int, received 'x'"):
    flags.check(['main', f'--config={spec}', '--config.steps', 'x'])


def test_a_missing_file_names_the_nearest(spec):
  wrong = spec.replace('toy.py', 'tyo.py')
  with pytest.raises(config_lib.ConfigError, match='did you mean .*toy.py'):
    flags.check(['main', f'--config={wrong}'])
