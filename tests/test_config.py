"""Every refusal names the field, and a valid config passes."""

import ast
import itertools
import pathlib
import re

import ml_collections
import pytest

from experiments import common
from experiments import machine_sections
from experiments import mcts
from experiments import ppo
from experiments import preferences
from experiments import r1_zero
from experiments import reward_sections
from experiments import sections
from r1jax import config as config_lib
from r1jax import errors
from r1jax import resuming


def _config(**changes):
  """R1-Zero's config in the sizes that the cases below speak of."""
  config = r1_zero.mini()
  config.model.update(heads=6, kv_heads=2, max_len=256)
  config.data.num_prompts = 100
  config.rl.update(prompts=16, group=16, micro_batch=128, packed_rows=None,
                   prompt_tokens=96, response_tokens=128)
  config.optim.lr = 1e-4
  for field, value in changes.items():
    *sections, leaf = field.split('__')
    node = config
    for section in sections:
      node = node[section]
    node[leaf] = value
  return config


def _refused(device_count=1, **changes):
  with pytest.raises(errors.ConfigError) as caught:
    config_lib.check(_config(**changes), device_count)
  message = str(caught.value)
  assert '\n' not in message
  return message


def test_the_shipped_configs_pass():
  config_lib.check(r1_zero.get_config('mini'), 1)
  config_lib.check(r1_zero.get_config('mini'), 8)
  config_lib.check(r1_zero.get_config('paper'), 32)
  config_lib.check(r1_zero.get_config('paper'), 512)  # with 32 prompts an update


@pytest.mark.parametrize('changes, field', [
    (dict(rl__group=1), 'config.rl.group'),
    (dict(rl__temperature=0.0), 'config.rl.temperature'),
    (dict(rl__kl='k1'), 'config.rl.kl'),
    (dict(rl__prompts=15, rl__mini_batches=2), 'config.rl.prompts'),
    (dict(rl__micro_batch=96), 'config.rl.micro_batch'),  # of 256 responses
    (dict(rl__response_tokens=200), 'config.rl.response_tokens'),  # of 256
    (dict(rl__dual_clip=1.0), 'config.rl.dual_clip'),
    (dict(rl__prompts=128), 'config.data.num_prompts'),  # of 100
    (dict(rewards__overlong_cache_tokens=500),
     'config.rewards.overlong_cache_tokens'),  # of 128
    (dict(rewards__overlong_cache_tokens=0),
     'config.rewards.overlong_cache_tokens'),
    (dict(seed=-1), 'config.seed'),
    (dict(seed=2**32), 'config.seed'),
    (dict(data__seed=-1), 'config.data.seed'),
    (dict(eval__batch=0), 'config.eval.batch'),
    (dict(eval__problems=0), 'config.eval.problems'),
    (dict(eval__samples=0), 'config.eval.samples'),
    (dict(eval__top_p=0.0), 'config.eval.top_p'),
    (dict(eval__top_p=1.1), 'config.eval.top_p'),
    (dict(eval__temperature=-1.0), 'config.eval.temperature'),
    (dict(optim__lr=-1e-4), 'config.optim.lr'),
    (dict(optim__lr=float('nan')), 'config.optim.lr'),
    (dict(optim__b2=1.0), 'config.optim.b2'),
    (dict(rewards__timeout_seconds=0.0), 'config.rewards.timeout_seconds'),
    (dict(rewards__workers=0), 'config.rewards.workers: expected at least 1'),
])
def test_an_impossible_value_names_its_field(changes, field):
  assert _refused(**changes).startswith(field)


@pytest.mark.parametrize('changes, field, choice', [
    (dict(rl__advantage='grop'), 'config.rl.advantage', 'grpo'),
    (dict(rl__std='populaton'), 'config.rl.std', 'population'),
    (dict(rl__aggregate='token-mean'), 'config.rl.aggregate', 'token_mean'),
    (dict(optim__schedule='cosin'), 'config.optim.schedule', 'cosine'),
    (dict(model__remat='ful'), 'config.model.remat', 'full'),
    (dict(rewards__answer='tag'), 'config.rewards.answer', 'tags'),
    (dict(vocab__kind='sentencepeice'), 'config.vocab.kind', 'sentencepiece'),
])
def test_an_unknown_choice_names_the_nearest(changes, field, choice):
  message = _refused(**changes)
  assert message.startswith(field)
  assert message.endswith(f'did you mean {choice}?')


