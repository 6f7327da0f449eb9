"""The drawbacks' pipeline: one recipe a seed, the same tests for every model."""

import pytest

from experiments import drawbacks
from r1jax import config as config_lib


@pytest.fixture(name='stages', scope='module')
def _stages():
  return drawbacks.get_config().stages.to_dict()


def test_the_seeds_recipes_differ_in_the_seed_alone(stages):
  for name, stage in stages.items():
    if not name.startswith('seed'):
      assert stage['seed'] == 0
      continue
    seed, _, rest = name.partition('_')
    assert stage['seed'] == int(seed[4:])
    for other in drawbacks.SEEDS:
      twin = config_lib.flatten(stages[f'seed{other}_{rest}'])
      assert {
          field for field, value in config_lib.flatten(stage).items()
          if twin[field] != (value.replace(f'{seed}_', f'seed{other}_')
                             if isinstance(value, str) else value)
      } <= {'seed', 'name'}


def test_every_model_takes_the_same_tests(stages):
  measured = {name: stage for name, stage in stages.items()
              if 'measured' in name}
  assert len(measured) == 2 + 6 * len(drawbacks.SEEDS)
  first = stages['measured_base']
  for name, stage in measured.items():
    assert stage['init_from'] == '{' + name.replace('measured_', '') + '}'
    for section in ('tests', 'rl', 'eval', 'rewards'):
      assert stage[section] == first[section], name
  # The same problems in all languages, and with examples before them.
  for test in ('zh', 'it', 'shots_1', 'shots_2'):
    other, english = (first['tests'][name]['data'] for name in (test, 'en'))
    assert {field for field in english if english[field] != other[field]} <= {
        'options', 'shots', 'examples'}


def test_no_stage_is_paid_for_the_third_language_or_for_repairs(stages):
  """Nor has it seen examples in a prompt: the base alone has read of them."""
  asked = set()
  for name, stage in stages.items():
    if name.startswith('base') or 'measured' in name:
      continue
    for field, value in config_lib.flatten(stage).items():
      last = field.split('.')[-1]
      assert value != 'it' and 'repair' not in str(value), (name, field)
      if last == 'languages' and 'options' in field:
        asked.update(value)
        assert tuple(value) == drawbacks.PAID
      assert last != 'shots' or value == 0
  assert asked == {'en', 'zh'}
