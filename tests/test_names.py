"""A name that a user gives takes no other's place: it is apart, or refused."""

import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from experiments import common
from experiments import machine_sections
from experiments import r1
from experiments import reward_sections
from experiments import sections
from r1jax import config as config_lib
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.parallel import sharding
from r1jax.pipeline import graph
from r1jax.rewards import filters
from r1jax.rewards import functions
from r1jax.rewards import names
from r1jax.rewards import score
from r1jax.stages import collect
from r1jax.stages import evaluation
from r1jax.stages import evaluate
from r1jax.stages import model_rewards
from r1jax.stages import rl
from r1jax.stages import sample
from r1jax.stages import scoring

TAKEN = sorted({*names.TAKEN, *score.NAMES})
NO_NAMES = ('a/b', '../up', 'a.b', '', 'a b', '.hidden', 'sft.old1', 'a:b',
            '{split}', '-a')


def _ours():
  """What r1jax itself calls columns, rewards' metrics and results."""
  record = dict(task='t', prompt='?', answer='1', source='s', verifier='exact')
  parts = {name: np.zeros(1, 'f') for name in score.NAMES}
  rows = scoring._log_rows(
      [record], [0], [rewards_lib.Response('1', 2, True)],
      rewards_lib.Scores(np.zeros(1, 'f'), parts, {}))
  rows = sample.marked(filters.Rules(), rows)
  metrics = rl.rollout_metrics(np.zeros(2, 'f'), np.ones(2, int), 2)
  results = evaluation.results(rows, rows, 1)
  return {*rows[0], *results, rewards_lib.GenerativeJudge.name, *(
      name.removeprefix('reward/') for name in metrics
      if name.startswith('reward/'))}


def test_every_name_of_ours_is_taken():
  assert _ours() <= set(TAKEN)
  assert {'reward', 'id', 'response', 'mean', 'pass@1', 'accuracy', 'step',
          'dropped', 'verifier'} <= set(TAKEN)


@pytest.mark.parametrize('name', TAKEN)
def test_no_reward_is_called_as_ours(name):
  match = f'config.rewards.models.{name}: the name is taken' if (
      '@' not in name) else 'config.rewards.models: expected names of'
  rewards = reward_sections.rewards(models={name: reward_sections.reward_model()})
  with pytest.raises(errors.ConfigError, match=match):
    model_rewards.load(rewards, None, machine_sections.RULES, 0)
  with pytest.raises(errors.ConfigError,
                     match=match.replace('models', 'functions')):
    scoring.make_rule_scorer(
        reward_sections.rewards(functions={name: 'f.py:f'}).to_dict(), 8)


def test_a_function_and_a_model_have_two_names():
  rewards = reward_sections.rewards(
      functions={'mine': 'f.py:f'}, models={'mine': reward_sections.reward_model()})
  with pytest.raises(errors.ConfigError,
                     match='rewards.functions.mine: the name is taken'):
    scoring.make_rule_scorer(rewards.to_dict(), 8)


@pytest.mark.parametrize('name', NO_NAMES)
def test_a_name_is_a_word(name):
  for field, refused in (
      ('rewards.functions',
       lambda: functions.Functions({name: 'f.py:f'}, 1, 1.)),
      ('rewards.models', lambda: names.check('rewards.models', [name])),
      ('tests', lambda: config_lib.check_names('tests', [name])),
      # A ConfigDict has no field with a dot.
      ('stages', lambda: _nodes({name.replace('.', '/'): {}}))):
    with pytest.raises(errors.ConfigError, match=(
        f"config.{field}: expected names of letters, digits")):
      refused()


def test_names_in_use_are_words():
  config_lib.check_names('tests', ['math-500', 'aime_2024', '24', 'häuser'])


def test_tests_and_parts_are_named_so(tmp_path):
  """Each is a file or a result of its own."""
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  config = r1.measured('mini', common.mini_model())
  config.tests = {'a/b': config.tests.reasoning}
  with pytest.raises(errors.ConfigError, match='config.tests: expected names'):
    evaluate.build(config, mesh, str(tmp_path))
  config = common.base('collect', collect={'a/b': sections.part('jsonl:x')})
  with pytest.raises(errors.ConfigError, match='config.collect: expected nam'):
    collect.build(config, mesh, str(tmp_path))


def _nodes(stages, models=()):
  config = ml_collections.ConfigDict(dict(
      seed=None, models=dict.fromkeys(models, 'mini')))
  config.stages = ml_collections.ConfigDict(stages)
  return graph.nodes(config, pathlib.Path('work'))


@pytest.mark.parametrize('name', ['split', 'prompt', 'task'])
def test_what_stands_in_braces_is_no_stage(name):
  """'{prompt}' of a template would become the workdir of a stage."""
  for made, field in ((({name: {}},), f'stages.{name}'),
                      (({'sft': {}}, [name]), f'models.{name}')):
    with pytest.raises(errors.ConfigError, match=f'{field}: the name is taken'):
      _nodes(*made)


def test_a_model_is_not_called_as_a_stage():
  with pytest.raises(errors.ConfigError, match='models.sft: the name is taken'):
    _nodes({'sft': {}}, ['sft'])
  assert [node.name for node in _nodes({'sft': {}}, ['base'])] == ['sft']


def test_columns_of_a_function_are_apart_from_all_else():
  """Whatever it calls them: they are the function's, NAME/COLUMN."""
  scores = rewards_lib.Scores(
      np.ones(1, 'f'), {'accuracy': np.ones(1, 'f'), 'mine': np.ones(1, 'f')},
      {}, [{f'mine/{column}': 7. for column in TAKEN}])
  row = scores.row(0)
  assert row['reward'] == row['accuracy'] == row['mine'] == 1.
  assert len(row) == 3 + len(TAKEN)
  assert not any('/' in name for name in TAKEN)