def test_a_nucleus_without_a_bound_is_refused_while_training():
  config_lib.check(_config(rl__top_k=50, rl__top_p=.9), 1)
  assert _refused(rl__top_p=.9).startswith(
      'config.rl.top_p: expected 1, or a config.rl.top_k')
  assert _refused(rl__top_k=513).startswith('config.rl.top_k')


def test_k1_is_fine_in_the_reward():
  config_lib.check(_config(rl__kl='k1', rl__kl_in='reward'), 1)


def test_a_micro_batch_may_be_part_of_a_group():
  config_lib.check(_config(rl__micro_batch=8), 1)
  config_lib.check(_config(rl__micro_batch=8), 8)
  config_lib.check(_config(rl__prompts=6, rl__micro_batch=24), 8)


@pytest.mark.parametrize('changes, field', [
    (dict(rl__micro_batch=4), 'micro_batch'),
    (dict(rl__mini_batches=16, rl__group=4, rl__micro_batch=None),
     'mini_batches'),
    (dict(rl__prompts=4, rl__group=4, rl__mini_batches=4, rl__micro_batch=8,
          rl__packed_rows=1), 'mini_batches'),
    (dict(rl__prompts=20, rl__group=3), 'prompts')])
def test_responses_divide_over_the_devices(changes, field):
  message = _refused(8, **changes)
  assert message.startswith(f'config.rl.{field}: expected ')
  assert 'mesh data*fsdp*expert' in message


def test_responses_divide_over_the_devices_that_sample():
  """8 prompts of 3 over 16 devices, of which 8 split a batch in training."""
  made = dict(
      mesh__context=2, rl__prompts=8, rl__group=3, rl__micro_batch=None,
      sampling_rules=(('batch', ('data', 'fsdp', 'expert', 'context')),
                      ('length', None)))
  assert _refused(16, **made).startswith('config.rl.prompts: expected a mult')
  config_lib.check(_config(**made | dict(sampling_rules=())), 16)
  config_lib.check(_config(**made | dict(rl__group=4)), 16)


@pytest.mark.parametrize('field, value, message', [
    ('attention_chunk', 0, 'config.model.attention_chunk: expected at least 1'),
    ('global_every', 0, 'config.model.global_every: expected at least 1'),
    ('activation', 'glu', "config.model.activation: .*'glu'; did you mean gelu[?]"),
])
def test_a_field_that_a_model_may_leave_out_is_checked(field, value, message):
  config = _config()
  config.model = common.mini_model(**{field: value})
  with pytest.raises(errors.ConfigError, match=message):
    config_lib.check(config, 1)


def test_what_the_tensor_axis_splits_it_divides():
  config = _config(mesh=dict(data=1, fsdp=1, expert=1, tensor=3, context=1))
  model = dict(heads=6, kv_heads=3, vocab=1023, mlp=447)
  config.model.update(model)
  config_lib.check(config, 3)
  for field, changes in dict(
      heads=dict(heads=8, kv_heads=8), kv_heads=dict(kv_heads=2),
      vocab=dict(vocab=1024), mlp=dict(mlp=448)).items():
    config.model.update(model | changes)
    with pytest.raises(errors.ConfigError) as caught:
      config_lib.check(config, 3)
    assert str(caught.value).startswith(
        f'config.mesh.tensor: expected a divisor of model.{field} = ')
  config.model.update(model | dict(kv_heads=2))
  config.rules = tuple((name, None if name == 'kv_heads' else axis)
                       for name, axis in machine_sections.RULES)
  config_lib.check(config, 3)


@pytest.mark.parametrize('axis', ['expert', 'context'])
def test_a_mesh_axis_without_a_rule_is_refused(axis):
  mesh = dict(data=1, fsdp=1, expert=1, tensor=1, context=1) | {axis: 8}
  rules = tuple(rule for rule in machine_sections.RULES
                if axis not in config_lib.axis_names(rule[1]))
  assert _refused(8, mesh=mesh, rules=rules).startswith(
      f'config.mesh.{axis}: expected 1: no rule of config.rules uses this axis')
  rules = *rules, ('experts', axis)
  config_lib.check(_config(mesh=mesh, rules=rules), 8)


def test_a_rule_that_is_no_pair_is_refused():
  for rule in ('mlp', ('mlp',), 1, (1, 2), ('batch', 3), ('batch', 0),
               ('mlp', False), ('mlp', ('fsdp', 1)),
               (('mlp', 'heads'), 'fsdp'), {'mlp': 1, 'heads': 2}):
    assert _refused(1, rules=(*machine_sections.RULES, rule)).startswith(
        'config.rules: expected pairs')


