"""A policy measured: every test by its own prompts and rewards."""

import pytest

from experiments import common
from experiments import r1
from experiments import sections
from r1jax import errors
from r1jax import stages
from r1jax.parallel import sharding
from r1jax.stages import evaluation
from r1jax.training import files
from r1jax.training import loop


def _run(config, workdir):
  stage = stages.build(config, sharding.make_mesh(config.mesh), str(workdir))
  return loop.train(stage, stages.loop_settings(config), str(workdir),
                  config.to_dict())


def _config():
  config = r1.measured('mini', common.mini_model())
  config.rl.update(response_tokens=24, sample_chunk=24)
  config.eval.batch = 8
  config.tests = dict(
      reasoning=sections.test(
          sections.questions('mini_reasoning'), 6, form='answer'),
      general=sections.test(sections.questions('mini_general'), 5))
  return config


def test_each_test_has_its_figures_and_responses(tmp_path, capsys):
  config = _config()
  summary = _run(config, tmp_path)
  after = summary['after']
  assert set(after) == {'reasoning', 'general'} and summary['before'] is None
  assert after['reasoning']['n'] == 6 and after['general']['n'] == 5
  assert 'greedy' not in after['general']
  assert after['general']['verifier'] == dict(
      errors=0, timeouts=0, refused=0, restarts=0)
  tests = files.read_rows(tmp_path / 'rollouts.jsonl')
  rows = [row for row in tests if row['test'] == 'reasoning']
  assert [row['task'] for row in rows[:2]] == ['chain_sum', 'leg_counting']
  # The base speaks in tags now and then, which is no summary.
  assert sum(row['format'] for row in rows) > 0
  assert len(tests) - len(rows) == 5
  words = capsys.readouterr().out
  assert 'verifier' not in words and '\nreasoning' in words
  assert (tmp_path / 'report.html').exists()


def test_a_tests_rewards_go_before_the_stages():
  config = r1.measured('mini', common.mini_model())
  config.rewards.weights.language = .5
  test = sections.test(sections.questions('mini_general'), 3, answer='tags',
                       weights=dict(format=0.))
  rewards = evaluation.rewards_of_test(config.rewards, test.rewards)
  assert (rewards['answer'], rewards['form']) == ('tags', 'summary')
  weights = config.rewards.weights.to_dict()
  assert weights['format'] == 1. and rewards['weights'] == weights | dict(
      format=0.)
  with pytest.raises(errors.ConfigError, match='did you mean answer'):
    sections.test(sections.questions('mini_general'), 3, anwser='tags')


def test_mistakes_name_their_test(tmp_path):
  config = _config()
  config.tests.general.data.options.task = 'x'
  with pytest.raises(errors.ConfigError,
                     match='config.tests.general.data.options'):
    _run(config, tmp_path)
  with pytest.raises(errors.ConfigError, match='config.init_from'):
    config.init_from = None
    _run(config, tmp_path)
