"""GSPO, CISPO and the entropy bonus beside plain loops over their equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import logprobs
from r1jax.kernels import losses
from r1jax.kernels import masked

LENGTHS = np.array([3, 1, 6, 4, 2, 5, 1, 3])
N, R = len(LENGTHS), LENGTHS.max()
MASK = np.arange(R) < LENGTHS[:, None]
LOW, HIGH = .2, .28


@functools.cache
def _batch(seed=0):
  """Log p, old log p and one advantage per response."""
  rng = np.random.default_rng(seed)
  old_NR = -rng.exponential(1, (N, R))
  return old_NR + rng.normal(0, .5, (N, R)), old_NR, rng.normal(size=N)


def _loss(logp_NR, level, surrogate, advantage_NR=None, aggregate=None):
  logp_NR = masked.select(logp_NR, MASK)
  _, old_NR, advantage_N = _batch()
  log_ratio_NR = losses.log_ratio(logp_NR, old_NR, MASK, level)
  if advantage_NR is None:
    advantage_NR = advantage_N[:, None]
  found = (losses.cispo(logp_NR, log_ratio_NR, advantage_NR, LOW, HIGH)
           if surrogate == 'cispo' else
           losses.surrogate(log_ratio_NR, advantage_NR, LOW, HIGH))
  return masked.divide(*losses.aggregate(
      found.loss, MASK, np.ones(N), aggregate, R)), found


def _gradient(*settings, **changes):
  return np.asarray(jax.grad(lambda x: _loss(x, *settings, **changes)[0])(
      jnp.asarray(_batch()[0], jnp.float32)))


def _gspo_by_hand():
  """-J of GSPO, eq. 5, and its gradient in each log p, eq. 10."""
  logp_NR, old_NR, advantage_N = _batch()
  value, gradient_NR, clipped = 0., np.zeros((N, R)), 0
  for i, length in enumerate(LENGTHS):
    s = np.exp(sum(logp_NR[i, t] - old_NR[i, t] for t in range(length))
               / length)
    a = advantage_N[i]
    bound = min(max(s, 1 - LOW), 1 + HIGH)
    value -= min(s * a, bound * a) / N
    if s * a <= bound * a:
      gradient_NR[i, :length] = -s * a / length / N
    else:
      clipped += 1
  assert 0 < clipped < N
  return value, gradient_NR


def test_gspo_is_its_equation():
  value, gradient_NR = _gspo_by_hand()
  settings = 'sequence', 'clip'
  got, _ = _loss(_batch()[0], *settings, aggregate='sequence_mean')
  np.testing.assert_allclose(got, value, rtol=1e-5)
  np.testing.assert_allclose(
      _gradient(*settings, aggregate='sequence_mean'), gradient_NR, rtol=1e-5,
      atol=1e-7)


def test_gspos_tokens_may_have_advantages_of_their_own():
  """GSPO-token, eq. 13: each token's gradient is s A_t / |y|."""
  logp_NR, old_NR, _ = _batch()
  advantage_NR = np.random.default_rng(3).normal(size=(N, R))
  expected = np.zeros((N, R))
  for i, length in enumerate(LENGTHS):
    s = np.exp(np.mean((logp_NR - old_NR)[i, :length]))
    for t, a in enumerate(advantage_NR[i, :length]):
      if s * a <= min(max(s, 1 - LOW), 1 + HIGH) * a:
        expected[i, t] = -s * a / length / N
  np.testing.assert_allclose(
      _gradient('sequence', 'clip', advantage_NR, aggregate='sequence_mean'),
      expected, rtol=1e-5, atol=1e-7)


def test_cispo_is_its_equation():
  """Every token has a gradient, that of a weight within the bounds."""
  logp_NR, old_NR, advantage_N = _batch()
  value, gradient_NR = 0., np.zeros((N, R))
  for i, length in enumerate(LENGTHS):
    for t in range(length):
      weight = min(max(np.exp(logp_NR[i, t] - old_NR[i, t]), 1 - LOW), 1 + HIGH)
      value -= weight * advantage_N[i] * logp_NR[i, t] / LENGTHS.sum()
      gradient_NR[i, t] = -weight * advantage_N[i] / LENGTHS.sum()
  got, found = _loss(logp_NR, 'token', 'cispo', aggregate='token_mean')
  np.testing.assert_allclose(got, value, rtol=1e-5)
  np.testing.assert_allclose(
      _gradient('token', 'cispo', aggregate='token_mean'), gradient_NR,
      rtol=1e-5, atol=1e-7)
  ratio_NR = np.exp(logp_NR - old_NR)
  np.testing.assert_array_equal(found.clipped_low[MASK], ratio_NR[MASK] < .8)
  np.testing.assert_array_equal(found.clipped_high[MASK], ratio_NR[MASK] > 1.28)
  assert not found.clipped_dual.any()


def test_a_sequences_ratio_never_reads_padding():
  logp_NR, old_NR, _ = _batch()
  for junk in (np.nan, np.inf, 1e30):
    call = lambda x, old: losses.log_ratio(x, old, MASK, 'sequence')
    spoiled = np.where(MASK, logp_NR, junk), np.where(MASK, old_NR, -junk)
    np.testing.assert_array_equal(
        call(*spoiled)[MASK], call(logp_NR, old_NR)[MASK])
    gradient = jax.grad(lambda x: call(x, spoiled[1])[MASK].sum())(spoiled[0])
    np.testing.assert_array_equal(gradient, MASK)


@pytest.mark.parametrize('kept', [False, True])
def test_the_entropy_has_its_gradient_where_it_is_asked_for(kept):
  """d H / d logit = -p (log p + H), over all tokens or over those kept."""
  logits_V = np.random.default_rng(0).normal(size=7)
  inside = np.array([0, 2, 3, 6]) if kept else np.arange(7)
  p = np.exp(logits_V[inside])
  p /= p.sum()
  entropy = -sum(p * np.log(p))
  expected = np.zeros(7)
  expected[inside] = -p * (np.log(p) + entropy)
  measure, arguments = logprobs.of_logits, jnp.array(2)
  if kept:
    measure = logprobs.of_support
    arguments = jnp.array(2), jnp.array([*inside, -1])
  for differentiate in (False, True):
    value, gradient = jax.value_and_grad(lambda x: measure(
        x, arguments, differentiate=differentiate)[1])(
            jnp.asarray(logits_V, jnp.float32))
    np.testing.assert_allclose(value, entropy, rtol=1e-5)
    np.testing.assert_allclose(
        gradient, expected * differentiate, rtol=1e-4, atol=1e-7)