def test_a_language_model_batch_divides_the_mesh():
  config = common.base('lm', steps=1, lm=sections.lm(
      batch=12, length=128, micro_batches=3))
  config_lib.check(config, 4)
  with pytest.raises(errors.ConfigError, match='config.lm.batch.*= 24'):
    config_lib.check(config, 8)
  config.lm.micro_batches = 5
  with pytest.raises(errors.ConfigError, match='config.lm.*_batches.*= 5'):
    config_lib.check(config, 1)


def test_an_evaluation_batch_divides_the_mesh():
  config = _config(eval__batch=12, rl__micro_batch=128)
  config_lib.check(config, 4)
  with pytest.raises(errors.ConfigError, match='config.eval.batch.*= 8'):
    config_lib.check(config, 8)
  config.eval.samples = 2  # 24 responses
  config_lib.check(config, 8)


def test_mesh_sizes():
  sizes = config_lib.mesh_sizes
  assert sizes(dict(data=2, fsdp=-1), 8) == dict(
      data=2, fsdp=4, expert=1, tensor=1, context=1)
  for mesh, field in [
      (dict(data=3, fsdp=-1), 'config.mesh.data'),
      (dict(data=2, tensor=2), 'config.mesh.data'),
      (dict(data=-1, fsdp=-1), 'config.mesh.fsdp'),
      (dict(tensor=0), 'config.mesh.tensor'),
      (dict(tensr=2), 'config.mesh.tensr: no such axis; did you mean '
       'config.mesh.tensor'),
  ]:
    with pytest.raises(errors.ConfigError) as caught:
      sizes(mesh, 8)
    assert str(caught.value).startswith(field)


def test_sections_that_are_absent_are_not_checked():
  config_lib.check(ml_collections.ConfigDict(dict(stage='bench')), 1)


def test_what_a_resumed_run_may_change():
  old = _config().to_dict()
  def fields(**changes):
    return resuming.changed(old, _config(**changes).to_dict())

  assert not fields()
  assert not fields(log__rollouts_every_steps=5, checkpoint__keep=9)
  assert not fields(rules=(*machine_sections.RULES, ('mine', None)))
  assert not fields(steps=1000)
  [field] = fields(steps=1)
  assert field.startswith('config.steps')
  [field] = fields(optim__lr=2e-4)
  assert field == 'config.optim.lr (0.0001 there, 0.0002 here)'
  schedule, steps = fields(optim__schedule='cosine', steps=1000)
  assert schedule.startswith('config.optim.schedule')
  assert steps.startswith('config.steps')


@pytest.mark.parametrize('old, new, fields', [
    (dict(stage='lm', eval=dict(batch=8)), dict(stage='lm'), []),
    (dict(stage='rl', eval=dict(batch=8)), dict(stage='rl'), ['eval.batch']),
    (dict(stage='lm', eval=dict(batch=8, split='x')), dict(stage='lm'),
     ['eval.split']),
    (dict(stage='lm', eval=dict(batch=8)), dict(
        stage='lm', eval=dict(batch=9)), ['eval.batch']),
    (dict(stage='evaluate', tests=dict(a=dict(data=dict(split='x', seed=1)))),
     dict(stage='evaluate'), ['tests.a.data.seed']),
    (dict(stage='lm', name='a', names=1), dict(stage='lm', name='b'),
     ['names']),
    # What older versions had not, and what is unset however that is said.
    (dict(stage='rl'), dict(stage='rl', optim=dict(master_weights=False)), []),
    (dict(stage='rl'), dict(stage='rl', optim=dict(master_weights=True)),
     ['optim.master_weights']),
    (dict(stage='lm', eval=dict(split='')), dict(
        stage='lm', eval=dict(split=None)), []),
    (dict(stage='lm', a=0), dict(stage='lm', a=None), ['a']),
])
def test_only_what_a_kind_never_read_may_be_gone(old, new, fields):
  assert [text.partition(' ')[0] for text in resuming.changed(old, new)] == [
      f'config.{field}' for field in fields]


def test_an_unknown_variant_names_the_nearest():
  with pytest.raises(errors.ConfigError, match='did you mean :mini'):
    r1_zero.get_config('mni')


