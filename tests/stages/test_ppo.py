"""PPO: what differs from GRPO, and that the laws hold with a critic."""

import functools
import pathlib

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import ppo as experiment
from r1jax import errors
from r1jax.kernels import advantages
from r1jax.kernels import losses
from r1jax.kernels import values
from r1jax.parallel import sharding
from r1jax.stages import grpo
from r1jax.stages import ppo
from r1jax.training import accumulate
from r1jax.training import checkpoint
from r1jax.training import loop
from r1jax.training import optim
from r1jax.types import Experience, Rollout, TrainState

CRITIC = dict(gamma=1., lam=.95, whiten=True, value_clip=.2)
OBJECTIVE = tiny_rl.OBJECTIVE._replace(
    advantage='gae', aggregate='token_mean', kl='k1', kl_in='reward', beta=.1)
R = tiny_rl.RESPONSE
SETTINGS = loop.Settings(checkpoint_every_steps=1, keep=2)


@pytest.fixture(name='run', scope='module')
def _run():
  return tiny_rl.Run(objective=OBJECTIVE._replace(mini_batches=2), epochs=2,
                     critic=CRITIC)


@pytest.fixture(name='taken', scope='module')
def _taken(run):
  return tiny_rl.steps(run, 2)


@functools.cache
def _rollout(size=8):
  rng = np.random.default_rng(0)
  mask = np.arange(R) < rng.integers(1, R + 1, (size, 1))
  tokens = np.where(mask, rng.integers(2, 30, (size, R)), 0).astype(np.int32)
  logp = np.where(mask, -rng.random((size, R)), 0).astype(np.float32)
  return Rollout(tiny.prompts((3, 5)), tokens, mask, logp)


@jax.jit
def _values(params, rollout):
  return values.of_states(
      tiny.model(scalar=True), params, rollout.prompts, rollout.tokens)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _estimate(critic, objective, params, rollout, *args):
  return ppo.gae(critic, objective, ppo.values(
      critic, objective, params, rollout), rollout, *args)


