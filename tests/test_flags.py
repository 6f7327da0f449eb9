"""Overrides on the command line are refused by name, before absl sees them."""

import re
import sys

from absl import flags as absl_flags
from ml_collections import config_flags
import pytest

from r1jax import config as config_lib
from r1jax import errors
from r1jax import fields
from r1jax import flags
from r1jax import rewards as rewards_lib
from r1jax.data import preferences
from r1jax.data import sources
from r1jax.data import steps
from r1jax.rewards import score
from r1jax.stages import scoring

FILE = '''
import ml_collections
from ml_collections import config_dict
def get_config(arg='a'):
  return ml_collections.ConfigDict(dict(
      steps=1, lr=1e-3, live=True, name='x', top=config_dict.placeholder(int),
      untyped=None, shape=(1, 2), rl=dict(group=4, prompts=2),
      optim=dict(lr=.1),
      data=dict(task='x', options=dict(size=3)))).lock()
'''
R1_ZERO = '--config=experiments/r1_zero.py:mini'


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
    ('--config.untyped=1', 'config.untyped: has no declared type'),
    ('--config.data.options.size=many',
     "config.data.options.size: expected int, received 'many'"),
    ('--config.data.options.more', '--config.data.options.more: expected --c'),
    ('--config.data.options.a..b=1', '--config.data.options.a..b=1: expected'),
    ('--config.data.option.more=1', 'config.data.option.more: no such field'),
])
def test_a_wrong_override_names_field_and_remedy(spec, arg, message):
  with pytest.raises(errors.ConfigError) as caught:
    flags.check_overrides(['main', f'--config={spec}', arg])
  assert str(caught.value).startswith(message)
  assert '\n' not in str(caught.value)


def test_right_overrides_pass(spec):
  assert not flags.check_overrides([
      'main', '--config', spec, '--config.steps=3', '--config.lr=1',
      '--config.live', '--noconfig.live', '--config.rl.group', '8',
      '--config.name=any thing', '--config.shape=(3,4)', '--config.top=5',
      '--other=1', '--', '--config.not_mine=1'])


def test_the_value_after_a_space_is_checked(spec):
  with pytest.raises(errors.ConfigError, match="int, received 'x'"):
    flags.check_overrides(['main', f'--config={spec}', '--config.steps', 'x'])


def test_a_missing_file_names_the_nearest(spec):
  wrong = spec.replace('toy.py', 'tyo.py')
  with pytest.raises(errors.ConfigError, match='did you mean .*toy.py'):
    flags.check_overrides(['main', f'--config={wrong}'])


@pytest.fixture(name='parse')
def _parse(monkeypatch):
  """What flags.parse makes of a command line, with flags of its own."""
  def parse(*args):
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    absl_flags.DEFINE_integer('verbosity', -1, '', flag_values=values)
    monkeypatch.setattr(absl_flags, 'FLAGS', values)
    monkeypatch.setattr(sys, 'argv', ['main', *args])
    flags.parse(sys.argv)
    return values.config

  return parse


def test_options_of_a_data_source_are_added(spec, parse):
  config = parse(
      f'--config={spec}', '--config.steps=7', '--config.data.options.size=5',
      '--config.data.options.data_dir=/data/a.b', '--config.data.options.ab=.5',
      '--config.data.options.0.verifier=exact',
      '--config.data.options.0.tasks=("a", "b")')
  assert config.data.options.to_dict() == {
      'size': 5, 'data_dir': '/data/a.b', 'ab': .5,
      '0': {'verifier': 'exact', 'tasks': ('a', 'b')}}
  assert config.steps == 7 and config.data.options.is_locked


def test_an_option_of_two_types_is_refused_on_one_line(spec, parse, capsys):
  with pytest.raises(SystemExit):
    parse(f'--config={spec}', '--config.data.options.a=3',
          '--config.data.options.a.b=4')
  assert capsys.readouterr().err.startswith(
      'error: --config.data.options.a.b=4: ')


@pytest.mark.parametrize('args, field, value', [
    (['--config.rl.micro_batch=None'], 'rl.micro_batch', None),
    (['--config.rl.micro_batch', 'None'], 'rl.micro_batch', None),
    (['--config.rl.micro_batch=None', '--config.rl.micro_batch=8'],
     'rl.micro_batch', 8),
    (['--config.rl.micro_batch=8', '--config.rl.micro_batch=None'],
     'rl.micro_batch', None),
    (['--config.rl.kl_target=2', '--config.rl.kl_target=None'],
     'rl.kl_target', None),
    (['--config.init_from=None'], 'init_from', None),
    (['--config.init_from='], 'init_from', None),
    (['--config.eval.split', ''], 'eval.split', None),
    (['--config.data.task=None'], 'data.task', None),
    (['--config.rewards.judge.url='], 'rewards.judge.url', None),
    (['--config.rewards.language=None'], 'rewards.language', None),
    (['--config.name=None'], 'name', 'None'),  # is text, and never unset
    (['--config.data.template='], 'data.template', ''),
    (['--config.rl.group', '8', '--config.steps', '2'], 'steps', 2)])
