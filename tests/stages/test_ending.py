"""The benchmark's model whose responses end."""

import functools

import jax
import numpy as np

import tiny
from r1jax.kernels import logprobs
from r1jax.stages import ending
from r1jax.stages import rollouts

MEAN, MOST, PROMPT = 6, 36, 5


@functools.cache
def _sampled():
  """1,024 responses, and their log-probabilities by the update's pass."""
  model = ending.model(tiny.model(), PROMPT, MEAN, MOST, tiny.EOS)
  prompts = tiny.prompts((PROMPT,) * 8)
  settings = rollouts.Settings(128, MOST, (tiny.EOS,), 1., MOST, slots=128)
  rollout = jax.jit(rollouts.sample_groups, static_argnums=(0, 1))(
      model, settings, tiny.params(), prompts, np.uint32(0), np.uint32(0))
  logp, _ = jax.jit(lambda params, tokens: logprobs.of_responses(
      model, params, prompts, tokens, temperature=1., chunk=8))(
          tiny.params(), rollout.tokens)
  return jax.device_get((rollout, logp))


def test_lengths_are_log_normal():
  """Kolmogorov's distance to as many drawn by NumPy is below its 99.9 %."""
  rollout, _ = _sampled()
  lengths = rollout.mask.sum(1)
  assert set(rollout.tokens[lengths < MOST, lengths[lengths < MOST] - 1]) == {
      tiny.EOS}
  count = 100_000
  drawn = np.clip(np.ceil(np.random.default_rng(0).lognormal(
      np.log(MEAN) - .5, 1., count)), 1, MOST)
  below = lambda x: np.searchsorted(np.sort(x), np.arange(MOST + 1), 'right')
  distance = np.abs(below(lengths) / len(lengths) - below(drawn) / count).max()
  assert distance < 1.95 * (1 / len(lengths) + 1 / count) ** .5
  assert 5 < lengths.mean() < 7 and lengths.max() == MOST


def test_it_is_one_policy_for_sampler_and_update():
  rollout, logp = _sampled()
  np.testing.assert_allclose(
      np.where(rollout.mask, logp, 0.), rollout.logp, atol=1e-4)
