import functools
import math

import jax
from jax import sharding
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import advantages
from r1jax.kernels import losses
from r1jax.kernels import masked

WAYS = ('sequence_mean', 'token_mean', 'constant')
N, R, MAX_LENGTH = 8, 6, 10


def _batch(seed=0):
  """Responses of length 0 (empty) to R, one of them dropped by its weight."""
  rng = np.random.default_rng(seed)
  length_N = np.array([3, 0, 6, 1, 4, 6, 2, 5])
  mask_NR = np.arange(R) < length_N[:, None]
  old_logp_NR = -rng.exponential(1, (N, R))
  logp_NR = old_logp_NR + rng.normal(0, .3, (N, R))
  advantage_NR = np.repeat(rng.normal(size=(N, 1)), R, axis=1)
  weight_N = np.array([1., 1, 1, 0, 1, 1, 1, 1])
  return logp_NR, old_logp_NR, advantage_NR, mask_NR, weight_N


def _log_ratio(logp_NR, old_logp_NR):
  return losses.log_ratio(logp_NR, old_logp_NR, None, 'token')


def _reference_surrogate(logp, old_logp, advantage, low, high, dual):
  ratio = math.exp(logp - old_logp)
  held = min(max(ratio, 1 - low), 1 + high)
  objective = min(ratio * advantage, held * advantage)
  if dual is not None and advantage < 0:
    objective = max(objective, dual * advantage)
  return -objective


def _reference_aggregate(loss_NR, mask_NR, weight_N, how):
  terms, denominator = [], 0.
  for loss_R, mask_R, weight in zip(loss_NR, mask_NR, weight_N):
    kept = [float(loss) for loss, here in zip(loss_R, mask_R) if here]
    if not kept or not weight:
      continue
    scale = 1 / len(kept) if how == 'sequence_mean' else 1.
    terms += [weight * scale * loss for loss in kept]
    denominator += weight * {
        'sequence_mean': 1, 'token_mean': len(kept),
        'constant': MAX_LENGTH}[how]
  return math.fsum(terms), denominator


def test_surrogate_by_hand():
  ratio = np.array([1., 1.5, 1.5, .5, .5, 5., 5.])
  advantage = np.array([2., 2., -2., 2., -2., 2., -2.])
  got = losses.surrogate(np.log(ratio), advantage, .2, .28, 3.)
  np.testing.assert_allclose(
      got.loss, [-2, -2.56, 3, -1, 1.6, -2.56, 6], rtol=1e-6)
  np.testing.assert_array_equal(got.clipped_low, [0, 0, 0, 0, 1, 0, 0])
  np.testing.assert_array_equal(got.clipped_high, [0, 1, 0, 0, 0, 1, 0])
  np.testing.assert_array_equal(got.clipped_dual, [0, 0, 0, 0, 0, 0, 1])
  nowhere = losses.surrogate(np.log(ratio), np.zeros(7), .2, .28, 3.)
  assert not any(map(np.any, nowhere))  # an advantage of 0 is in no direction


def test_the_ratio_is_new_over_old():
  loss = lambda logp: losses.surrogate(
      losses.log_ratio(logp, -1., True, 'token'), 1., .2, .2).loss
  assert jax.grad(loss)(-1.) == -1  # ascent raises what did well


@pytest.mark.parametrize('low, high, dual', [
    (.2, .2, None), (.2, .28, 3.), (10., 10., None), (10., 10., 1.2)])
def test_surrogate_agrees_with_a_plain_loop(low, high, dual):
  logp_NR, old_logp_NR, advantage_NR, _, _ = _batch()
  expected = np.vectorize(_reference_surrogate, otypes=[float])(
      logp_NR, old_logp_NR, advantage_NR, low, high, dual)
  for advantage in (advantage_NR, advantage_NR[:, :1]):
    got = jax.jit(losses.surrogate, static_argnums=(2, 3, 4))(
        _log_ratio(logp_NR, old_logp_NR), advantage, low, high, dual)
    assert got.loss.dtype == jnp.float32
    assert dual or not np.any(got.clipped_dual)
    np.testing.assert_allclose(got.loss, expected, rtol=1e-5, atol=1e-6)


