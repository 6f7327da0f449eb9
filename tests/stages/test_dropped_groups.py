"""Groups that are dropped: no statistic is over what is not learned from."""

import functools

import jax
import numpy as np

import tiny
import tiny_rl
from r1jax.stages import grpo
from r1jax.stages import ppo
from r1jax.stages import rl
from r1jax.stages import scoring
from r1jax.training import accumulate
from r1jax.types import Rollout

B, G, R = 6, tiny_rl.GROUP, tiny_rl.RESPONSE
N = B * G
KEPT = [0, 3, 4]  # groups whose rewards differ
CRITIC = ppo.Critic(tiny.model(scalar=True), 1., .95, True, .2)
PPO = tiny_rl.OBJECTIVE._replace(
    advantage='gae', aggregate='token_mean', kl='k1', kl_in='reward',
    drop_equal_groups=True, dual_clip=3.)


@functools.cache
def _rollout():
  """Responses to B prompts; those of dropped groups are unlike the others."""
  rng = np.random.default_rng(0)
  mask = np.arange(R) < rng.integers(1, R + 1, (N, 1))
  tokens = np.where(mask, rng.integers(2, 30, (N, R)), 0).astype(np.int32)
  dropped = ~np.repeat(np.isin(np.arange(B), KEPT), G)[:, None]
  logp = np.where(mask, -rng.random((N, R)) - 5 * dropped, 0)
  reward = rng.random((B, G))
  reward[[b for b in range(B) if b not in KEPT]] = 9.
  return (Rollout(tiny.prompts(np.arange(B) % 5 + 1), tokens, mask,
                  logp.astype(np.float32)), reward.reshape(N).astype('f'))


def _without_dropped():
  rollout, reward = _rollout()
  rows = np.repeat(np.isin(np.arange(B), KEPT), G)
  prompts, rest = rollout.prompts, rollout._replace(prompts=())
  return (jax.tree.map(lambda x: x[rows], rest)._replace(
      prompts=jax.tree.map(lambda x: x[np.array(KEPT)], prompts)),
          reward[rows])


@jax.jit
def _jitted(params, ref, critic, rollout, reward):
  experience, measured = tiny_rl.experience(
      tiny.model(), PPO, ref, rollout, reward, critic,
      estimate=functools.partial(ppo.gae, CRITIC),
      values=functools.partial(ppo.values, CRITIC))
  experience = experience._replace(old_logp=experience.old_logp - .1)
  parts = grpo.mini_batch(tiny.model(), PPO, experience, 0)
  found = [
      accumulate.gradients_of(
          functools.partial(loss, *settings), weights, *parts)
      for loss, settings, weights in (
          (grpo.loss, (tiny.model(), PPO), params),
          (ppo.loss, (CRITIC,), critic))]
  return experience, measured, found


def _learn(rollout, reward):
  """The experience, and all that is measured and learned of it."""
  return _jitted(tiny.params(), tiny.params(seed=1), tiny.params(scalar=True),
                 rollout, reward)


def test_metrics_and_gradients_are_those_without_the_dropped():
  """Every metric of experience, policy and critic, whatever its name."""
  _, measured, found = _learn(*_rollout())
  _, measured_without, found_without = _learn(*_without_dropped())
  assert set(measured) == {
      'kl/response', 'critic/value', 'critic/explained_variance'}
  tiny.assert_near(measured, measured_without)
  tiny.assert_near(found, found_without)


def test_advantages_that_are_learned_from_are_white():
  experience, _, _ = _learn(*_rollout())
  learned = np.asarray(_rollout()[0].mask & (experience.weight > 0)[:, None])
  assert learned.any(1).sum() == len(KEPT) * G
  advantage = np.asarray(experience.advantage)[learned]
  np.testing.assert_allclose(
      [advantage.mean(), advantage.std()], [0, 1], atol=1e-5)


