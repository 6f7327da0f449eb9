"""The objective's parts, and that no way of cutting a batch changes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax.kernels import advantages
from r1jax.kernels import kl
from r1jax.stages import grpo
from r1jax.training import accumulate
from r1jax.types import Experience, Rollout, TrainState

B, G, R = 8, tiny_rl.GROUP, tiny_rl.RESPONSE
N = B * G
OBJECTIVE = tiny_rl.OBJECTIVE
PLAIN = OBJECTIVE._replace(kl='none', beta=0.)


def _params(seed=0):
  return tiny.params(seed=seed)


@functools.cache
def _jitted(function, objective):
  return jax.jit(functools.partial(function, tiny.model(), objective))


@functools.cache
def _rollout():
  """Responses of 1 to R random tokens, with their log p under the policy."""
  rng = np.random.default_rng(0)
  mask = np.arange(R) < rng.integers(1, R + 1, (N, 1))
  tokens = np.where(mask, rng.integers(2, 30, (N, R)), 0).astype(np.int32)
  prompts = tiny.prompts(np.arange(B) % 5 + 1)
  rollout = Rollout(prompts, tokens, mask, np.zeros((N, R), np.float32))
  logp = _jitted(grpo.reference_logp, PLAIN)(_params(), rollout)
  return rollout._replace(logp=np.where(mask, logp, 0))


def _rewards():
  """Two groups of equal rewards among others."""
  reward = np.random.default_rng(1).random((B, G)).astype('f')
  reward[2], reward[5] = 1., 0.
  return reward.reshape(N)


def _learn(objective, reward=None, rollout=None):
  return _jitted(grpo.learn, objective)(
      _params(1), rollout or _rollout(),
      _rewards() if reward is None else reward)


def _off_policy(**changes):
  """Experience of a policy that has moved since, so that no ratio is 1."""
  objective = OBJECTIVE._replace(**changes)
  experience, _ = _learn(objective)
  noise = np.random.default_rng(2).normal(size=(N, R))
  return objective, jax.device_get(experience._replace(
      old_logp=np.float32(experience.old_logp + 0.3 * noise)))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(objective, params, experience):
  return accumulate.gradients(
      functools.partial(grpo.loss, tiny.model(), objective), params,
      grpo.micro_batches(experience, G, objective.micro_batch))


def _value(objective, experience):
  """The loss and figures of a whole experience."""
  (total, count), figures = _jitted(grpo.loss, objective)(
      _params(), experience)
  return float(total / count), {
      name: float(a / b) for name, (a, b) in figures.items()}


@pytest.mark.parametrize('size', [None, 16, 4, 2, 1])
def test_micro_batches_hold_every_response_with_its_prompt(size):
  rows = np.arange(N, dtype=np.float32)
  experience = Experience(_rollout(), rows, *[np.zeros(N)] * 4)
  parts = grpo.micro_batches(experience, G, size)
  ids = np.repeat(parts.rollout.prompts.id, min(size or N, G), 1)
  assert parts.reward.shape == ids.shape == (N // (size or N), size or N)
  np.testing.assert_array_equal(np.sort(parts.reward.ravel()), rows)
  np.testing.assert_array_equal(
      ids, _rollout().prompts.id[parts.reward.astype(int) // G])
  np.testing.assert_array_equal(
      parts.rollout.tokens, _rollout().tokens[parts.reward.astype(int)])


@pytest.mark.parametrize('how', ['sequence_mean', 'token_mean'])
def test_micro_batches_change_neither_loss_nor_gradient(how):
  """Of several groups, of one, and of a part of one."""
  objective, experience = _off_policy(aggregate=how, drop_equal_groups=True)
  assert 0 < experience.weight.sum() < N
  expected = _gradients(objective, _params(), experience)
  for size in (16, 2) if how == 'sequence_mean' else (4,):
    tiny.assert_near(
        _gradients(objective._replace(micro_batch=size), _params(), experience),
        expected)


def test_micro_batches_do_not_change_the_reference():
  expected = _jitted(grpo.reference_logp, OBJECTIVE)(_params(), _rollout())
  for size in (8, 2):
    got = _jitted(grpo.reference_logp, OBJECTIVE._replace(micro_batch=size))(
        _params(), _rollout())
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_on_policy_the_loss_is_0_and_the_gradient_is_not():
  experience, figures = _learn(PLAIN)
  grads, metrics = _gradients(PLAIN, _params(), experience)
  assert abs(metrics['loss']) < 1e-5 and metrics['policy/logp_drift'] < 1e-5
  assert metrics['policy/clipped_low'] == metrics['policy/clipped_high'] == 0
  assert max(np.abs(g).max() for g in jax.tree.leaves(grads)) > 0.01
  np.testing.assert_allclose(
      figures['reward/mean'], _rewards().mean(), rtol=1e-5)
  assert figures['reward/frac_zero_std'] == 2 / B
  np.testing.assert_array_equal(experience.old_logp, _rollout().logp)


def test_an_update_raises_the_probability_of_what_did_well():
  """A step against the gradient: rho A grows, so log p follows A."""
  experience, _ = _learn(PLAIN)
  grads, _ = _gradients(PLAIN, _params(), experience)
  moved = jax.tree.map(lambda p, g: p - 0.01 * g, _params(), grads)
  logp = _jitted(grpo.reference_logp, PLAIN)(moved, _rollout())
  gain = np.where(_rollout().mask, logp - _rollout().logp, 0).sum(1)
  assert np.corrcoef(gain, experience.advantage[:, 0])[0, 1] > 0.3


def test_kl_in_the_loss_is_beta_times_its_mean():
  objective, experience = _off_policy(aggregate='token_mean')
  with_kl, figures = _value(objective, experience)
  without, _ = _value(objective._replace(kl='none'), experience)
  estimate = kl.k3(_rollout().logp, experience.ref_logp)
  expected = np.mean(np.asarray(estimate)[_rollout().mask])
  assert expected > 0.1
  np.testing.assert_allclose(figures['kl/ref'], expected, rtol=1e-4)
  np.testing.assert_allclose(with_kl - without, 0.1 * expected, rtol=1e-3)


@pytest.mark.parametrize('kind', ['k1', 'k3'])
def test_kl_in_the_reward_is_subtracted_from_it_alone(kind):
  objective = OBJECTIVE._replace(kl_in='reward', kl=kind)
  experience, _ = _learn(objective)
  estimate = kl.estimate(kind, _rollout().logp, experience.ref_logp)
  penalty = np.where(_rollout().mask, estimate, 0).sum(1)
  np.testing.assert_allclose(
      experience.reward, _rewards() - 0.1 * penalty, atol=1e-5)
  np.testing.assert_allclose(
      experience.advantage[:, 0], advantages.grpo(
          experience.reward.reshape(B, G)).reshape(N), atol=1e-4)
  loss, figures = _value(objective, experience)
  assert abs(loss) < 1e-5 and 'kl/ref' in figures  # no penalty in the loss


def test_no_reference_is_asked_without_a_penalty():
  for objective in (PLAIN, OBJECTIVE._replace(beta=0.)):
    experience, _ = jax.eval_shape(
        functools.partial(grpo.learn, tiny.model(), objective), None,
        _rollout(), _rewards())
    assert experience.ref_logp.shape == (N, R)


def test_equal_groups_drop_out_of_sum_and_denominator():
  objective, experience = _off_policy(drop_equal_groups=True)
  kept = np.setdiff1d(np.arange(B), [2, 5])
  rows = (kept[:, None] * G + np.arange(G)).ravel()
  np.testing.assert_array_equal(np.flatnonzero(experience.weight), rows)
  prompts = jax.tree.map(lambda x: x[kept], experience.rollout.prompts)
  rest = jax.tree.map(lambda x: x[rows], experience._replace(
      rollout=experience.rollout._replace(prompts=())))
  rest = rest._replace(rollout=rest.rollout._replace(prompts=prompts))
  np.testing.assert_allclose(
      _value(objective, experience)[0], _value(objective, rest)[0], rtol=1e-4)


def test_each_setting_of_the_objective_reaches_it():
  _, experience = _off_policy(dual_clip=1.05)
  change = lambda **fields: _value(
      PLAIN._replace(**fields), experience)[0] - _value(PLAIN, experience)[0]
  assert change(dual_clip=1.05) < -1e-4  # it bounds a loss
  assert abs(change(clip_low=1.)) > 1e-4 and abs(change(clip_high=1.)) > 1e-4
  assert abs(change(aggregate='constant')) > 1e-4
  for fields, expected in (
      (dict(advantage='rloo'), advantages.rloo),
      (dict(std='none'), advantages.dr_grpo),
      (dict(std='sample'), functools.partial(advantages.grpo, std='sample'))):
    learnt, _ = _learn(PLAIN._replace(**fields))
    np.testing.assert_allclose(
        learnt.advantage[:, -1],
        expected(_rewards().reshape(B, G)).reshape(N), atol=1e-6)


def _state(params):
  return TrainState(jnp.int32(0), params,
                    tiny_rl.OPTIMIZER.tx.init(params), None, jnp.int32(0))


def test_a_nan_reward_skips_the_update():
  reward = _rewards()
  reward[3] = np.nan
  update = jax.jit(functools.partial(
      grpo.update, tiny.model(), tiny_rl.OPTIMIZER, PLAIN))
  state = _state(_params())
  for skipped in (1, 2):
    state, metrics = update(state, _learn(PLAIN, reward)[0], 0)
    assert state.skipped == skipped and metrics['optim/skipped'] == 1
  jax.tree.map(np.testing.assert_array_equal, state.params, _params())
  assert state.opt_state[1].count == 0
  state, metrics = update(state, _learn(PLAIN)[0], 0)
  assert state.skipped == 0 and metrics['optim/skipped'] == 0
  assert np.any(state.params['embedding'] != _params()['embedding'])


def test_mini_batches_are_different_parts():
  objective = PLAIN._replace(mini_batches=2)
  experience, _ = _learn(PLAIN)
  update = jax.jit(functools.partial(
      grpo.update, tiny.model(), tiny_rl.OPTIMIZER, objective))
  norms = [update(_state(_params()), experience, index)[1]['optim/grad_norm']
           for index in range(2)]
  assert abs(norms[0] - norms[1]) > 1e-4
  grads = lambda part: _gradients(PLAIN, _params(), part)[0]
  halves = grpo.micro_batches(experience, G, N // 2)
  mean = jax.tree.map(
      lambda a, b: (a + b) / 2,
      *(grads(jax.tree.map(lambda x, i=i: x[i], halves)) for i in range(2)))
  tiny.assert_near(mean, grads(experience))  # as sequence_mean weighs them
