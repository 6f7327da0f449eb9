"""Truncated sampling in RL: sampler and update on the same tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.stages import grpo
from r1jax.training import accumulate

TOP_K, TOP_P, V = 8, .8, tiny.SHAPE['vocab']
SETTINGS = tiny_rl.SETTINGS._replace(
    top_k=TOP_K, top_p=TOP_P, keep_support=True)
PLAIN = tiny_rl.OBJECTIVE
TEMPERATURE = PLAIN.temperature


@functools.cache
def _run(**fields):
  """A run, its first rollout with rewards, and what an update is given."""
  run = tiny_rl.Run(**dict(settings=SETTINGS) | fields)
  state = run.init()
  rollout, batch = run.learner.sample(state, 0)
  scored = run.learner.score(rollout, batch)
  experience, measured = run.learner.experience(state, scored)
  return run, jax.device_get(rollout), jax.device_get(experience), measured


@functools.cache
def _dense():
  """Logits / temperature of all tokens [N, R, V]; bool, those that are kept."""
  _, rollout, _, _ = _run()
  logits = _logits(tiny.params(), rollout)
  kept = np.stack([np.isfinite(group_sampling.truncate(x, TOP_K, TOP_P))
                   for x in np.asarray(logits)])
  return np.asarray(logits), kept


@jax.jit
def _logits(params, rollout):
  model = tiny.model()
  return model.unembed(params, logprobs.states_before(
      model, params, rollout.prompts, rollout.tokens)) / TEMPERATURE


def test_a_rollout_has_the_tokens_that_each_was_drawn_among():
  _, rollout, _, measured = _run()
  logits, kept = _dense()
  found = np.zeros((*rollout.mask.shape, V), bool)
  for n, r in zip(*np.nonzero(rollout.mask)):
    tokens = rollout.support.tokens[n, r]
    assert tokens.shape == (TOP_K,)
    count = (tokens >= 0).sum()
    assert (tokens[:count] >= 0).all() and (tokens[count:] == -1).all()
    np.testing.assert_array_equal(  # the most likely first
        tokens[:count], np.argsort(-logits[n, r], kind='stable')[:count])
    found[n, r, tokens[:count]] = True
    assert found[n, r, rollout.tokens[n, r]]
  mask = rollout.mask
  np.testing.assert_array_equal(found[mask], kept[mask])
  assert 1 < kept[mask].sum(-1).mean() < TOP_K
  assert not (~mask).all() and (~mask).any()
  mass = (np.asarray(jax.nn.softmax(logits)) * kept).sum(-1)
  np.testing.assert_allclose(rollout.support.mass[mask], mass[mask], rtol=1e-5)
  np.testing.assert_allclose(
      measured['sampling/kept_mass'], mass[mask].mean(), rtol=1e-5)
  np.testing.assert_allclose(
      measured['sampling/kept_tokens'], kept[mask].sum(-1).mean(), rtol=1e-5)


def test_at_the_first_update_every_ratio_is_1_and_not_the_kept_mass():
  run, rollout, experience, _ = _run()
  mask, params = rollout.mask, tiny.params()
  np.testing.assert_array_equal(experience.old_logp, rollout.logp)
  score = lambda rollout: np.asarray(
      grpo.scored_logp(tiny.model(), PLAIN, params, rollout))
  same = score(rollout)
  np.testing.assert_allclose(same[mask], rollout.logp[mask], atol=1e-5)
  _, metrics = _gradient(run, experience)
  assert metrics['policy/logp_drift'] < 1e-5
  # Over all tokens instead, the ratio is what TRL measured: the kept mass.
  ratio = np.exp(score(rollout._replace(support=None)) - rollout.logp)[mask]
  np.testing.assert_allclose(ratio, rollout.support.mass[mask], rtol=1e-4)
  assert ratio.mean() < .9


def _gradient(run, experience, params=None):
  objective = run._objective
  return jax.device_get(jax.jit(lambda params, experience:
      accumulate.gradients_of(lambda params, part: grpo.loss(
          tiny.model(), objective, params, part), params, *grpo.mini_batch(
              tiny.model(), objective, experience, 0)))(
                  tiny.params() if params is None else params, experience))


@pytest.mark.parametrize('micro_batch', [None, 2])
def test_the_gradient_is_that_of_a_softmax_over_the_kept_tokens(micro_batch):
  """Off-policy, with a KL: a dense softmax, a response at a time."""
  run, rollout, experience, _ = _run(
      objective=PLAIN._replace(micro_batch=micro_batch))
  _, kept = _dense()
  mask, a = rollout.mask, experience.advantage
  moved = jax.tree.map(lambda x: 1.02 * x, tiny.params())

  def loss(params):
    logits = jnp.where(kept, _logits(params, rollout), -jnp.inf)
    logp = jnp.take_along_axis(
        jax.nn.log_softmax(logits), rollout.tokens[..., None], -1)[..., 0]
    total = 0.
    for n, length in enumerate(mask.sum(1)):
      ratio = jnp.exp(logp[n, :length] - experience.old_logp[n, :length])
      d = experience.ref_logp[n, :length] - logp[n, :length]
      total += jnp.mean(-jnp.minimum(
          ratio * a[n, :length], jnp.clip(ratio, .8, 1.2) * a[n, :length])
                        + PLAIN.beta * (jnp.exp(d) - d - 1))
    return total / len(mask)

  kept[~mask] = True  # what is after an end is not looked at
  expected = jax.jit(jax.grad(loss))(moved)
  found, metrics = _gradient(run, experience, moved)
  assert all(map(np.any, jax.tree.leaves(found)))
  tiny.assert_near(found, expected)
  # The reference is on the same tokens: it was the policy, so the KL was 0.
  np.testing.assert_allclose(
      experience.ref_logp[mask], rollout.logp[mask], atol=1e-5)
  assert metrics['kl/ref'] > 0


def test_log_p_and_entropy_among_kept_tokens_by_hand():
  logits = jnp.log(jnp.array([[.4, .3, .2, .1], [.1, .2, .3, .4]]))
  tokens, kept = jnp.array([1, 0]), jnp.array([[0, 1, -1], [2, 0, 3]])
  logp, entropy = logprobs.of_support(logits, (tokens, kept))
  np.testing.assert_allclose(np.exp(logp), [3 / 7, 1 / 8], rtol=1e-6)
  ways = [np.array([4, 3]) / 7, np.array([3, 1, 4]) / 8]
  np.testing.assert_allclose(
      entropy, [-(p * np.log(p)).sum() for p in ways], rtol=1e-6)
  grads = jax.grad(lambda x: logprobs.of_support(x, (tokens, kept))[0].sum())(
      logits)
  np.testing.assert_allclose(
      grads, [[-4 / 7, 4 / 7, 0, 0], [7 / 8, 0, -3 / 8, -4 / 8]], atol=1e-6)
  assert not np.any(jax.grad(
      lambda x: logprobs.of_support(x, (tokens, kept))[1].sum())(logits))


def test_places_that_no_response_has_reached_have_a_finite_gradient():
  """Every token but one ends a response: the sampler stops before R."""
  run, rollout, experience, _ = _run(settings=SETTINGS._replace(
      eos_ids=tuple(range(1, V))))
  assert not rollout.mask[:, -1].any()
  grads, _ = _gradient(run, experience)
  assert np.isfinite(np.concatenate(
      [x.ravel() for x in jax.tree.leaves(grads)])).all()


def test_keeping_the_tokens_changes_no_sample():
  _, rollout, _, _ = _run()
  _, plain, _, _ = _run(settings=SETTINGS._replace(keep_support=False))
  assert plain.support is None
  np.testing.assert_array_equal(rollout.tokens, plain.tokens)
  np.testing.assert_array_equal(rollout.logp, plain.logp)


def test_more_tokens_than_there_are_keep_all():
  _, rollout, _, measured = _run(
      settings=SETTINGS._replace(top_k=V + 3, top_p=1.))
  _, plain, _, _ = _run(settings=tiny_rl.SETTINGS)
  np.testing.assert_array_equal(rollout.tokens, plain.tokens)
  assert rollout.support.tokens.shape[-1] == V + 3
  np.testing.assert_allclose(measured['sampling/kept_tokens'], V)
  np.testing.assert_allclose(measured['sampling/kept_mass'], 1., rtol=1e-6)


@pytest.mark.parametrize('fields', [
    dict(sizes=dict(fsdp=4, tensor=2)), dict(sampling_rounds=2),
    dict(objective=PLAIN._replace(
        mini_batches=2, correction='sequence_mask', correction_cap=1.01,
        correction_floor=.99))], ids=['mesh', 'rounds', 'correction'])
def test_a_truncated_policy_learns_on_meshes_by_rounds_and_corrected(fields):
  fields = fields | dict(settings=SETTINGS)
  if 'sampling_rounds' in fields:
    fields['objective'] = PLAIN._replace(drop_equal_groups=True)
  state, (metrics, *_) = tiny_rl.steps(tiny_rl.Run(**fields), 2)
  assert metrics['sampling/logp_difference'] < 1e-5
  assert 0 < metrics['sampling/kept_mass'] < .99
  if 'sizes' in fields:
    alone, _ = tiny_rl.steps(tiny_rl.Run(settings=SETTINGS), 2)
    tiny.assert_near(state.params, alone.params)
  if 'objective' in fields and fields['objective'].correction:
    assert metrics['sampling/cut'] == 0 and metrics['sampling/kl'] < 1e-8
