"""Objectives beside GRPO's, through the stage: fields of config.rl."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax.stages import grpo
from r1jax.stages import scoring
from r1jax.training import accumulate

PLAIN = tiny_rl.OBJECTIVE._replace(kl='none', beta=0.)


def _experience(objective):
  """Of a policy that has moved since."""
  run = tiny_rl.Run(objective=objective)
  rollout, batch = run.learner.sample(run.init(), 0)
  experience, _ = run.learner.experience(
      run.init(), run.learner.score(rollout, batch))
  noise = np.random.default_rng(0).normal(0, .4, experience.old_logp.shape)
  return run, jax.device_get(experience._replace(
      old_logp=np.float32(np.asarray(experience.old_logp) + noise)))


def _loss_and_gradient(run, objective, experience):
  make = jax.jit(lambda params: accumulate.gradients_of(
      functools.partial(grpo.loss, run.placed.model, objective), params,
      *grpo.mini_batch(tiny.model(), objective, experience, 0)))
  grads, metrics = make(run.init().params)
  return grads, float(metrics['loss'])


@pytest.mark.parametrize('surrogate', ['clip', 'cispo'])
@pytest.mark.parametrize('ratio', ['token', 'sequence'])
def test_a_loss_is_that_of_a_plain_loop(ratio, surrogate):
  objective = PLAIN._replace(
      ratio=ratio, surrogate=surrogate, clip_low=.2, clip_high=.3,
      aggregate='sequence_mean')
  run, experience = _experience(objective)
  _, got = _loss_and_gradient(run, objective, experience)
  logp_NR = np.asarray(experience.rollout.logp)
  total = []
  for n, length in enumerate(experience.rollout.mask.sum(1)):
    logp = logp_NR[n, :length]
    log_ratio = logp - experience.old_logp[n, :length]
    if ratio == 'sequence':
      log_ratio = np.full(length, log_ratio.mean())
    rho, a = np.exp(log_ratio), experience.advantage[n, :length]
    held = np.clip(rho, .8, 1.3)
    total.append(np.mean(
        -held * a * logp if surrogate == 'cispo'
        else -np.minimum(rho * a, held * a)))
  np.testing.assert_allclose(got, np.mean(total), rtol=1e-3, atol=1e-5)


def _entropy(run, rollout):
  """Of each token of the responses, one after the other, in NumPy."""
  model, prompts = run.placed.model, jax.device_get(rollout.prompts)
  length = np.repeat(prompts.length, tiny_rl.GROUP)
  rows = np.array([
      [*prompt[:n], *response, *prompt[n:]] for prompt, n, response in zip(
          np.repeat(prompts.tokens, tiny_rl.GROUP, 0), length, rollout.tokens)])
  logits = jax.jit(lambda params: model.unembed(params, model.forward(
      params, rows, None, np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
  )[0]))(run.init().params)
  logits = np.asarray(logits, np.float64) / tiny_rl.OBJECTIVE.temperature
  p = np.exp(logits - logits.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  found = -np.sum(p * np.log(p), -1)
  return np.concatenate([
      one[n - 1:n - 1 + mask.sum()]
      for one, n, mask in zip(found, length, rollout.mask)])


def test_an_entropy_bonus_raises_the_entropy():
  """Without advantages it is all of the loss, and a step raises it."""
  objective = PLAIN._replace(entropy_bonus=.5, aggregate='token_mean')
  run, experience = _experience(objective)
  experience = experience._replace(
      advantage=np.zeros_like(experience.advantage))
  grads, loss = _loss_and_gradient(run, objective, experience)

  def entropy(params):
    make = jax.jit(functools.partial(
        grpo.loss, run.placed.model, objective._replace(entropy_bonus=0.)))
    _, metrics = make(params, experience)
    total, count = metrics['policy/entropy']
    return float(total / count)

  params = run.init().params
  rate = 1e-2 / float(jnp.sqrt(sum(
      jnp.sum(jnp.square(x)) for x in jax.tree.leaves(grads))))
  after = jax.tree.map(lambda x, g: x - rate * g, params, grads)
  assert entropy(after) > entropy(params) + 1e-5
  plain, _ = _loss_and_gradient(
      run, objective._replace(entropy_bonus=0.), experience)
  assert all(np.all(np.asarray(x) == 0) for x in jax.tree.leaves(plain))
  np.testing.assert_allclose(
      loss, -.5 * np.mean(_entropy(run, experience.rollout)), rtol=1e-5)


def test_nothing_is_learned_from_what_was_cut():
  """It counts in its group's mean, and in no gradient, count or metric."""
  run = tiny_rl.Run(objective=PLAIN, mask_truncated=True)
  rollout, batch = run.learner.sample(run.init(), 0)
  scored = run.learner.score(rollout, batch)
  finished = np.arange(len(scored.reward)) % 3 > 0
  cut = scored._replace(finished=finished)
  experience, _ = run.learner.experience(run.init(), cut)
  np.testing.assert_array_equal(experience.weight, finished)
  np.testing.assert_array_equal(
      np.asarray(experience.rollout.mask).any(1), finished)
  everything, _ = tiny_rl.Run(objective=PLAIN).learner.experience(
      run.init(), scored)
  np.testing.assert_array_equal(experience.advantage, everything.advantage)
  np.testing.assert_array_equal(scoring.learned_from(cut, True), finished)
  assert scoring.learned_from(cut, False) is None


def test_a_mini_batch_of_cut_responses_changes_nothing():
  run = tiny_rl.Run(
      objective=PLAIN._replace(mini_batches=2), mask_truncated=True)
  rollout, batch = run.learner.sample(run.init(), 0)
  scored = run.learner.score(rollout, batch)
  prompt = np.arange(len(scored.reward)) // tiny_rl.GROUP
  finished = (prompt % 2 == 0) & (np.arange(len(prompt)) % tiny_rl.GROUP > 0)
  scored = scored._replace(finished=finished)
  experience, measured = run.learner.experience(run.init(), scored)
  state, updated = run.learner.update(
      run.init(), 0, experience, measured, scoring.learned_from(scored, True))
  assert len(updated) == state.opt_state[1].count == 1


def test_what_was_sampled_says_which_responses_were_cut():
  run = tiny_rl.Run(objective=PLAIN)
  rollout, batch = run.learner.sample(run.init(), 0)
  scored = run.learner.score(rollout, batch)
  np.testing.assert_array_equal(
      scored.finished, [row['finished'] for row in scored.rows])
  assert 0 < scored.finished.sum() < len(scored.finished)


def test_cispo_has_no_dual_clip():
  config = r1_zero.get_config('mini')
  config.rl.update(surrogate='cispo', dual_clip=3.)
  with pytest.raises(errors.ConfigError, match='rl.dual_clip'):
    config_lib.check(config, 1)