def test_gradient_is_zero_exactly_where_a_bound_took_effect():
  logp_NR, old_logp_NR, advantage_NR, _, _ = _batch(1)
  logp_NR = logp_NR + (logp_NR - old_logp_NR)  # wider: all bounds are met
  call = functools.partial(
      losses.surrogate, clip_low=.2, clip_high=.28, dual_clip=1.4)
  gradient = jax.grad(lambda x: jnp.sum(
      call(_log_ratio(x, old_logp_NR), advantage_NR).loss))(
          jnp.asarray(logp_NR))
  _, *bounds = call(_log_ratio(logp_NR, old_logp_NR), advantage_NR)
  assert all(np.any(bound) for bound in bounds)
  np.testing.assert_array_equal(
      np.asarray(gradient) == 0, np.any(bounds, axis=0))


def test_a_tie_is_a_half_and_ends_at_its_bound():
  lead = np.array([2., 1.01, 1., .5, 0., -.5, -1., -1.01, -2.]) * 1e-5
  np.testing.assert_array_equal(
      losses.won(lead), [1., 1., .5, .5, .5, .5, .5, 0., 0.])


def test_extreme_ratios_stay_finite():
  tiny = losses.surrogate(-60., -1., 10., 10.)
  assert not tiny.clipped_low and 0 < tiny.loss < 1e-20
  logp = jnp.array([0., 0., 0.])
  advantage = jnp.array([-1., 0., 1.])
  loss = lambda x: losses.surrogate(x + 200., advantage, .2, .2).loss
  np.testing.assert_allclose(loss(logp), [np.exp(20.), 0, -1.2], rtol=1e-5)
  np.testing.assert_array_equal(jax.grad(lambda x: loss(x).sum())(logp), 0)


def test_aggregate_by_hand():
  loss_NR = jnp.array([[1., 2., 3., 9.], [5., 9., 9., 9.]])
  mask_NR = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
  for how, expected in [
      ('sequence_mean', (7., 2.)), ('token_mean', (11., 4.)),
      ('constant', (11., 8.))]:
    assert losses.aggregate(loss_NR, mask_NR, jnp.ones(2), how, 4) == expected
    spoiled_NR = loss_NR.at[0].set(jnp.nan)  # a dropped response
    kept = losses.aggregate(spoiled_NR, mask_NR, jnp.array([0., 1.]), how, 4)
    assert kept == (5., 4. if how == 'constant' else 1.)


@pytest.mark.parametrize('how', WAYS)
def test_aggregate_agrees_with_a_plain_loop(how):
  loss_NR, _, _, mask_NR, weight_N = _batch(2)
  weight_N = weight_N * np.linspace(.1, 2, N)
  got = jax.jit(losses.aggregate, static_argnums=(3, 4))(
      loss_NR, mask_NR, weight_N, how, MAX_LENGTH)
  np.testing.assert_allclose(
      got, _reference_aggregate(loss_NR, mask_NR, weight_N, how), rtol=1e-5)


def test_aggregate_refuses_an_unknown_word():
  with pytest.raises(ValueError, match="'sequence_mean', 'token_mean'"):
    losses.aggregate(jnp.ones((1, 1)), jnp.ones((1, 1), bool), jnp.ones(1),
                     'mean', 1)


@pytest.mark.parametrize('how', WAYS)
def test_nothing_kept_is_zero_with_zero_gradient(how):
  loss_NR, mask_NR = jnp.ones((2, 3)), jnp.array([[True] * 3, [False] * 3])
  weight_N = jnp.array([0., 1.])

  def loss(loss_NR):
    return masked.divide(
        *losses.aggregate(loss_NR, mask_NR, weight_N, how, MAX_LENGTH))

  value, gradient = jax.value_and_grad(loss)(loss_NR)
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


def _sum_and_denominator(logp_NR, old_logp_NR, advantage_NR, mask_NR, weight_N,
                         how):
  """As a stage composes the kernels."""
  logp_NR = masked.select(logp_NR, mask_NR)
  token = losses.surrogate(
      _log_ratio(logp_NR, old_logp_NR), advantage_NR, .2, .28, 3.)
  return losses.aggregate(token.loss, mask_NR, weight_N, how, MAX_LENGTH)


@pytest.mark.parametrize('how', WAYS)
def test_what_is_masked_or_dropped_never_matters(how):
  logp_NR, old_logp_NR, advantage_NR, mask_NR, weight_N = _batch(3)
  gone_NR = ~mask_NR
  value_and_grad = jax.value_and_grad(
      lambda x, old, advantage: masked.divide(*_sum_and_denominator(
          x, old, advantage, mask_NR, weight_N, how)))
  clean = value_and_grad(logp_NR, old_logp_NR, advantage_NR)
  assert np.any(clean[1])
  np.testing.assert_array_equal(np.asarray(clean[1])[gone_NR], 0)
  np.testing.assert_array_equal(np.asarray(clean[1])[weight_N == 0], 0)
  for junk in (np.nan, np.inf, -np.inf, 1e30):
    spoiled = value_and_grad(
        np.where(gone_NR, junk, logp_NR), np.where(gone_NR, -junk, old_logp_NR),
        np.where(gone_NR, junk, advantage_NR))
    np.testing.assert_array_equal(spoiled[0], clean[0])
    np.testing.assert_array_equal(spoiled[1], clean[1])


