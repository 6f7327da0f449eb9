"""A sampler whose probabilities are not the scorer's, and its correction."""

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax.kernels import importance
from r1jax.stages import grpo
from r1jax.training import accumulate

PLAIN = tiny_rl.OBJECTIVE._replace(micro_batch=8)
TRUNCATED = PLAIN._replace(correction='token_truncate', correction_cap=1.1)


def _drifted(run, state):
  """A scored rollout whose sampler had other probabilities than the policy."""
  rollout, batch = run.learner.sample(state, 0)
  noise = np.random.default_rng(0).normal(
      scale=.3, size=rollout.logp.shape).astype(np.float32)
  logp = np.where(rollout.mask, rollout.logp - np.abs(noise) + .2, 0.)
  scored = run.learner.score(
      rollout._replace(logp=jax.device_put(
          logp.astype(np.float32), rollout.logp.sharding)), batch)
  return scored, np.asarray(rollout.logp)


def _experience(run, scored):
  experience, measured = run.learner.experience(run.init(), scored)
  return experience, jax.device_get(measured)


def _gradient(run, experience):
  """The gradient of the update, and its metrics."""
  objective = run._objective
  make = jax.jit(lambda params, experience: accumulate.gradients_of(
      lambda params, part: grpo.loss(
          run.placed.model, objective, params, part),
      params, *grpo.mini_batch(tiny.model(), objective, experience, 0)))
  return jax.device_get(make(run.init().params, experience))


def test_the_gradient_of_each_token_has_its_weight():
  """At the first update, the same as advantages times weights."""
  run = tiny_rl.Run(objective=TRUNCATED)
  scored, real = _drifted(run, run.init())
  experience, measured = _experience(run, scored)
  mask = np.asarray(scored.rollout.mask)
  np.testing.assert_allclose(
      np.where(mask, experience.old_logp, 0.), real, atol=1e-5)
  expected = importance.weights(
      'token_truncate', real, scored.rollout.logp, mask, 1.1)
  np.testing.assert_allclose(
      experience.correction, expected.weight, atol=1e-5)
  np.testing.assert_allclose(
      measured['sampling/cut'], np.asarray(expected.cut)[mask].mean(),
      rtol=1e-5)
  assert .1 < measured['sampling/cut'] < .9
  np.testing.assert_allclose(
      measured['sampling/weight'], np.asarray(expected.weight)[mask].mean(),
      rtol=1e-5)
  assert measured['sampling/kl'] > .01
  grads, metrics = _gradient(run, experience)
  assert metrics['policy/logp_drift'] < 1e-5
  same, _ = _gradient(run, experience._replace(
      advantage=experience.advantage * experience.correction, correction=None))
  tiny.assert_near(grads, same, tolerance=1e-6)
  other, _ = _gradient(run, experience._replace(correction=None))
  with pytest.raises(AssertionError):
    tiny.assert_near(grads, other, tolerance=1e-3)


def test_without_a_difference_nothing_is_corrected():
  (one, (corrected,)), (other, (plain,)) = (
      tiny_rl.steps(tiny_rl.Run(objective=objective), 1) for objective in (
          PLAIN._replace(correction='sequence_mask', correction_cap=1.01,
                         correction_floor=.99), PLAIN))
  tiny.assert_near(one.params, other.params, tolerance=1e-6)
  assert corrected['sampling/cut'] == 0
  assert abs(corrected['sampling/weight'] - 1) < 1e-5
  assert corrected['sampling/logp_difference'] < 1e-5
  np.testing.assert_allclose(
      corrected['policy/loss'], plain['policy/loss'], atol=1e-5)
  assert not any(name.startswith('sampling/cut') for name in plain)


@pytest.mark.parametrize('changes', [
    dict(sizes=dict(data=4, tensor=2),
         objective=TRUNCATED._replace(micro_batch=16)), dict(objective=TRUNCATED._replace(
        micro_batch=None)), dict(objective=TRUNCATED._replace(micro_batch=2))])
def test_meshes_and_micro_batches_change_nothing(changes):
  run = tiny_rl.Run(**dict(objective=TRUNCATED) | changes)
  experience, measured = _experience(run, _drifted(run, run.init())[0])
  one = tiny_rl.Run(objective=TRUNCATED)
  plain, wanted = _experience(one, _drifted(one, one.init())[0])
  tiny.assert_near(experience.correction, plain.correction)
  tiny.assert_near(_gradient(run, experience)[0], _gradient(one, plain)[0])
  assert measured.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_allclose(measured[name], value, atol=1e-5)


@pytest.mark.parametrize('field, value, words', [
    ('correction_cap', 3., '2.0 where config.rl.correction is None, received 3'),
    ('correction_floor', .5, '0.0 where config.rl.correction is None')])
def test_bounds_without_use_are_refused(field, value, words):
  config = r1_zero.mini()
  config.rl[field] = value
  with pytest.raises(errors.ConfigError, match=f'rl.{field}.*{words}'):
    config_lib.check(config, 1)
  if field == 'correction_floor':
    config.rl.correction = 'sequence_mask'
    config_lib.check(config, 1)
