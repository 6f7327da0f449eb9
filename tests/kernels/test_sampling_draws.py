"""One draw: its distribution, its log-probability, and its truncation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import group_sampling

# jax.random.uniform's largest float32.
LARGEST = np.float32(1 - 2 ** -23)
# 0.999 quantile of chi-square with 29 degrees of freedom.
CHI_SQUARE_29 = 58.30


def _uniform(shape, seed=0):
  return jax.random.uniform(jax.random.key(seed), shape)


def test_frequencies_are_probabilities():
  draws = 50_000
  logits = np.random.default_rng(0).normal(size=30)
  probability = np.exp(logits) / np.exp(logits).sum()
  assert draws * probability.min() > 100
  token, logp = jax.jit(group_sampling.categorical)(
      jnp.broadcast_to(jnp.float32(logits), (draws, 30)), _uniform((draws, 2)))
  expected = draws * probability
  seen = np.bincount(token, minlength=30)
  assert np.sum((seen - expected) ** 2 / expected) < CHI_SQUARE_29
  np.testing.assert_allclose(logp, np.log(probability)[token], atol=1e-5)


@pytest.mark.parametrize('vocab', [2, 3, 30, 64, 1000])
def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last(vocab):
  logits = jnp.zeros((2, vocab)).at[:, 0].set(-jnp.inf).at[:, -1].set(
      -jnp.inf if vocab > 2 else 0.)
  token, logp = group_sampling.categorical(
      logits, jnp.array([[0., 0.], [LARGEST, LARGEST]]))
  last = vocab - 2 if vocab > 2 else 1
  np.testing.assert_array_equal(token, [1, last])
  np.testing.assert_allclose(logp, -np.log(last), atol=1e-5)


def test_what_cannot_be_is_never_drawn():
  """Not even by uniforms at, or a rounding beside, each token's boundary."""
  vocab, block = 1000, 32
  rng = np.random.default_rng(0)
  logits = np.where(rng.random(vocab) < 0.5, rng.normal(size=vocab), -np.inf)
  rows = np.pad(np.exp(logits), (0, 24)).reshape(block, block)
  cases = []
  for below, mass in ((rows.sum(1), 1), *((row, 0) for row in rows)):
    edges = np.float32(np.cumsum(below) / below.sum())
    near = (edges[:, None] + np.arange(-4, 5) * 2 ** -24).ravel()
    cases.append((np.clip(near, 0, LARGEST), mass))
  blocks, within = cases[0][0], np.concatenate([c for c, _ in cases[1:]])
  middles = np.cumsum(rows.sum(1)) - rows.sum(1) / 2
  uniform = np.concatenate([
      np.stack([blocks, np.full_like(blocks, 0.5)], 1),
      np.stack([np.repeat(middles / rows.sum(), len(within) // block), within],
               1)])
  token, logp = jax.jit(group_sampling.categorical)(
      jnp.broadcast_to(jnp.float32(logits), (len(uniform), vocab)),
      jnp.float32(uniform))
  assert len(np.unique(token)) > 0.9 * np.isfinite(logits).sum()
  assert np.all(np.isfinite(logits[token]))
  assert np.all(np.isfinite(logp))


def _kept(probabilities, top_k=0, top_p=1.):
  logits = jnp.log(jnp.array([probabilities])) + 2.
  kept = group_sampling.truncate(logits, top_k, top_p)[0]
  finite = np.isfinite(kept)
  np.testing.assert_array_equal(kept[finite], logits[0][finite])
  return np.flatnonzero(finite).tolist()


def test_truncation_by_hand():
  probabilities = [.1, .4, .05, .25, .2]  # 1 3 4 0 2 by size
  assert _kept(probabilities) == [0, 1, 2, 3, 4]
  assert _kept(probabilities, top_k=2) == [1, 3]
  assert _kept(probabilities, top_k=99) == [0, 1, 2, 3, 4]
  assert _kept(probabilities, top_p=.3) == [1]  # the first alone reaches it
  assert _kept(probabilities, top_p=.64) == [1, 3]
  assert _kept(probabilities, top_p=.66) == [1, 3, 4]
  assert _kept(probabilities, top_p=1e-9) == [1]  # never none
  # Of the two largest, .4 / .65 = .62 of the mass: p counts what k has left.
  assert _kept(probabilities, top_k=2, top_p=.61) == [1]
  assert _kept(probabilities, top_k=2, top_p=.63) == [1, 3]


def test_a_truncated_draw_has_the_truncated_log_probability():
  logits = jnp.log(jnp.tile(jnp.array([[.1, .4, .05, .25, .2]]), (200, 1)))
  keys = jax.random.split(jax.random.key(0), 200)
  token, logp = group_sampling.draw(
      logits, keys, 0, temperature=1., top_k=2, top_p=1.)
  assert set(np.unique(token)) == {1, 3}
  np.testing.assert_allclose(
      logp, np.where(token == 1, np.log(.4 / .65), np.log(.25 / .65)),
      atol=1e-5)


def test_temperature_divides_the_logits():
  logits = jnp.broadcast_to(jnp.array([0., 1., 2.]), (100, 3))
  keys = jax.random.split(jax.random.key(0), 100)
  cold, logp = group_sampling.draw(
      logits, keys, 0, temperature=.5, top_k=0, top_p=1.)
  np.testing.assert_allclose(
      logp, jax.nn.log_softmax(logits[0] / .5)[cold], atol=1e-5)
  again, _ = group_sampling.draw(
      logits, keys, 1, temperature=.5, top_k=0, top_p=1.)
  assert np.any(cold != again)  # each token has noise of its own


def test_truncation_is_of_what_the_temperature_leaves():
  """At 1/2, .5 .3 .2 become .25 .09 .04 of .38: the first alone has .6."""
  logits = jnp.log(jnp.tile(jnp.array([[.5, .3, .2]]), (100, 1)))
  keys = jax.random.split(jax.random.key(0), 100)
  for temperature, kept in ((.5, {0}), (1., {0, 1}), (4., {0, 1})):
    token, logp = group_sampling.draw(
        logits, keys, 0, temperature=temperature, top_k=0, top_p=.6)
    assert set(np.unique(token)) == kept
    share = np.array([.5, .3, .2]) ** (1 / temperature)
    np.testing.assert_allclose(
        logp, np.log(share / share[sorted(kept)].sum())[token], atol=1e-5)


def test_a_greedy_token_has_the_log_probability_of_the_model():
  token, logp = group_sampling.draw(
      jnp.log(jnp.array([[.5, .3, .2], [.1, .1, .8]])), None, 0,
      temperature=0., top_k=0, top_p=1.)
  np.testing.assert_array_equal(token, [0, 2])
  np.testing.assert_allclose(logp, np.log([.5, .8]), atol=1e-5)


def test_only_differences_of_logits_count():
  """Of each row by itself: exp(1000) is infinite, and exp(-1000) is 0."""
  rows = jnp.log(jnp.tile(jnp.array([[.5, .3, .2]]), (3, 1)))
  uniform = jnp.full((3, 2), .6)
  token, logp = group_sampling.categorical(
      rows + jnp.array([[0.], [1000.], [-1000.]]), uniform)
  np.testing.assert_array_equal(token, token[0])
  np.testing.assert_allclose(logp, logp[0], atol=1e-4)


def test_the_cache_doubles_up_to_the_response():
  assert group_sampling.cache_sizes(100, 16) == [16, 32, 64, 100]
  assert group_sampling.cache_sizes(64, 64) == [64]
  assert group_sampling.cache_sizes(10, 64) == [10]


def test_a_cache_that_is_read_in_blocks_grows_no_more():
  sizes = group_sampling.cache_sizes
  assert sizes(4000, 256) == [256, 512, 1024, 4000]
  assert sizes(32768, 400) == [400, 800, 1600, 32768]
  assert sizes(32768, 8192) == [8192, 32768]