@pytest.mark.parametrize('how', WAYS)
@pytest.mark.parametrize('micro', [1, 2, 4])
def test_micro_batches_do_not_change_the_loss_or_its_gradient(how, micro):
  batch = _batch(4)
  call = jax.jit(functools.partial(_sum_and_denominator, how=how))
  gradient = jax.grad(lambda *batch: call(*batch)[0])
  whole, denominator = call(*batch)
  parts = [[x[i:i + micro] for x in batch] for i in range(0, N, micro)]
  sums, denominators = zip(*(call(*part) for part in parts))
  assert sum(denominators) == denominator
  np.testing.assert_allclose(
      sum(sums) / sum(denominators), whole / denominator, rtol=1e-6)
  np.testing.assert_allclose(
      np.concatenate([gradient(*part) for part in parts]), gradient(*batch),
      rtol=1e-6)
  means = [masked.divide(*call(*part)) for part in parts]
  assert abs(np.mean(means) - whole / denominator) > 1e-4  # the usual mistake


@pytest.mark.parametrize('how', WAYS)
def test_sharding_does_not_change_the_loss_or_its_gradient(how):
  mesh = jax.make_mesh(
      (4, 2), ('row', 'column'), axis_types=(sharding.AxisType.Auto,) * 2)
  batch = _batch(5)
  place = lambda x: jax.device_put(x, sharding.NamedSharding(
      mesh, sharding.PartitionSpec(*('row', 'column')[:x.ndim])))
  run = jax.jit(jax.value_and_grad(
      lambda *batch: masked.divide(*_sum_and_denominator(*batch, how=how))))
  whole, sharded = run(*batch), run(*map(place, batch))
  assert len(sharded[1].sharding.device_set) == 8
  np.testing.assert_allclose(whole[0], sharded[0], rtol=1e-5)
  np.testing.assert_allclose(whole[1], sharded[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('how', WAYS)
def test_gradients_by_finite_differences(how):
  with jax.enable_x64(True):
    logp_NR, *rest = map(jnp.asarray, _batch(6))
    loss = jax.jit(
        lambda x: masked.divide(*_sum_and_denominator(x, *rest, how=how)))
    test_util.check_grads(loss, (logp_NR,), order=1, modes=['rev'])


def test_on_policy_the_loss_is_zero_and_its_gradient_is_not():
  reward_BG = jnp.array([[1., 0, 0, 1], [0, 1, 0, 0]])
  advantage_N = advantages.grpo(reward_BG).ravel()
  logp_NR, _, _, mask_NR, _ = _batch(7)
  mask_NR[1, 0] = True  # no response of a sampler is empty
  advantage_NR = np.repeat(advantage_N[:, None], R, axis=1)
  loss = lambda x: masked.divide(*_sum_and_denominator(
      x, logp_NR, advantage_NR, mask_NR, np.ones(N), 'sequence_mean'))
  value, gradient = jax.value_and_grad(loss)(logp_NR)
  np.testing.assert_allclose(value, 0, atol=1e-6)
  length_N1 = mask_NR.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
      gradient, -advantage_NR * mask_NR / length_N1 / N, rtol=1e-5, atol=1e-8)


def test_vmap_over_batches():
  batches = [_batch(seed) for seed in range(3)]
  call = functools.partial(_sum_and_denominator, how='token_mean')
  got = jax.vmap(call)(*map(np.stack, zip(*batches)))
  np.testing.assert_allclose(
      np.transpose(got), [call(*batch) for batch in batches], rtol=1e-6)


def test_cross_entropy():
  logp_BT = jnp.log(jnp.array([[.5, .25, 0.], [.1, .2, .3]]))
  weight_BT = jnp.array([[1., .5, 0.], [0., 0., 0.]])
  got = losses.cross_entropy(logp_BT, weight_BT)
  np.testing.assert_allclose(got, (2 * math.log(2), 1.5), rtol=1e-6)
  gradient = jax.grad(lambda x: losses.cross_entropy(x, weight_BT)[0])(logp_BT)
  np.testing.assert_array_equal(gradient, -weight_BT)
  assert losses.cross_entropy(logp_BT, jnp.zeros((2, 3))) == (0, 0)