class _Solved(tiny_rl.Scorer):
  """Every response to a prompt solves it, but for prompts `hard`."""

  def __init__(self, *hard):
    self._hard = set(map(str, hard))

  def score(self, records, responses):
    scores = super().score(records, responses)
    solved = np.array([r['answer'] not in self._hard for r in records])
    return scores._replace(
        total=np.where(solved, 1, scores.total).astype('f'),
        columns=[{'own/solved': bool(s)} for s in solved])


def _run(*hard, **settings):
  return tiny_rl.Run(
      objective=PPO._replace(mini_batches=2),
      critic=dict(gamma=1., lam=.95, whiten=True, value_clip=.2),
      scorer=_Solved(*hard), sampling_rounds=2, **settings)


def test_a_step_is_told_of_by_what_it_learns_from():
  """Of 16 prompts two are hard; only their mini-batches are taken."""
  hard = [int(n) for n in tiny_rl.draw(0).id[:1]]
  run = _run(*hard, kl_target=1e-3)
  state, metrics, rows = run.learner(run.init(), 0)
  metrics = jax.device_get(metrics)
  kept = [row for row in rows if row['id'] in hard]
  assert len(rows) == 2 * 32 and len(kept) == G
  mean = lambda name: np.mean([row[name] for row in kept])
  for name, value in {
      'reward/mean': mean('reward'), 'reward/frac_zero_std': 0.,
      'reward/accuracy': mean('accuracy'), 'reward/own/solved': 0.,
      'reward/std': np.std([row['reward'] for row in kept]),
      'response_length/mean': mean('tokens'),
      'response_length/max': max(row['tokens'] for row in kept),
      'response_length/clip_ratio': 1 - mean('finished'),
      'sampling/groups_drawn': 16, 'sampling/groups_dropped': 15,
      'perf/tokens': sum(row['tokens'] for row in rows)}.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  # One mini-batch of the two has nothing to learn from: one update.
  assert state.opt_state[1].count == state.critic.opt_state[1].count == 1
  assert metrics['policy/entropy'] > 1.
  assert state.beta != np.float32(PPO.beta)


def test_a_step_without_anything_to_learn_changes_nothing():
  run = _run(kl_target=1e-3)
  before = jax.device_get(run.init())
  after, metrics, rows = run.learner(run.init(), 0)
  assert after.step == 1 and len(rows) == 2 * 32
  jax.tree.map(np.testing.assert_array_equal,
               jax.device_get(after)._replace(step=before.step), before)
  shown = {name for name in metrics if not name.startswith('_')}
  assert {'perf/tokens', 'verifier/errors', 'sampling/groups_drawn',
          'sampling/groups_dropped'} <= shown
  assert not {name for name in shown if name.startswith(
      ('reward/', 'response_length/', 'kl/', 'policy/', 'critic/'))}
  assert metrics['sampling/groups_dropped'] == 16


def test_a_steps_metrics_by_hand_with_a_dropped_group():
  rows = [dict(tokens=n, finished=n < 6, **{'f/x': n}) for n in (3, 5, 4, 6)]
  scored = scoring.Scored(
      None, np.float32([1, 0, 2, 2]), {'format': np.float32([1, 1, 0, 1])},
      np.array([3, 5, 4, 6]), np.array([True] * 3 + [False]), {'errors': 2},
      rows, 2, 1,
      np.array([True, True, False, False]), rows[:2])
  found = rl.step_metrics(
      scored, 2, {}, [{'policy/logp_drift': 0., 'policy/loss': 1.}])
  assert found == {
      'reward/mean': .5, 'reward/std': .5, 'reward/frac_zero_std': 0.,
      'reward/format': 1., 'reward/f/x': 4., 'response_length/mean': 4.,
      'response_length/min': 3, 'response_length/max': 5,
      'response_length/clip_ratio': 0., 'perf/tokens': 18,
      'verifier/errors': 2, 'sampling/groups_drawn': 2,
      'sampling/groups_dropped': 1, 'sampling/logp_difference': 0.,
      'policy/logp_drift': 0., 'policy/loss': 1.}
