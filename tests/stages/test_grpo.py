"""The objective's parts, and that no way of cutting a batch changes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tiny
import tiny_rl
from r1jax.kernels import advantages
from r1jax.kernels import kl
from r1jax.kernels import logprobs
from r1jax.stages import grpo
from r1jax.stages import micro_batches
from r1jax.training import accumulate
from r1jax.training import optim
from r1jax.types import Experience, Rollout, TrainState

B, G, R = 8, tiny_rl.GROUP, tiny_rl.RESPONSE
N = B * G
OBJECTIVE = tiny_rl.OBJECTIVE
PLAIN = OBJECTIVE._replace(kl='none', beta=0.)


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
  logp = _jitted(grpo.scored_logp, PLAIN)(tiny.params(), rollout)
  return rollout._replace(logp=np.where(mask, logp, 0))


def _rewards():
  """Two groups of equal rewards among others."""
  reward = np.random.default_rng(1).random((B, G)).astype('f')
  reward[2], reward[5] = 1., 0.
  return reward.reshape(N)


def _learn(objective, reward=None, rollout=None):
  return _jitted(tiny_rl.experience, objective)(
      tiny.params(seed=1), rollout or _rollout(),
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
  return accumulate.gradients_of(
      functools.partial(grpo.loss, tiny.model(), objective), params,
      *micro_batches.of_experience(
          experience, objective.micro_batch, objective.packed_rows, None))


def _by_hand(o, experience):
  """The loss in plain Python, a response and a token at a time."""
  total = count = 0.
  for n in np.flatnonzero(experience.weight):
    losses = []
    for t in range(_rollout().mask[n].sum()):
      logp, a = _rollout().logp[n, t], experience.advantage[n, t]
      ratio = np.exp(logp - experience.old_logp[n, t])
      clipped = np.clip(ratio, 1 - o.clip_low, 1 + o.clip_high)
      value = min(ratio * a, clipped * a)
      if o.dual_clip and a < 0:
        value = max(value, o.dual_clip * a)
      d = experience.ref_logp[n, t] - logp
      penalty = o.beta * (np.exp(d) - d - 1) if o.kl_in == 'loss' else 0.
      losses.append(penalty - value)
    total += np.mean(losses) if o.aggregate == 'sequence_mean' else sum(losses)
    count += {'sequence_mean': 1, 'token_mean': len(losses),
              'constant': R}[o.aggregate]
  return total / count


@pytest.mark.parametrize('size', [None, 16, 4, 2, 1])
def test_micro_batches_hold_every_response_with_its_prompt(size):
  rows = np.arange(N, dtype=np.float32)
  experience = Experience(_rollout(), rows, *[np.zeros(N)] * 4)
  count, take = micro_batches.of_experience(experience, size, None, None)
  parts = jax.tree.map(lambda *x: np.stack(x), *map(take, range(count)))
  ids = np.repeat(parts.rollout.prompts.id, min(size or N, G), 1)
  assert parts.reward.shape == ids.shape == (N // (size or N), size or N)
  np.testing.assert_array_equal(np.sort(parts.reward.ravel()), rows)
  np.testing.assert_array_equal(
      ids, _rollout().prompts.id[parts.reward.astype(int) // G])
  np.testing.assert_array_equal(
      parts.rollout.tokens, _rollout().tokens[parts.reward.astype(int)])


def test_micro_batches_change_neither_loss_nor_gradient():
  """Of several groups, and of a part of one."""
  objective, experience = _off_policy(
      aggregate='token_mean', drop_equal_groups=True)
  assert 0 < experience.weight.sum() < N
  expected = _gradients(objective, tiny.params(), experience)
  for size in (16, 2):
    objective = objective._replace(micro_batch=size)
    tiny.assert_near(_gradients(objective, tiny.params(), experience), expected)


def test_micro_batches_do_not_change_the_reference():
  for size in (8, 2):
    got = _jitted(grpo.scored_logp, PLAIN._replace(micro_batch=size))(
        tiny.params(), _rollout())
    np.testing.assert_allclose(
        np.where(_rollout().mask, got, 0), _rollout().logp, atol=1e-5)


def test_on_policy_the_loss_is_0_and_the_gradient_is_not():
  experience, _ = _learn(PLAIN)
  grads, metrics = _gradients(PLAIN, tiny.params(), experience)
  assert abs(metrics['loss']) < 1e-5 and metrics['policy/logp_drift'] < 1e-5
  assert metrics['policy/clipped_low'] == metrics['policy/clipped_high'] == 0
  rollout = _rollout()
  _, entropy = jax.jit(functools.partial(
      logprobs.of_responses, tiny.model(), temperature=PLAIN.temperature,
      chunk=R))(tiny.params(), rollout.prompts, rollout.tokens)
  np.testing.assert_allclose(
      metrics['policy/entropy'], np.asarray(entropy)[rollout.mask].mean(),
      rtol=1e-5)
  assert max(np.abs(g).max() for g in jax.tree.leaves(grads)) > 0.01
  np.testing.assert_array_equal(experience.old_logp, _rollout().logp)


def test_an_update_raises_the_probability_of_what_did_well():
  """A step against the gradient: rho A grows, so log p follows A."""
  experience, _ = _learn(PLAIN)
  grads, _ = _gradients(PLAIN, tiny.params(), experience)
  moved = jax.tree.map(lambda p, g: p - 0.01 * g, tiny.params(), grads)
  logp = _jitted(grpo.scored_logp, PLAIN)(moved, _rollout())
  gain = np.where(_rollout().mask, logp - _rollout().logp, 0).sum(1)
  assert np.corrcoef(gain, experience.advantage[:, 0])[0, 1] > 0.3


@pytest.mark.parametrize('changes', [
    dict(),
    dict(aggregate='token_mean', kl_in='reward', kl='k1'),
    dict(aggregate='constant', clip_low=.1, clip_high=.4, dual_clip=1.3,
         drop_equal_groups=True)])
def test_the_loss_is_the_one_by_hand(changes):
  objective, experience = _off_policy(**changes)
  (total, count), figures = _jitted(grpo.loss, objective)(
      tiny.params(), experience)
  expected = _by_hand(objective, experience)
  np.testing.assert_allclose(total / count, expected, rtol=1e-4)
  for name, value in changes.items():  # each of them matters
    if name in ('aggregate', 'clip_low', 'clip_high', 'dual_clip'):
      without = objective._replace(**{name: getattr(OBJECTIVE, name)})
      assert abs(_by_hand(without, experience) / expected - 1) > 1e-3, value
  learned = np.asarray(experience.rollout.mask)  # no token of what is dropped
  np.testing.assert_array_equal(
      learned, _rollout().mask & (experience.weight > 0)[:, None])
  mean = lambda x: np.mean(np.asarray(x)[learned])
  logp, (total, count) = _rollout().logp, figures['kl/ref']
  np.testing.assert_allclose(total / count, mean(
      kl.estimate(objective.kl, logp, experience.ref_logp)), rtol=1e-4)
  total, count = figures['policy/logp_drift']
  np.testing.assert_allclose(
      total / count, mean(np.abs(logp - experience.old_logp)), rtol=1e-4)
  ratio, a = np.exp(logp - experience.old_logp), experience.advantage
  for name, clipped in (
      ('low', (ratio < 1 - objective.clip_low) & (a < 0)),
      ('high', (ratio > 1 + objective.clip_high) & (a > 0))):
    total, count = figures[f'policy/clipped_{name}']
    assert total / count == pytest.approx(mean(clipped)) and total > 0


def test_kl_in_the_reward_is_subtracted_from_it():
  objective = OBJECTIVE._replace(kl_in='reward', kl='k1')
  experience, metrics = _learn(objective)
  assert not np.any(np.asarray(experience.ref_logp)[~_rollout().mask])
  estimate = kl.k1(_rollout().logp, experience.ref_logp)
  penalty = np.where(_rollout().mask, estimate, 0).sum(1)
  expected = _rewards() - 0.1 * penalty
  assert penalty.std() > 0.1
  np.testing.assert_allclose(experience.reward, expected, atol=1e-5)
  np.testing.assert_allclose(
      metrics['kl/response'], penalty.mean(), rtol=1e-5)
  adapted, _ = _jitted(tiny_rl.experience, objective)(
      tiny.params(seed=1), _rollout(), _rewards(), None, np.float32(.5))
  np.testing.assert_allclose(
      adapted.reward, _rewards() - .5 * penalty, atol=1e-5)
  np.testing.assert_allclose(
      experience.advantage[:, 0],
      advantages.grpo(expected.reshape(B, G)).reshape(N), atol=1e-4)


def test_the_estimate_in_the_reward_is_the_one_that_was_asked_for():
  experience, _ = _learn(OBJECTIVE._replace(kl_in='reward', kl='k2'))
  estimate = kl.k2(_rollout().logp, experience.ref_logp)
  np.testing.assert_allclose(experience.reward, _rewards() - 0.1 * np.where(
      _rollout().mask, estimate, 0).sum(1), atol=1e-5)


def test_no_reference_is_asked_without_a_penalty():
  for objective in (PLAIN, OBJECTIVE._replace(beta=0.)):
    experience, _ = jax.eval_shape(
        functools.partial(tiny_rl.experience, tiny.model(), objective), None,
        _rollout(), _rewards())
    assert experience.ref_logp.shape == (N, R)
  assert OBJECTIVE._replace(beta=0., measure_kl=True).uses_ref


def test_equal_groups_weigh_nothing_where_they_are_dropped():
  kept = np.setdiff1d(np.arange(B), [2, 5])
  weight = _learn(PLAIN._replace(drop_equal_groups=True))[0].weight
  np.testing.assert_array_equal(np.unique(np.flatnonzero(weight) // G), kept)
  np.testing.assert_array_equal(_learn(PLAIN)[0].weight, 1)


@pytest.mark.parametrize('changes, expected', [
    (dict(advantage='rloo'), advantages.rloo),
    (dict(std='none'), functools.partial(advantages.grpo, std='none')),
    (dict(std='sample'), functools.partial(advantages.grpo, std='sample'))])
def test_the_advantage_is_the_one_that_was_asked_for(changes, expected):
  experience, _ = _learn(PLAIN._replace(**changes))
  np.testing.assert_allclose(
      experience.advantage[:, -1],
      expected(_rewards().reshape(B, G)).reshape(N), atol=1e-6)


# Plain descent at rate 1: an update is minus the gradient.
DESCENT = optim.Optimizer(
    optax.chain(optax.scale_by_learning_rate(lambda count: 1.)), lambda _: 1.)


@jax.jit
def _halves(state, experience, index):
  return grpo.update(tiny.model(), DESCENT, PLAIN._replace(mini_batches=2),
                     state, experience, index)


def _state():
  return TrainState(jnp.int32(0), tiny.params(),
                    DESCENT.init(tiny.params()), None, jnp.int32(0))


def test_mini_batches_are_the_parts_of_a_rollout():
  experience, _ = _learn(PLAIN)
  gradient = [jax.tree.map(jnp.subtract, tiny.params(), _halves(
      _state(), experience, index)[0].params) for index in range(2)]
  assert np.abs(gradient[0]['embedding'] - gradient[1]['embedding']).max() > .01
  tiny.assert_near(  # under sequence_mean, all responses weigh the same
      jax.tree.map(lambda a, b: (a + b) / 2, *gradient),
      _gradients(PLAIN, tiny.params(), experience)[0])


def test_a_nan_reward_skips_the_update():
  reward = _rewards()
  reward[3] = np.nan
  state = _state()
  for skipped in (1, 2):
    state, metrics = _halves(state, _learn(PLAIN, reward)[0], 0)
    assert state.skipped == skipped and metrics['optim/skipped'] == 1
  jax.tree.map(np.testing.assert_array_equal, state.params, tiny.params())
  assert state.opt_state[-1].count == 0
  state, metrics = _halves(state, _learn(PLAIN)[0], 0)
  assert state.skipped == 0 and metrics['optim/skipped'] == 0
  assert np.any(state.params['embedding'] != tiny.params()['embedding'])
