"""Schedules, weight decay, clipping, and updates that must not happen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from r1jax import errors
from r1jax import types
from r1jax.parallel import sharding
from r1jax.training import accumulate
from r1jax.training import optim

PARAMS = {'w': jnp.array([[1., -2.], [3., 4.]]), 'bias': jnp.ones((2, 2)),
          'norm_scale': jnp.ones((3, 2)), 'vector': jnp.ones(2)}


def _update(optimizer, grads, params, state, skipped=0):
  """The new parameters, optimizer state, count of skipped, and metrics."""
  state, metrics = optim.update(optimizer, grads, types.TrainState(
      jnp.int32(0), params, state, None, jnp.int32(skipped)))
  return state.params, state.opt_state, state.skipped, metrics


def test_constant_schedule_warms_up_from_its_first_update():
  rate = optim.schedule('constant', 0.4, 100, 4, 0.1)
  np.testing.assert_allclose(
      [rate(i) for i in range(6)], [.1, .2, .3, .4, .4, .4], rtol=1e-6)
  np.testing.assert_allclose(
      optim.schedule('constant', 0.4, 100, 1, 0.1)(0), 0.4, rtol=1e-6)


def test_cosine_schedule_ends_at_its_fraction():
  rate = optim.schedule('cosine', 2., 14, 4, 0.1)
  # Half-way between 2 and .2 at the middle of the 10 updates of the cosine.
  np.testing.assert_allclose(
      [rate(3), rate(4), rate(9), rate(14)], [2., 2., 1.1, .2], rtol=1e-6)


def test_schedule_refuses():
  with pytest.raises(errors.ConfigError, match='config.optim.schedule'):
    optim.schedule('linear', 1., 10, 0, 0.1)


@pytest.mark.parametrize('kind', ['constant', 'cosine'])
def test_a_warm_up_ends_before_the_run(kind):
  """Of every schedule; where nothing is updated, nothing warms up."""
  for steps in (1, 10):
    for warmup in (steps, steps + 1):
      with pytest.raises(errors.ConfigError, match=(
          'config.optim.warmup_steps: expected fewer than the '
          f'{steps} updates of the run, received {warmup}')):
        optim.schedule(kind, 1., steps, warmup, 0.1)
    optim.schedule(kind, 1., steps, steps - 1, 0.1)
  optim.schedule(kind, 1., 0, 5, 0.1)


def test_weight_decay_spares_norms_biases_and_vectors():
  assert optim.decays(PARAMS) == {
      'w': True, 'bias': False, 'norm_scale': False, 'vector': False}
  optimizer = optim.make_optimizer(lr=0.1, steps=10, weight_decay=0.5)
  state = optimizer.init(PARAMS)
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  new, *_ = _update(optimizer, zeros, PARAMS, state)
  np.testing.assert_allclose(new['w'], PARAMS['w'] * (1 - 0.1 * 0.5))
  for name in ('bias', 'norm_scale', 'vector'):
    np.testing.assert_array_equal(new[name], PARAMS[name])
  stacked = {'scale': jnp.ones((2, 3)), 'q_norm': jnp.ones((2, 3))}
  assert not any(optim.decays(stacked).values())


def test_two_updates_against_adam_by_hand():
  b1, b2, eps, lr, decay = 0.9, 0.95, 0.02, 0.01, 0.1
  optimizer = optim.make_optimizer(lr=lr, steps=10, b1=b1, b2=b2, eps=eps,
                                   weight_decay=decay, clip_norm=1.0)
  params = {'w': jnp.array([[1., 2.]])}
  state = optimizer.init(params)
  expected, m, v = np.array([[1., 2.]]), 0., 0.
  for i, g in enumerate([np.array([[3., 4.]]), np.array([[.3, -.4]])], 1):
    params, state, skipped, metrics = _update(
        optimizer, {'w': jnp.array(g)}, params, state)
    norm = np.sqrt(np.sum(g ** 2))
    np.testing.assert_allclose(metrics['optim/grad_norm'], norm, rtol=1e-6)
    g = g / max(norm, 1.)
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g ** 2
    step = m / (1 - b1 ** i) / (np.sqrt(v / (1 - b2 ** i)) + eps)
    expected = expected - lr * (step + decay * expected)
    np.testing.assert_allclose(params['w'], expected, rtol=1e-5)
    assert skipped == 0 and metrics['optim/skipped'] == 0.


@pytest.mark.parametrize('bad', [jnp.nan, jnp.inf])
def test_a_gradient_that_is_not_finite_changes_no_bit(bad):
  optimizer = optim.make_optimizer(
      lr=0.1, steps=10, warmup_steps=5, weight_decay=0.1)
  update = jax.jit(lambda *args: _update(optimizer, *args))
  good = jax.tree.map(lambda x: 0.1 * x, PARAMS)
  wrong = good | {'vector': good['vector'].at[1].set(bad)}
  params, state, skipped, metrics = update(
      good, PARAMS, optimizer.init(PARAMS), jnp.int32(0))
  np.testing.assert_allclose(metrics['optim/lr'], 0.02, rtol=1e-6)
  kept = params, state
  for count in (1, 2):
    params, state, skipped, metrics = update(wrong, params, state, skipped)
    assert skipped == count and metrics['optim/skipped'] == 1.
    assert not np.isfinite(metrics['optim/grad_norm'])
    jax.tree.map(np.testing.assert_array_equal, (params, state), kept)
  params, state, skipped, metrics = update(good, params, state, skipped)
  assert skipped == 0
  # The schedule goes on where it stood before the skipped updates.
  np.testing.assert_allclose(metrics['optim/lr'], 0.04, rtol=1e-6)
  assert not np.array_equal(params['w'], kept[0]['w'])


@pytest.mark.parametrize('params, state, lr', [
    # The weights come out infinite, from a small gradient.
    (PARAMS | {'w': jnp.full((2, 2), 3e38)}, {}, 1e38),
    (PARAMS | {'vector': jnp.array([1., -3e38])}, {}, 1e38),
    (PARAMS | {'vector': jnp.array([jnp.nan, 1.])}, {}, .1),
    # Finite as float32, but not rounded to bfloat16.
    (PARAMS | {'norm_scale': jnp.full((3, 2), 3e38, jnp.bfloat16)}, {},
     3.4e38 - float(jnp.bfloat16(3e38))),
    # A moment is infinite, though no weight becomes so.
    (PARAMS, {'nu': jnp.inf}, .1), (PARAMS, {'mu': jnp.nan}, .1)])
@pytest.mark.parametrize('masters', [False, True])
def test_an_update_that_is_not_finite_changes_no_bit(
    params, state, lr, masters):
  optimizer = optim.make_optimizer(lr=lr, steps=10, master_weights=masters)
  grads = jax.tree.map(lambda x: jnp.full(x.shape, -1e-3), params)
  grads['vector'] = -grads['vector']
  start = optimizer.init(params)
  inner = list(start.inner if masters else start)
  for name, value in state.items():
    moments = getattr(inner[1], name)
    inner[1] = inner[1]._replace(**{
        name: moments | {'vector': moments['vector'].at[1].set(value)}})
  start = start._replace(inner=tuple(inner)) if masters else tuple(inner)
  new, after, skipped, metrics = jax.jit(
      lambda *args: _update(optimizer, *args))(
          grads, params, start, jnp.int32(2))
  assert np.isfinite(metrics['optim/grad_norm'])
  assert skipped == 3 and metrics['optim/skipped'] == 1.
  jax.tree.map(np.testing.assert_array_equal, (new, after), (params, start))


def test_a_gradient_whose_norm_is_infinite_is_none_and_large_weights_may_be():
  optimizer = optim.make_optimizer(lr=.1, steps=10)
  state = optimizer.init(PARAMS)
  grads = jax.tree.map(lambda x: jnp.full(x.shape, 1e25), PARAMS)
  *_, skipped, metrics = _update(optimizer, grads, PARAMS, state)
  assert skipped == 1 and metrics['optim/grad_norm'] == jnp.inf
  large = PARAMS | {'w': jnp.full((2, 2), 3e38)}  # whose sum is infinite
  grads = jax.tree.map(jnp.ones_like, large)
  _, _, skipped, _ = _update(optimizer, grads, large, state)
  assert skipped == 0


def test_moments_are_float32_whatever_the_parameters_are():
  """In bfloat16 the second moment would stay at 200 for ever."""
  params = {'w': jnp.ones((2, 2), jnp.bfloat16), 'bias': jnp.ones(2)}
  optimizer = optim.make_optimizer(lr=1e-3, steps=200, clip_norm=0.)
  state, exact = optimizer.init(params), optimizer.init(
      jax.tree.map(lambda x: x.astype(jnp.float32), params))
  update = jax.jit(lambda *args: _update(optimizer, *args))
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  for size in [100.] * 20 + [1.] * 40:
    grads = jax.tree.map(lambda x, size=size: jnp.full(x.shape, size), wide)
    params, state, *_ = update(grads, params, state, 0)
    wide, exact, *_ = update(grads, wide, exact, 0)
  assert {str(x.dtype) for x in jax.tree.leaves((state[1].mu, state[1].nu))
          } == {'float32'}
  assert jax.tree.map(lambda x: str(x.dtype), params) == {
      'w': 'bfloat16', 'bias': 'float32'}
  jax.tree.map(np.testing.assert_array_equal, state[1], exact[1])
  by_hand = 0.
  for size in [100.] * 20 + [1.] * 40:
    by_hand = .95 * by_hand + .05 * size ** 2
  np.testing.assert_allclose(state[1].nu['w'], by_hand, rtol=1e-4)


def test_master_weights_keep_what_bfloat16_rounds_away():
  """Updates of 1e-4: each is lost in a weight of 1, a hundred are not."""
  start = {'w': jnp.ones((2, 2), jnp.bfloat16), 'bias': jnp.ones(2)}
  grads = jax.tree.map(lambda x: jnp.ones(x.shape), start)
  ends = {}
  for masters in (False, True):
    optimizer = optim.make_optimizer(
        lr=1e-4, steps=200, clip_norm=0., master_weights=masters)
    params, state = start, optimizer.init(start)
    update = jax.jit(lambda *args, o=optimizer: _update(o, *args))
    for _ in range(100):
      params, state, *_ = update(grads, params, state, 0)
    ends[masters] = params
  assert (ends[False]['w'] == 1.).all()
  np.testing.assert_allclose(state.weights['w'], .99, rtol=1e-5)
  np.testing.assert_array_equal(
      ends[True]['w'], state.weights['w'].astype(jnp.bfloat16))
  # A float32 parameter is its own master, bit for bit.
  np.testing.assert_array_equal(ends[True]['bias'], ends[False]['bias'])
  np.testing.assert_array_equal(ends[True]['bias'], state.weights['bias'])


def test_a_parameter_that_was_set_since_counts_and_its_master_does_not():
  params = {'w': jnp.ones((2, 2), jnp.bfloat16)}
  optimizer = optim.make_optimizer(
      lr=1e-4, steps=9, clip_norm=0., master_weights=True)
  state = optimizer.init(params)
  params = {'w': params['w'].at[0, 0].set(2.)}
  params, state, *_ = _update(
      optimizer, {'w': jnp.ones((2, 2))}, params, state)
  np.testing.assert_allclose(
      state.weights['w'], [[1.9999, .9999], [.9999, .9999]], rtol=1e-6)


def test_masters_are_arrays_of_their_own():
  """The next step may donate the parameters."""
  params = {'bias': jnp.ones(2)}
  optimizer = optim.make_optimizer(lr=.1, steps=9, master_weights=True)
  state = optimizer.init(params)
  params['bias'].delete()
  np.testing.assert_array_equal(state.weights['bias'], [1., 1.])


def test_no_rounding_is_left_to_a_conversion():
  """XLA may take float32 to bfloat16 and back for nothing, on accelerators."""
  params = {'w': jnp.ones((2, 2), jnp.bfloat16), 'bias': jnp.ones(2)}
  optimizer = optim.make_optimizer(lr=1e-4, steps=9, master_weights=True)
  traced = jax.make_jaxpr(lambda *args: _update(optimizer, *args))(
      jax.tree.map(jnp.ones_like, params), params, optimizer.init(params), 0)
  rounded, conversions = set(), []
  for equation in traced.eqns:
    if equation.primitive.name == 'reduce_precision':
      rounded.update(equation.outvars)
    elif equation.params.get('new_dtype') == jnp.bfloat16:
      conversions += equation.invars
  assert len(rounded) == 2 and len(conversions) == 1  # w and its master
  assert rounded.issuperset(conversions)


def test_master_weights_live_with_their_parameters():
  mesh = sharding.make_mesh(dict(fsdp=-1))
  params = {'gate': jnp.ones((8, 4), jnp.bfloat16), 'router_bias': jnp.ones(4)}
  shardings = sharding.shardings(
      {'gate': ('embed', None), 'router_bias': (None,)}, params, mesh,
      (('embed', 'fsdp'),))
  optimizer = optim.make_optimizer(lr=0.1, steps=10, master_weights=True)
  target = optim.state_shardings(
      optimizer, params, shardings, sharding.replicated(mesh))
  state = jax.jit(optimizer.init, out_shardings=target)(
      jax.device_put(params, shardings))
  for leaf in (state.weights['gate'], state.inner[1].nu['gate']):
    assert leaf.addressable_shards[0].data.shape == (1, 4)
    assert leaf.dtype == jnp.float32
  assert state.weights['router_bias'] is None


def test_moments_live_with_their_parameters():
  mesh = sharding.make_mesh(dict(fsdp=-1))
  params = {'w': jnp.ones((8, 4)), 'scale': jnp.ones(4)}
  shardings = sharding.shardings(
      {'w': ('embed', None), 'scale': (None,)}, params, mesh,
      (('embed', 'fsdp'),))
  optimizer = optim.make_optimizer(lr=0.1, steps=10)
  target = optim.state_shardings(
      optimizer, params, shardings, sharding.replicated(mesh))
  state = jax.jit(optimizer.init, out_shardings=target)(
      jax.device_put(params, shardings))
  assert state[1].mu['w'].addressable_shards[0].data.shape == (1, 4)
  assert state[1].nu['scale'].sharding.is_fully_replicated
  assert state[1].count.sharding.is_fully_replicated


# Two layers of three experts.
BIASED = PARAMS | {'moe': {'router_bias': jnp.array([[0., 0., 0.],
                                                     [.5, 1., 2.]])}}
LOAD = jnp.array([[4., 1., 1.], [3., 3., 3.]])


def _biased(optimizer, load=LOAD, **changes):
  """The update by gradients of 0.1 * PARAMS and this load."""
  grads = jax.tree.map(lambda x: 0.1 * x, PARAMS) | changes
  state = optimizer.init(BIASED)
  return _update(
      optimizer, grads | {'moe': {'router_bias': load}}, BIASED, state), state


def test_the_router_bias_steps_against_its_load_and_else_nothing_knows_of_it():
  optimizer = optim.make_optimizer(
      lr=.1, steps=9, weight_decay=.5, router_bias_rate=.25)
  (params, state, _, metrics), _ = _biased(optimizer)
  np.testing.assert_allclose(
      params.pop('moe')['router_bias'], [[-.25, .25, .25], [.5, 1., 2.]])
  np.testing.assert_allclose(metrics.pop('moe/load_max_over_mean'), 1.5)
  np.testing.assert_allclose(metrics.pop('moe/load_min_over_mean'), .75)
  # Bitwise what a model without experts has: parameters, state and norm.
  expected = _update(optimizer, jax.tree.map(lambda x: .1 * x, PARAMS), PARAMS,
                     optimizer.init(PARAMS))
  jax.tree.map(np.testing.assert_array_equal,
               (params, jax.tree.leaves(state), metrics),
               (expected[0], jax.tree.leaves(expected[1]), expected[3]))


def test_a_model_without_experts_has_the_state_and_updates_of_plain_optax():
  optimizer = optim.make_optimizer(
      lr=.1, steps=9, weight_decay=.5, clip_norm=.2)
  plain = optax.chain(
      optax.identity(), optax.scale_by_adam(.9, .95, 1e-8),
      optax.add_decayed_weights(.5, mask=optim.decays),
      optax.scale_by_learning_rate(optimizer.schedule))
  state, grads = plain.init(PARAMS), jax.tree.map(jnp.sin, PARAMS)
  jax.tree.map(np.testing.assert_array_equal, optimizer.init(PARAMS), state)
  scale = .2 / optim.global_norm(grads)
  changes, state = plain.update(
      jax.tree.map(lambda g: scale * g, grads), state, PARAMS)
  with jax.disable_jit():  # one operation after the other, as here
    got = _update(optimizer, grads, PARAMS, optimizer.init(PARAMS))
  jax.tree.map(np.testing.assert_array_equal, got[:2],
               (optax.apply_updates(PARAMS, changes), state))
  assert set(got[3]) == {'optim/grad_norm', 'optim/lr', 'optim/skipped'}


def test_a_new_state_takes_the_place_of_the_old():
  """Parameters and moments are never in memory twice."""
  params = {'w': jnp.ones((256, 512))}
  optimizer = optim.make_optimizer(lr=.1, steps=9)
  state = types.TrainState(jnp.int32(0), params, optimizer.init(params), None,
                           jnp.int32(0))
  program = jax.jit(lambda state, grads: optim.update(optimizer, grads, state),
                    donate_argnums=0).lower(state, params).compile()
  assert program.memory_analysis().temp_size_in_bytes < params['w'].nbytes


def test_a_skipped_update_leaves_the_router_bias_alone():
  optimizer = optim.make_optimizer(lr=.1, steps=9)
  (params, state, skipped, metrics), old = _biased(
      optimizer, vector=jnp.array([1., jnp.inf]))
  assert skipped == 1 and metrics['optim/skipped'] == 1.
  jax.tree.map(np.testing.assert_array_equal, (params, state), (BIASED, old))


def test_no_rate_or_no_load_leaves_the_router_bias_alone():
  for rate, load in ((0., LOAD), (.1, jnp.zeros_like(LOAD))):
    (params, _, _, metrics), _ = _biased(
        optim.make_optimizer(lr=.1, steps=9, router_bias_rate=rate), load)
    np.testing.assert_array_equal(
        params['moe']['router_bias'], BIASED['moe']['router_bias'])
    assert np.isfinite(metrics['moe/load_max_over_mean'])


def test_an_even_load_is_even_in_every_unit():
  even, bias = jnp.full((1, 7), 5.), jnp.zeros((1, 7))
  one_more = even.at[0, 2].add(1.)
  for unit in np.random.default_rng(0).uniform(1e-6, 1e6, 200).astype('f'):
    assert not optim.balanced(bias, even / unit, .1).any()
    np.testing.assert_allclose(
        optim.balanced(bias, one_more / unit, .1),
        jnp.full((1, 7), .1).at[0, 2].set(-.1))
  # One token in ten thousand is no rounding.
  assert (optim.balanced(bias, 2000 * even + one_more - even, .1) != 0).all()


@pytest.mark.parametrize('micro_batches', [1, 2, 4])
def test_a_losss_denominator_leaves_the_signs_of_loads_alone(micro_batches):
  counts = np.random.default_rng(0).integers(0, 5, (4, 3, 7)).astype('f')
  load = counts.sum(0)
  assert (load == load.mean(-1, keepdims=True)).any()

  def loss(params, batch):  # whose gradient is a micro-batch's load
    return (jnp.vdot(params['router_bias'], batch.sum(0)), jnp.float32(.6)), {}

  grads, _ = accumulate.gradients(
      loss, {'router_bias': jnp.zeros((3, 7))},
      accumulate.split(jnp.asarray(counts), micro_batches))
  np.testing.assert_array_equal(
      optim.balanced(jnp.zeros((3, 7)), grads['router_bias'], .1),
      -np.float32(.1) * np.sign(load - load.mean(-1, keepdims=True)))


def test_moments_of_a_model_with_experts_live_with_their_parameters():
  mesh = sharding.make_mesh(dict(fsdp=-1))
  params = {'gate': jnp.ones((8, 4)), 'router_bias': jnp.ones(4)}
  shardings = sharding.shardings(
      {'gate': ('embed', None), 'router_bias': (None,)}, params, mesh,
      (('embed', 'fsdp'),))
  optimizer = optim.make_optimizer(lr=0.1, steps=10)
  target = optim.state_shardings(
      optimizer, params, shardings, sharding.replicated(mesh))
  state = jax.jit(optimizer.init, out_shardings=target)(
      jax.device_put(params, shardings))
  assert state[1].mu['gate'].addressable_shards[0].data.shape == (1, 4)
  assert state[1].mu['router_bias'] is None
