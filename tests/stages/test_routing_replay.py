"""Routing replay: the update uses the experts that the sampler chose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import errors
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.stages import rl
from r1jax.training import optim

MOE = dict(layers=3, moe=architecture.Experts(
    experts=8, active=2, mlp=8, shared=1, groups=4, active_groups=2,
    dense_layers=1))
SETTINGS = tiny_rl.SETTINGS._replace(keep_experts=True)


def _biased(params, scale=.2):
  """Other biases of the routers: another choice, at the same weights."""
  bias = params['blocks']['moe']['router_bias']
  noise = scale * np.random.default_rng(1).normal(size=bias.shape)
  return params | {'blocks': params['blocks'] | {'moe': params['blocks'][
      'moe'] | {'router_bias': bias + jnp.asarray(noise, bias.dtype)}}}


@functools.cache
def _rollout(biased, **switches):
  prompts = tiny.prompts((3, 5, 1, 4))
  params = tiny.params(**MOE, **switches)
  return jax.jit(lambda params, keys: group_sampling.sample(
      tiny.model(**MOE, **switches), params, prompts, keys, response_tokens=7,
      eos_ids=(tiny.EOS,), temperature=.8, chunk=4, keep_experts=True))(
          _biased(params) if biased else params,
          group_sampling.sample_keys(0, 0, prompts.id, 3))


def _logp(rollout, replay, **switches):
  """Of the unbiased parameters, and what share of choices is another."""
  model, params = tiny.model(**MOE, **switches), tiny.params(**MOE, **switches)
  settings = dict(temperature=.8, chunk=4)
  logp, _, *changed = jax.jit(lambda params, rollout: logprobs.of_replayed(
      model, params, rollout.prompts, rollout.tokens, rollout.experts,
      **settings) if replay else logprobs.of_responses(
          model, params, rollout.prompts, rollout.tokens, **settings))(
              params, rollout)
  return np.where(rollout.mask, logp, 0.), changed


@pytest.mark.parametrize('tile', [128, 4])
def test_a_sampler_of_the_same_parameters_is_replayed_as_it_is(
    tile, monkeypatch):
  """Also where rows are filled up to whole tiles."""
  monkeypatch.setattr(logprobs, '_TILE', tile)
  monkeypatch.setattr(logprobs, '_LONG', {128: 1024, 4: 4}[tile])
  rollout = _rollout(False)
  assert rollout.experts.shape == (12, 7, 2, 2)
  assert rollout.experts.dtype == jnp.uint8
  assert rollout.prompts.experts.shape == (4, 5, 2, 2)
  logp, (changed,) = _logp(rollout, True)
  np.testing.assert_allclose(logp, rollout.logp, atol=1e-5)
  assert not changed[rollout.mask[:, 1:]].any()


def test_what_the_sampler_chose_otherwise_is_chosen_again():
  """Biases change the choice alone: without replay log p is another."""
  switches = dict(scan_layers=False)
  rollout = _rollout(True, **switches)
  logp, _ = _logp(rollout, False, **switches)
  assert np.abs(logp - rollout.logp).max() > .1
  logp, (changed,) = _logp(rollout, True, **switches)
  np.testing.assert_allclose(logp, rollout.logp, atol=1e-5)
  assert .1 < changed[rollout.mask[:, 1:]].mean() < .9


def _step(sizes):
  # Without a KL, whose gradient of equal policies is 0 but for rounding: tokens
  # of no gradient are no load.
  run = tiny_rl.Run(sizes, tiny_rl.OBJECTIVE._replace(kl='none', beta=0.),
                    SETTINGS, draw=lambda n: tiny_rl.draw(n, 4), **MOE)
  state, metrics, rows = run.learner(run.init(), 0)
  return jax.device_get((state, metrics)), rows


def test_8_devices_sample_and_update_as_one_does(monkeypatch):
  """Of 4 prompts, so that each is on two devices."""
  # A gradient of 1e-8 is rounding; by Adam's usual eps it would be a step.
  monkeypatch.setattr(tiny_rl, 'OPTIMIZER', optim.make_optimizer(
      lr=1e-2, steps=100, weight_decay=.01, eps=1e-6))
  (state, metrics), rows = _step(dict(fsdp=2, expert=4))
  (one, wanted), expected = _step(None)
  assert rows == expected
  tiny.assert_near(state, one)
  # Not the load: a prompt's tokens are counted where they are computed, twice.
  for name in ('policy/loss', 'policy/entropy'):
    np.testing.assert_allclose(metrics[name], wanted[name], atol=1e-5)
  assert metrics['policy/experts_changed'] == 0


def test_an_update_takes_the_samplers_experts_and_its_reference_none():
  """By parts of a group, whose prompt is repeated; the sampler is biased."""
  run = tiny_rl.Run(settings=SETTINGS, objective=tiny_rl.OBJECTIVE._replace(
      micro_batch=2, correction='token_truncate'), **MOE)
  state, batch = run.init(), tiny_rl.draw(0)
  rollout = run.sampler(_biased(state.params), batch, 0, 0)
  experience, measured = run.learner.experience(
      state, run.learner.score(rollout, batch))
  _, [metrics] = run.learner.update(state, 0, experience, {})
  assert measured['sampling/kl'] < 1e-6
  assert metrics['policy/logp_drift'] < 1e-5
  assert .1 < metrics['policy/experts_changed'] < .9
  # The reference is the policy, and routes for itself.
  assert metrics['kl/ref'] > .01


def test_a_model_without_experts_has_nothing_to_replay(tmp_path):
  config = r1_zero.mini()
  config.rl.replay_routing = True
  with pytest.raises(errors.ConfigError, match='config.rl.replay_routing: exp'):
    rl.build(config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))