def test_a_field_that_may_be_unset_is_by_none(parse, args, field, value):
  config = parse(R1_ZERO, *args)
  assert config_lib.flatten(config)[field] == value
  assert config.is_locked


def test_every_optional_field_of_every_type_can_be_unset(parse):
  pipeline = parse('--config=experiments/r1.py:mini')
  optional = [name for name, declared in fields.declared(pipeline)
              if declared.may_be_unset]
  kinds = {declared.get_type() for name, declared in fields.declared(pipeline)
           if name in optional}
  assert {str, int, float, tuple} <= kinds
  one_each = {re.sub(r'^stages\.\w+\.', '', name): name for name in optional}
  config = parse('--config=experiments/r1.py:mini', *(
      f'--config.{name}=None' for name in one_each.values()))
  leaves = config_lib.flatten(config)
  assert all(leaves[name] is None for name in one_each.values())


@pytest.mark.parametrize('arg, message', [
    ('--config.rl.group=None', "config.rl.group: expected int, received 'None'"),
    ('--config.optim.lr=None', "config.optim.lr: expected float"),
    ('--config.rl.micro_batch=', "config.rl.micro_batch: expected int"),
    ('--config.data.num_prompts=', 'config.data.num_prompts: expected int')])
def test_a_field_that_must_be_set_is_not_unset(arg, message):
  with pytest.raises(errors.ConfigError) as caught:
    flags.check_overrides(['main', R1_ZERO, arg])
  assert str(caught.value).startswith(message)


SFT = '--config=experiments/sft.py:mini'  # mini_writing, of size 4096
SUMS = '--config=experiments/r1_zero.py:smollm2'  # reasoning_gym:chain_sum
R1 = '--config=experiments/r1.py:mini'
OPTIONS = {'min_terms': 2, 'max_terms': 2, 'min_digits': 1, 'max_digits': 2}


@pytest.mark.parametrize('args, expected', [
    ([SFT, '--config.data.task=jsonl:FILE'], {}),
    ([SFT, '--config.steps=1'], {'size': 4096}),
    # The user's own option stays, and is refused where it is wrong.
    ([SFT, '--config.data.options.size=5', '--config.data.task=jsonl:FILE'],
     {'size': 5}),
    ([SFT, '--config.data.task=jsonl:FILE', '--config.data.options.size=4096'],
     {'size': 4096}),
    ([SFT, '--config.data.task', 'jsonl:FILE', '--config.data.options.prompt=q'],
     {'prompt': 'q'}),
    ([SUMS, '--config.data.task=reasoning_gym:leg_counting'], {}),
    ([SUMS, '--config.data.task=mini_reasoning'], {}),
    ([SUMS, '--config.data.task=reasoning_gym:chain_sum'], OPTIONS)])
def test_an_experiments_options_are_those_of_its_task(
    parse, capsys, args, expected):
  config = parse(*args)
  assert config.data.options.to_dict() == expected
  assert config.is_locked and config.data.options.is_locked
  told = 'config.data.task is another source' in capsys.readouterr().err
  assert told == (not expected or 'prompt' in expected)


@pytest.mark.parametrize('stage, task, expected', [
    ('judged', 'mini_general', {}),
    ('judged', 'mini_reasoning', {'verifier': 'judge'}),
    # Of a mixture by place: mini_writing, and mini_requests with an option.
    ('preferences', "(('mini_writing', 1.), ('jsonl:x', 1.))", {}),
    ('preferences', "(('jsonl:x', 1.), ('mini_requests', 1.))",
     {'1': {'harmful': False}}),
    ('preferences', "(('mini_requests', 1.),)", {})])
def test_so_they_are_in_each_stage_and_in_a_mixture(
    parse, stage, task, expected):
  config = parse(R1, f'--config.stages.{stage}.data.task={task}')
  assert config.stages[stage].data.options.to_dict() == expected


@pytest.mark.parametrize('one, other, same', [
    ('jsonl:a', 'jsonl:b', True), ('mmlu:a/*.csv', 'mmlu:b', True),
    ('drafts:jsonl:a', 'drafts:jsonl:b', True),
    ('mmlu:a', 'gpqa:a', False), ('drafts:jsonl:a', 'jsonl:a', False),
    ('reasoning_gym:a', 'reasoning_gym:b', False), ('tfds:a', 'tfds:b', False),
    ('my.py:a', 'my.py:b', False), ('my.data:a', 'my.data:b', False),
    ('mini_worked:long_en', 'mini_worked:short_en', False)])
