"""Rewards of lengths beside their papers' equations."""

import numpy as np
import pytest

from experiments import reward_sections
from r1jax import errors
from r1jax.rewards import lengths
from r1jax.stages import model_rewards


def _rows(tokens, right):
  return [dict(task='t', tokens=n, accuracy=float(ok), reward=float(ok))
          for n, ok in zip(tokens, right, strict=True)]


def test_kimi_by_hand():
  assert lengths.kimi([10, 20, 30], [0, 1, 1]) == [0., 0., -.5]
  assert lengths.kimi([10, 20, 30], [1, 0, 0]) == [.5, 0., -.5]
  assert lengths.kimi([7, 7], [1, 0]) == [0., 0.]
  # A judge's or a tolerant verifier's share of right is no right answer.
  assert lengths.kimi([10, 30], [.5, 1]) == [0., -.5]


def test_l1_max_by_hand():
  for tokens, expected in ((100, .7), (300, .5), (900, 0.), (1, .799)):
    assert lengths.l1_max(tokens, 300, .001, 1.) == pytest.approx(expected)
    assert lengths.l1_max(tokens, 300, .001, 0.) == 0
  assert lengths.l1_max(1, 3000, .001, 1.) == 1.  # no more than right


@pytest.mark.parametrize('rule, weight, expected', [
    ('kimi', .5, [1.25, 0., .75, 1.]),
    ('l1_exact', .01, [.9, -.1, .9, 1.]),
    ('l1_max', 1., [1.6, 0., 1.4, 1.5])])
def test_each_group_has_its_own_lengths(rule, weight, expected):
  """Two prompts with two responses each; the second's budget is another."""
  rewards = reward_sections.rewards(
      weights=dict(length_rule=weight), length_rule=rule, length_slope=.01)
  records = [{'row': {'target_tokens': 20}}, {'row': {'target_tokens': 40}}]
  rows = _rows([10, 30, 50, 40], [1, 0, 1, 1])
  if rule == 'kimi':
    rows = _rows([10, 30, 50, 45], [1, 0, 1, 1])
    expected = [1.25, -.25, .75, 1.25]
  reward = model_rewards.length_reward(rewards)
  reward.check(records)
  assert reward.apply(records, rows) == {}
  np.testing.assert_allclose([row['reward'] for row in rows], expected)
  np.testing.assert_allclose(
      [row['reward'] - row['accuracy'] for row in rows],
      [weight * row['length_rule'] for row in rows])


def test_without_a_weight_there_is_none():
  assert model_rewards.length_reward(reward_sections.rewards()) is None
  of_task = model_rewards.length_reward(reward_sections.rewards(
      tasks={'t': dict(length_rule=2.)}))
  rows = _rows([1, 3], [1, 1])
  of_task.apply([{}], rows)
  assert [row['reward'] for row in rows] == [2., 0.]


def test_a_budget_is_in_the_config_or_in_every_row():
  make = lambda **values: model_rewards.length_reward(reward_sections.rewards(
      weights=dict(length_rule=1.), length_rule='l1_max', **values))
  make(target_tokens=5).check([{}, {'row': {}}])
  for row in ({}, {'row': {}}, {'row': {'target_tokens': 0}},
              {'row': {'target_tokens': '9'}}):
    with pytest.raises(errors.ConfigError, match='rewards.target_tokens'):
      make().check([{'row': {'target_tokens': 9}}, row])