def test_the_reward_stands_at_the_last_token_and_the_penalty_at_each():
  mask = np.array([[1, 1, 1], [1, 0, 0]], bool)
  got = ppo.token_rewards(
      np.float32([2, 3]), np.float32([[.1, .2, .3], [.5, 9, np.nan]]), mask)
  np.testing.assert_allclose(got, [[-.1, -.2, 1.7], [2.5, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize('micro_batch', [None, 4, 2])
def test_an_estimate_is_gae_of_the_critics_values(micro_batch):
  objective = OBJECTIVE._replace(micro_batch=micro_batch)
  critic = ppo.Critic(tiny.model(scalar=True), **CRITIC | dict(whiten=False))
  params, rollout = tiny.params(scalar=True), _rollout()
  reward = np.arange(8, dtype=np.float32)
  penalty = np.full((8, R), .01, np.float32)
  got, figures = _estimate(critic, objective, params, rollout, reward, penalty)
  value = np.where(rollout.mask, _values(params, rollout), 0)
  advantage, target = advantages.gae(
      ppo.token_rewards(reward, penalty, rollout.mask), value, rollout.mask,
      1., .95)
  tiny.assert_near(got[1:], (advantage, value, target), 1e-5)
  np.testing.assert_allclose(
      got.reward, reward - .01 * rollout.mask.sum(1), rtol=1e-5)
  np.testing.assert_allclose(
      figures['critic/value'], value[rollout.mask].mean(), rtol=1e-4)
  unexplained = np.var((target - value)[rollout.mask])
  np.testing.assert_allclose(
      figures['critic/explained_variance'],
      1 - unexplained / np.var(np.asarray(target)[rollout.mask]), atol=1e-4)


def test_whitened_advantages_have_mean_0_and_variance_1():
  critic = ppo.Critic(tiny.model(scalar=True), **CRITIC)
  got, _ = _estimate(
      critic, OBJECTIVE, tiny.params(scalar=True), _rollout(),
      np.arange(8, dtype=np.float32), np.zeros((8, R), np.float32))
  inside = np.asarray(got.advantage)[_rollout().mask]
  np.testing.assert_allclose([inside.mean(), inside.std()], [0, 1], atol=1e-5)


def test_the_critics_loss_is_that_of_the_kernel():
  critic, rollout = ppo.Critic(tiny.model(scalar=True), **CRITIC), _rollout()
  params = tiny.params(scalar=True)
  rng = np.random.default_rng(1)
  old, target = rng.normal(size=(2, 8, R)).astype(np.float32)
  zero = np.zeros((8, R), np.float32)
  part = Experience(rollout, zero[:, 0], zero, zero, zero, np.ones(8, 'f'),
                    old, target)
  value = _values(params, rollout)
  loss = jax.jit(functools.partial(ppo.loss, critic))
  (total, count), figures = loss(params, part)
  expected = losses.value_loss(value, old, target, .2)
  assert count == rollout.mask.sum()
  np.testing.assert_allclose(
      total, np.sum(np.asarray(expected.loss)[rollout.mask]), rtol=1e-4)
  assert figures['critic/clipped'][0] == expected.clipped[rollout.mask].sum()
  spoilt = part._replace(**{
      name: np.where(rollout.mask, getattr(part, name), np.nan)
      for name in ('value', 'target')})
  np.testing.assert_allclose(loss(params, spoilt)[0][0], total, rtol=1e-6)


def test_policy_and_critic_both_move_and_their_figures_are_told(taken):
  state, history = taken
  assert state.step == 2 and state.critic.step == 8
  for params, first in ((state.params, tiny.params()),
                        (state.critic.params, tiny.params(scalar=True))):
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), params, first)
    assert moved['blocks']['mlp']['down'] > 1e-3
  assert {'critic/loss', 'critic/grad_norm', 'critic/explained_variance',
          'critic/value', 'kl/response', 'policy/loss'} <= set(history[0])
  assert state.critic.params['head']['offset'] == (
      tiny.params(scalar=True)['head']['offset'])
  assert history[0]['kl/response'] == pytest.approx(0, abs=1e-4)


def test_the_critic_learns_to_foretell():
  _, history = tiny_rl.steps(tiny_rl.Run(
      objective=OBJECTIVE, critic=CRITIC | dict(value_clip=None)), 12)
  explained = [row['critic/explained_variance'] for row in history]
  assert np.mean(explained[-3:]) > np.mean(explained[:3])
  assert history[-1]['critic/loss'] < history[0]['critic/loss']


def test_eight_devices_are_one(taken):
  eight = tiny_rl.Run(
      dict(fsdp=2, data=2, tensor=2), critic=CRITIC, epochs=2,
      objective=OBJECTIVE._replace(mini_batches=2))
  state, history = tiny_rl.steps(eight, 2)
  tiny.assert_near(state, taken[0], 1e-4)
  tiny.assert_near(history[0]['critic/loss'], taken[1][0]['critic/loss'], 1e-4)


def test_stopped_and_restored_it_ends_bitwise_the_same(run, tmp_path):
  config = dict(stage='rl', seed=0)
  train = lambda name, steps: loop.train(
      run.stage(steps), SETTINGS, str(tmp_path / name),
      config | dict(steps=steps))
  train('whole', 3)
  train('parts', 1)
  train('parts', 3)
  states = []
  for name in ('whole', 'parts'):
    saves = checkpoint.Checkpointer(
        pathlib.Path(tmp_path / name) / 'checkpoints', keep=2)
    states.append(jax.device_get(saves.restore_latest(run.abstract)[0]))
    saves.close()
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert states[0].critic.step == 12


def test_beta_adapts_to_its_target_and_is_part_of_the_state():
  run = tiny_rl.Run(objective=OBJECTIVE, critic=CRITIC, kl_target=1e-3)
  state, history = tiny_rl.steps(run, 3)
  betas = [row['kl/beta'] for row in history]
  # On-policy at first, the KL is below any target; then above this one.
  assert betas[0] == np.float32(.1) and betas[1] < betas[0]
  assert history[2]['kl/response'] > 1e-3
  assert state.beta == pytest.approx(betas[2] * 1.02)


@pytest.mark.parametrize('size', [7, 10 ** 6])
def test_a_critic_of_another_vocabulary_is_refused(size):
  config = experiment.get_config('reasoning')
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  with pytest.raises(errors.ConfigError, match=(
      f"critic.init_from: .* of the policy's vocabulary, {size} pieces")):
    ppo.make_critic(config, mesh, ('rl.prompt_tokens', 192), size)


def test_a_critic_s_factors_are_learned_over_their_base(monkeypatch):
  monkeypatch.setattr(ppo, 'loss', lambda critic, params, part: params)
  monkeypatch.setattr(grpo, 'mini_batch', lambda *_: (1, None))
  monkeypatch.setattr(accumulate, 'gradients_of', lambda loss, params, *_: (
      loss(params, None), {'loss': 0.}))
  monkeypatch.setattr(
      optim, 'update', lambda optimizer, grads, state: (
          state._replace(params=grads), {}))
  state, _ = ppo.update(ppo.Critic(*[None] * 5), None, None, TrainState(
      0, {'lora': 1}, None, {'head': 2}, 0), None, 0)
  assert state.params == {'lora': 1, 'head': 2} and state.step == 1


def test_grpo_is_the_same_trainer_without_a_critic():
  relative, figures = grpo.group_relative(
      tiny_rl.OBJECTIVE, None, _rollout(), np.arange(8, dtype=np.float32),
      np.zeros((8, R), np.float32))
  assert relative.value is relative.target is None and not figures
  assert relative.advantage.shape == (8, R)