@pytest.mark.parametrize('changes, match', [
    ({'rl.advantage': 'grpo'}, 'rl.advantage'),
    ({'rl.group': 1, 'rl.sampling_rounds': 2}, 'rl.group'),
    ({'rl.kl_target': 5., 'rl.beta': 0.}, 'rl.beta'),
    ({'rl.kl_target': 5., 'rl.kl': 'none'}, 'rl.kl:'),
    ({'rl.kl_target': 5., 'rl.kl_in': 'loss', 'rl.kl': 'k3'}, 'rl.kl_in'),
    ({'critic.optim.schedule': 'linear'}, 'critic.optim.schedule'),
    ({'critic.optim.b1': 1.}, 'critic.optim.b1'),
    ({'critic.lam': 1.5}, 'critic.lam'),
    ({'steps': None}, 'config.steps'),
])
def test_what_ppo_cannot_do_is_refused(changes, match):
  config = ppo.get_config('mini')
  config_lib.check(config, 1)
  config.update_from_flattened_dict(changes)
  with pytest.raises(errors.ConfigError, match=match):
    config_lib.check(config, 1)


def _objectives():
  """[(algorithm, words of its fields)] of the table in r1jax/README.md."""
  text = pathlib.Path(config_lib.__file__).with_name('README.md').read_text(
      'utf-8')
  table = text.partition('| algorithm |')[2].partition('\n\n')[0]
  rows = [row.split(' | ') for row in table.splitlines()[2:]]
  assert rows
  return [(name.removeprefix('| '), words) for name, _, words, _ in rows]


# What the letters of the table stand for, and names that are no fields of rl.
_LETTERS = dict(NAME='prm', C=8, w=.5)
_BESIDES = {'critic', 'target_tokens', 'rewards.models'}


def _value(word):
  try:
    return ast.literal_eval(word)
  except ValueError:
    return _LETTERS.get(word, word)


@pytest.mark.parametrize('name, words', _objectives())
def test_each_objective_of_the_table_is_a_config_that_passes(name, words):
  leaf = lambda field: field if '.' in field else f'rl.{field}'
  known = {*config_lib.flatten(_config())}
  assert '=' in words, name
  for way in words.split('; or '):
    said = ' '.join(re.findall('`([^`]+)`', way)).split()
    set_ = [word.split('=') for word in said if '=' in word]
    others = {word for word in said if '=' not in word}
    assert {*map(leaf, others - _BESIDES)} <= known
    for values in itertools.product(*(v.split(r'\|') for _, v in set_)):
      config = _config().unlock()
      config.rewards.models.prm = reward_sections.reward_model(init_from='a')
      if 'critic' in others:
        config.critic = sections.critic()
      config.lock().update_from_flattened_dict({
          leaf(field): _value(word) for (field, _), word in zip(set_, values)})
      if values == ('k1', 'loss'):  # as the row says
        with pytest.raises(errors.ConfigError, match='rl.kl'):
          config_lib.check(config, 1)
      else:
        config_lib.check(config, 1)


def test_prompts_to_sample_divide_over_the_mesh():
  config = preferences.get_config('mini')
  config_lib.check(config, 8)
  config.rl.update(prompts=6, group=4)  # 24 responses
  config_lib.check(config, 8)
  config.rl.group = 2
  with pytest.raises(errors.ConfigError, match='rl.prompts: .*rl.group.* = 4,'):
    config_lib.check(config, 8)


def test_prompts_to_search_for_divide_over_the_mesh():
  config = mcts.search('mini', None, group=8)
  config_lib.check(config, 8)
  config.rl.prompts = 4
  with pytest.raises(errors.ConfigError, match='rl.prompts: .*tree.* = 8,'):
    config_lib.check(config, 8)


@pytest.mark.parametrize('field, unset, value', [
    ('slots', None, 64), ('cpu_threads', 1, 2)])
def test_what_a_tree_does_not_read_is_not_set(field, unset, value):
  config = mcts.search('mini', None, group=8)
  config.rl[field] = value
  with pytest.raises(errors.ConfigError, match=f'^config.rl.{field}: expected '
                     f'{unset}, where config.search.simulations is not 0'):
    config_lib.check(config, 1)
  config.search.simulations = 0
  config_lib.check(config, 1)


def test_an_error_of_a_second_section_names_that_section_s_fields():
  with pytest.raises(errors.ConfigError) as caught:
    with errors.section('data', at='tests.a.data'):
      raise errors.ConfigError(
          'data.shots', 'too many beside config.data.template, config.database')
  assert str(caught.value) == (
      'config.tests.a.data.shots: too many beside config.tests.a.data.template,'
      ' config.database')
  with pytest.raises(errors.ConfigError, match='^config.rl.group: config.data'):
    with errors.section('data', at='tests.a.data'):
      raise errors.ConfigError('rl.group', 'config.data is too short')
