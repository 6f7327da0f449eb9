"""GRPO with process supervision: rewards of steps reach the right tokens."""

import jax
import numpy as np
import pytest

import tiny_rl
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.stages import scoring


class Process(rewards_lib.ProcessReward):
  """A step is a number; its chance is its size, of 30."""

  def __init__(self):
    super().__init__('prm', lambda task: 0., None, None, cut='lines',
                     combination='min', max_len=1, batch=1)

  def steps(self, text):
    words = text.split(' ')
    return words[:1] + [f' {word}' for word in words[1:]] if text else []

  def score(self, prompts, responses):
    return [[int(step) / 30 for step in steps] for steps in responses], 0


class Nothing:
  """No reward but that of steps."""

  def score(self, records, responses):
    zero = np.zeros(len(responses), np.float32)
    return rewards_lib.Scores(zero, {'accuracy': zero}, {})


def _run(**changes):
  prm = Process()
  return tiny_rl.Run(models=[prm], process=prm, **changes)


def _experience(run):
  state = run.init()
  rollout, batch = run.learner.sample(state, 0)
  scored = run.learner.score(rollout, batch)
  return scored, run.learner.experience(state, scored)[0]


def _plain(rollout):
  """The advantages of steps, of all tokens, in a plain loop."""
  tokens, mask = map(np.asarray, (rollout.tokens, rollout.mask))
  expected = np.zeros(tokens.shape)
  for first in range(0, len(tokens), tiny_rl.GROUP):
    rows = range(first, first + tiny_rl.GROUP)
    steps = {n: [token / 30 for token, there in zip(tokens[n], mask[n])
                 if there and token != 1] for n in rows}
    every = sum(steps.values(), [])
    for n in rows:
      for t in range(tokens.shape[1]):
        # The last step's end is the response's, its end token included.
        later = steps[n][t:] if t < len(steps[n]) or not mask[n, t] else (
            steps[n][-1:])
        expected[n, t] = sum((x - np.mean(every)) / (np.std(every) + 1e-6)
                             for x in later)
  return expected


def test_a_token_has_the_rewards_of_the_steps_that_end_at_it_or_later():
  scored, experience = _experience(_run(scorer=Nothing()))
  tokens, mask = map(np.asarray, (
      scored.rollout.tokens, scored.rollout.mask))
  expected = _plain(scored.rollout)
  np.testing.assert_allclose(experience.advantage, expected, atol=1e-5)
  assert np.any(expected[mask & (tokens == 1)])
  assert np.any(expected)
  assert scored.steps.end.sum() == sum(
      len(row['step_ends']) for row in scored.rows)


def test_the_advantages_of_responses_are_added():
  _, steps = _experience(_run(scorer=Nothing()))
  _, both = _experience(_run())
  _, outcome = _experience(tiny_rl.Run())
  np.testing.assert_allclose(
      both.advantage, steps.advantage + outcome.advantage, atol=1e-5)


def test_responses_that_were_cut_count_in_their_group_with_their_steps():
  """Rewards of responses and of steps: both are in mean and std."""
  run = _run(mask_truncated=True)
  state = run.init()
  scored = run.learner.score(*run.learner.sample(state, 0))
  finished = np.arange(len(scored.reward)) % 3 > 0
  experience, _ = run.learner.experience(
      state, scored._replace(finished=finished))
  reward = scored.reward.reshape(-1, tiny_rl.GROUP)
  outcome = (reward - reward.mean(1, keepdims=True)) / (
      reward.std(1, keepdims=True) + 1e-6)
  expected = _plain(scored.rollout) + outcome.reshape(-1, 1)
  np.testing.assert_array_equal(
      np.asarray(experience.rollout.mask).any(1), finished)
  np.testing.assert_allclose(
      experience.advantage[finished], expected[finished], atol=1e-4)


def test_it_learns_what_the_steps_reward():
  run = _run(scorer=Nothing(), epochs=2)
  _, history = tiny_rl.steps(run, 12)
  reward = [metrics['process/reward'] for metrics in history]
  assert np.mean(reward[-3:]) > np.mean(reward[:3]) + .1
  assert all(metrics['process/steps'] > 0 for metrics in history)


def test_a_mesh_changes_nothing():
  _, one = _experience(_run())
  _, many = _experience(_run(sizes=dict(data=4, tensor=2)))
  np.testing.assert_allclose(many.advantage, one.advantage, atol=1e-5)


def test_steps_that_end_at_one_token_are_one_the_worse():
  scorer = scoring.RolloutScorer(tiny_rl.Vocab(), Nothing(), (), Process())
  rows = [{'step_ends': [1, 1, 2], 'prm/steps': [.25, .5, .75]},
          {'step_ends': [], 'prm/steps': []}]
  steps = scorer._steps(rows, (3, 4))
  np.testing.assert_array_equal(steps.end, [[0, 1, 1, 0]] + [[0] * 4] * 2)
  np.testing.assert_array_equal(
      steps.reward, [[0, .25, .75, 0]] + [[0] * 4] * 2)


def test_a_step_is_found_where_the_prompt_has_opened_the_thinking():
  scorer = scoring.RolloutScorer(tiny_rl.Vocab(), Nothing())
  row, tokens = dict(tokens=4, finished=True), np.array([5, 6, 7, 1, 0])
  for record, first in (({}, '5'), (dict(opened=True), '<think>\n5'),
                        (dict(begun=[3]), '3 5')):
    assert scorer.step_ends(
        record, row, tokens, [first, ' 6 7']) == [0, 3]
  cut = dict(tokens=3, finished=False)
  assert scorer.step_ends({}, cut, tokens, ['5', ' 6 7']) == [0, 2]
  assert scorer.step_ends({}, row, tokens, []) == []


@pytest.mark.parametrize('changes, match', [
    (dict(process='prm', advantage='rloo'), 'rl.advantage'),
    (dict(process='prm', sampling_rounds=2), 'rl.sampling_rounds')])
def test_what_it_does_not_go_with_is_refused(changes, match):
  config = r1_zero.get_config('mini').unlock()
  config.rl.update(changes)
  with pytest.raises(errors.ConfigError, match=match):
    config_lib.check(config, 1)


def test_a_model_that_is_not_there_is_named():
  config = r1_zero.get_config('mini').unlock()
  with pytest.raises(errors.ConfigError, match='rl.process.*trained on steps'):
    scoring.build(config, tiny_rl.Vocab(),
                  jax.make_mesh((1,), ('data',)), 'prm')