def test_another_file_is_the_same_source(one, other, same):
  found = [flags._sources_by_place(task) for task in (one, other)]
  assert (found[0] == found[1]) == same


def test_sources_of_files_are_known_here_as_there():
  """Flags do not import sources, so that a command starts quickly."""
  tables = (sources.PROMPTS, sources.DOCUMENTS, sources.CONVERSATIONS,
            preferences.SOURCES, steps.SOURCES)
  known = {'tfds'}.union(*tables) - {sources.USER}
  of_files = {name for name in known if flags._sources_by_place(
      f'{name}:a') == flags._sources_by_place(f'{name}:b')}
  assert of_files == set(sources.FILES) < known


def test_options_of_a_file_stay_if_it_is_elsewhere(parse):
  """And those of a task that the experiment leaves to its user."""
  config = parse('--config=experiments/r1.py:paper',
                 '--config.stages.judged.data.task=jsonl:mine.jsonl')
  assert config.stages.judged.data.options.to_dict() == {'verifier': 'judge'}


def test_options_without_a_task_are_for_any(tmp_path, parse):
  (tmp_path / 'own.py').write_text(
      'from experiments import common\n'
      'from experiments import sections\n'
      'def get_config():\n'
      '  return common.base("lm", data=sections.texts(\n'
      '      None, options=dict(messages="said")))\n')
  config = parse(f'--config={tmp_path}/own.py', '--config.data.task=jsonl:FILE')
  assert config.data.options.to_dict() == {'messages': 'said'}


def test_reward_functions_and_their_weights_are_added(parse):
  config = parse(
      R1_ZERO, '--config.rewards.functions.brief=my_rewards.py:brief',
      '--config.rewards.weights.brief=.5')
  assert config.rewards.functions.to_dict() == {'brief': 'my_rewards.py:brief'}
  assert config.rewards.weights.brief == .5 and config.rewards.is_locked


@pytest.mark.parametrize('args, message', [
    (['--config.rewards.weights.brief=.5'],
     'config.rewards.weights.brief: no such field'),
    (['--config.rewards.functions.a=x.py:f', '--config.rewards.weights.b=1'],
     'config.rewards.weights.b: no such field'),
    (['--config.rewards.functions.a=x.py:f', '--config.rewards.weights.a=x'],
     "config.rewards.weights.a: expected float, received 'x'"),
    (['--config.rewards.functions.a'],
     '--config.rewards.functions.a: expected'),
    (['--config.rewards.functions.a.b=x.py:f'],
     '--config.rewards.functions.a.b=x.py:f: expected'),
])
def test_a_wrong_function_or_weight_is_refused(args, message):
  with pytest.raises(errors.ConfigError) as caught:
    flags.check_overrides(['main', R1_ZERO, *args])
  assert str(caught.value).startswith(message)


def test_an_experiment_works_from_any_folder(tmp_path, monkeypatch, parse):
  (tmp_path / 'own.py').write_text(
      'from experiments import r1_zero\n'
      'def get_config(arg="x"):\n'
      '  config = r1_zero.mini()\n'
      '  config.name = arg\n'
      '  return config.lock()\n')
  monkeypatch.chdir(tmp_path)
  assert parse('--config=own.py:a', '--config.steps=3').name == 'a'
  assert parse('--config', 'own.py', '--config.steps=3').steps == 3
  assert parse(R1_ZERO, '--config.steps=4').steps == 4
  with pytest.raises(errors.ConfigError, match='did you mean experiments/sft'):
    flags.check_overrides(['main', '--config=experiments/sf.py:mini'])


@pytest.mark.parametrize('text', [
    'raise SystemExit(0)', 'def get_config(arg=""):\n  raise SystemExit'])
def test_an_experiment_that_ends_the_program_is_an_error(tmp_path, text):
  (tmp_path / 'own.py').write_text(text)
  with pytest.raises(errors.ConfigError, match='^--config=.*own.py ends the '):
    flags.load_config(f'{tmp_path}/own.py')


def test_every_reward_can_be_weighed_from_the_command_line(parse):
  config = parse(
      R1_ZERO, '--config.rewards.weights.overlong=1',
      '--config.rewards.weights.repetition=.5',
      '--config.rewards.overlong_cache_tokens=40')
  config_lib.check(config, 1)
  assert set(config.rewards.weights) == set(score.NAMES)
  assert config.rewards.weights.overlong == 1.
  scorer = scoring.make_rule_scorer(
      config.rewards.to_dict(), config.rl.response_tokens)
  tokens = config.rl.response_tokens - 10
  record = dict(prompt='?', task='t', answer='1', verifier='exact')
  scores = scorer.score([record], [rewards_lib.Response('', tokens, True)])
  assert scores.parts['overlong'] == scores.total == [-30 / 40]
