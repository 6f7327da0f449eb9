"""A mixture of experts: who is chosen, what comes out, what counts as load."""

import collections
import dataclasses
import functools
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

import tiny
from experiments import machine_sections
from r1jax.kernels import exchange
from r1jax.models import architecture
from r1jax.models import layers
from r1jax.models import moe
from r1jax.parallel import sharding
from r1jax.training import accumulate
from r1jax.training import optim

EXPERTS = architecture.Experts(experts=8, active=3, mlp=12, shared=2, groups=4,
                        active_groups=2, scale=2.5)
ROWS, LENGTH, WIDTH = 8, 5, tiny.SHAPE['width']
MESHES = [dict(expert=4, tensor=2), dict(data=2, expert=2, tensor=2),
          dict(fsdp=2, expert=4), dict(data=8)]
OTHER_RULES = (  # Experts over two axes, of which one splits tokens, too.
    ('batch', ('data', 'expert')), ('embed', None), ('mlp', 'data'),
    ('expert', ('expert', 'tensor')))


def _layer(place=None, dtype='float32', **changes):
  return moe.MoE(tiny.config(
      dtype=dtype, moe=dataclasses.replace(EXPERTS, **changes)), place)


def _x(seed=0, rows=ROWS):
  x = np.random.default_rng(seed).normal(size=(rows, LENGTH, WIDTH))
  return jnp.asarray(x, jnp.float32)


@functools.cache
def _boxed(layer):
  return jax.eval_shape(layer.init, jax.random.key(0), _x())['params']


@functools.cache
def _params(layer=_layer(), seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
      nn.meta.unbox(_boxed(layer)))


def _apply(layer, params, x):
  return jax.jit(lambda p, x: layer.apply({'params': p}, x)[0])(params, x)


@functools.partial(jax.jit, static_argnums=0)
def _gradients(layer, params, x, weight=1.):
  def loss(params, x):
    y, _ = layer.apply({'params': params}, x)
    return jnp.sum(weight * jnp.sin(y)), y
  return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)


def _numpy_choice(config, score, bias):
  """One token's experts, in any order."""
  biased = score + bias
  size = config.experts // config.groups
  best = [np.sort(biased[g * size:(g + 1) * size])[-2:].sum()
          for g in range(config.groups)]
  active = np.argsort(best)[-config.active_groups:]
  able = [e for e in range(config.experts) if e // size in active]
  return sorted(able, key=lambda e: biased[e])[-config.active:]


def _numpy_mlp(x, gate, up, down):
  gated = x @ gate
  return (gated / (1 + np.exp(-gated)) * (x @ up)) @ down


def _numpy_layer(config, params, x):
  """A token at a time, an expert at a time, in float64."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  out = np.zeros(x.shape)
  for at in np.ndindex(x.shape[:-1]):
    token = np.asarray(x[at], np.float64)
    score = 1 / (1 + np.exp(-token @ p['router']))
    chosen = _numpy_choice(config, score, p['router_bias'])
    total = score[chosen].sum() if config.normalize else 1.
    for e in chosen:
      out[at] += config.scale * score[e] / total * _numpy_mlp(
          token, p['gate'][e], p['up'][e], p['down'][e])
    if config.shared:
      out[at] += _numpy_mlp(token, *(
          p['shared'][name] for name in ('gate', 'up', 'down')))
  return out


def _route(score, bias=None, **fields):
  config = architecture.Experts(experts=len(score), mlp=1, **fields)
  score_NE = jnp.array([score])
  chosen = moe.choose(config, score_NE, jnp.array(bias or [0.] * len(score)))
  weight = moe.weigh(config, score_NE, chosen)
  return dict(zip(chosen[0].tolist(), weight[0].tolist()))


def test_the_best_scores_are_chosen_and_weigh():
  score = [.1, .6, .2, .3]
  assert _route(score, active=2) == pytest.approx({1: 2 / 3, 3: 1 / 3})
  assert _route(score, active=2, normalize=False) == pytest.approx(
      {1: .6, 3: .3})
  assert _route(score, active=2, scale=3.) == pytest.approx({1: 2., 3: 1.})


def test_scores_that_are_all_0_weigh_nothing():
  """A sigmoid of -200 is 0 in float32."""
  assert _route([0.] * 4, active=2) == {0: 0., 1: 0.}


def test_the_bias_changes_the_choice_and_no_weight():
  assert _route([.1, .6, .2, .3], [.4, -1., 0., 0.], active=2) == (
      pytest.approx({0: .25, 3: .75}))


def test_the_best_expert_of_a_group_that_is_not_chosen():
  # Groups by their two best: .9 + .0, .5 + .6, .45 + .48, .1 + .1.
  score = [.9, .0, .5, .6, .45, .48, .1, .1]
  groups = dict(active=3, groups=4, normalize=False)
  assert _route(score, active_groups=2, **groups) == pytest.approx(
      {3: .6, 2: .5, 5: .48})
  assert _route(score, active_groups=4, **groups) == pytest.approx(
      {0: .9, 3: .6, 2: .5})
  assert _route(score, [.2] + [0.] * 7, active_groups=2, **groups) == (
      pytest.approx({0: .9, 3: .6, 2: .5}))


def test_an_expert_below_zero_is_chosen_before_another_groups():
  """Biased, group 0 has .1 and -.4, group 1 has -.4 and -.5.

  With 0 in place of the other groups' scores, its experts would come before the
  one at -.4, as in earlier versions of transformers.
  """
  assert _route([.1, .2, .3, .2], [0., -.6, -.7, -.7], active=2, groups=2,
                active_groups=1) == pytest.approx({0: 1 / 3, 1: 2 / 3})
  assert _route([.1, .2, .3, .4], [0., 0., -1., -2.], active=2, groups=2,
                active_groups=1) == pytest.approx({1: 2 / 3, 0: 1 / 3})
  assert set(_route([.3, .3, .2, .2], [1., -2., -.1, -.1], active=2, groups=2,
                    active_groups=1)) == {2, 3}


@pytest.mark.parametrize('changes', [
    {}, dict(shared=0), dict(normalize=False), dict(scale=1.),
    dict(groups=1, active_groups=1), dict(active_groups=4), dict(active=1),
    dict(groups=8, active_groups=3)])
def test_agrees_with_numpy(changes):
  layer = _layer(**changes)
  params, x = _params(layer), _x()
  expected = _numpy_layer(layer.config.moe, params, x)
  tiny.assert_near(_apply(layer, params, x), expected)
  if changes:
    assert np.abs(expected - _numpy_layer(EXPERTS, _params(), x)).max() > .01


def _dense(params, x):
  """All experts on all tokens, masked: nothing that could be unsorted."""
  score = nn.sigmoid(x @ params['router'])
  chosen = moe.choose(EXPERTS, score.reshape(-1, 8), params['router_bias'])
  mask = jnp.any(chosen[..., None] == jnp.arange(8), 1).reshape(score.shape)
  weight = jnp.where(mask, score, 0.)
  weight *= EXPERTS.scale / jnp.sum(weight, -1, keepdims=True)
  mlp = lambda p: (nn.silu(x @ p['gate']) * (x @ p['up'])) @ p['down']
  each = jax.vmap(mlp)({k: params[k] for k in ('gate', 'up', 'down')})
  return jnp.einsum('bte,ebtd->btd', weight, each) + mlp(params['shared'])


def test_gradients_are_those_of_all_experts_masked():
  params, x = _params(), _x()
  loss = lambda *args: jnp.sum(jnp.sin(_dense(*args)))
  expected = jax.jit(jax.grad(loss, (0, 1)))(params, x)
  _, got = _gradients(_layer(), params, x)
  for grads in (got[0], expected[0]):
    del grads['router_bias']
  tiny.assert_near(got, expected)
  assert all(jnp.any(leaf) for leaf in jax.tree.leaves(got))


def _placed(sizes, rules=machine_sections.RULES):
  """The layer on a mesh, and its parameters."""
  mesh = sharding.make_mesh(sizes)
  axes = jax.tree.map(lambda leaf: leaf.names, _boxed(_layer()),
                      is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
  return _layer(sharding.Placement(mesh, rules)), jax.device_put(
      _params(), sharding.shardings(axes, _params(), mesh, rules))


@pytest.mark.parametrize('sizes, rows, rules', [
    *((sizes, ROWS, ()) for sizes in MESHES), (MESHES[1], 2, ()),
    (MESHES[2], 3, ()), (MESHES[1], ROWS, OTHER_RULES)])
def test_a_mesh_changes_nothing(sizes, rows, rules):
  layer, placed = _placed(
      sizes, tuple((dict(machine_sections.RULES) | dict(rules)).items()))
  held = placed['gate'].addressable_shards[0].data.size
  assert held * 8 == placed['gate'].size * (1 if rules else sizes.get('data', 1))
  x, params = _x(rows=rows), _params()
  # The load too: each device counts its tokens once.
  tiny.assert_near(_gradients(layer, placed, x),
                   _gradients(_layer(), params, x))


def test_tokens_that_all_want_the_same_experts_are_served(monkeypatch):
  """In several rounds: three experts of a device get all tokens."""
  monkeypatch.setattr(exchange, 'round_rows', lambda *_: 7)
  layer, placed = _placed(MESHES[2])
  bias = jnp.zeros(8).at[jnp.array([0, 1, 2])].set(9.)
  x, params = _x(1), _params() | {'router_bias': bias}
  placed = placed | {'router_bias': bias}
  got = _gradients(layer, placed, x)
  assert got[1][0]['router_bias'].tolist() == [40.] * 3 + [0.] * 5
  tiny.assert_near(got, _gradients(_layer(), params, x))


def test_replayed_experts_may_be_the_same_ones():
  """As those of columns that only fill a row up: one device gets all of them."""
  layer, placed = _placed(dict(expert=8))
  same = jnp.zeros((ROWS, LENGTH, 3), jnp.uint8)
  apply = lambda layer, params: jax.jit(lambda p, x: layer.apply(
      {'params': p}, x, same)[0])(params, _x())
  tiny.assert_near(apply(layer, placed), apply(_layer(), _params()))


def test_what_travels_between_devices():
  """Weights over fsdp and their gradients back, tokens over expert, no more."""
  layer, placed = _placed(dict(fsdp=2, expert=4))
  rows = jax.sharding.NamedSharding(layer.place.mesh, P(sharding.BATCH_AXES))
  x = jax.device_put(_x(), rows)

  def loss(params, x):
    return jnp.sum(layer.apply({'params': params}, x)[0])

  text = jax.jit(jax.grad(loss, (0, 1)), out_shardings=(jax.tree.map(
      lambda leaf: leaf.sharding, placed), rows)).lower(
          placed, x).compile().as_text()
  kinds = re.findall(
      r' (all-[a-z-]+|reduce-scatter|collective-permute)\(.*MoE\)+/shard_map', text)
  # Gathered: gate, up, down, router. Of the backward pass alone: rows, weights
  # and experts go, gradients go, those of rows and weights come back. Summed:
  # the router's with the load; so few rows need one round, which none counts.
  assert collections.Counter(kinds) == {
      'all-gather': 4, 'all-to-all': 6, 'reduce-scatter': 3, 'all-reduce': 1}


def test_bfloat16_keeps_routing_and_bias_in_float32():
  config = tiny.config(moe=EXPERTS, dtype='bfloat16', param_dtype='bfloat16')
  layer = moe.MoE(config, None)
  params = _params(layer)
  assert params['router_bias'].dtype == jnp.float32
  assert params['router'].dtype == jnp.bfloat16
  # 257 is no bfloat16: loads are not rounded.
  x = jnp.ones((257, 1, WIDTH), jnp.bfloat16)
  _, (grads, _) = _gradients(layer, params, x)
  assert sorted(grads['router_bias'].tolist()) == [0.] * 5 + [257.] * 3
  expected = _numpy_layer(EXPERTS, params, x[:1])
  got = np.asarray(_apply(layer, params, x[:1]), np.float32)
  assert np.abs(got - expected).max() < .03 * np.abs(expected).max()


def test_scores_of_bfloat16_are_not_rounded():
  """By .2 % expert 5 is the best, which bfloat16 has not."""
  layer = _layer(dtype='bfloat16', active=1, groups=1, active_groups=1)
  params = _params(layer)
  router = jnp.zeros((WIDTH, 8)).at[0, 3].set(1.).at[0, 5].set(1.)
  params = params | {
      'router': router.at[1, 5].set(2. ** -9).astype(jnp.bfloat16),
      'router_bias': jnp.zeros(8)}
  _, (grads, _) = _gradients(layer, params, jnp.ones((4, 1, WIDTH), 'bfloat16'))
  assert grads['router_bias'].tolist() == [0.] * 5 + [4.] + [0.] * 2


def _load(weight=1.):
  _, (grads, _) = _gradients(_layer(), _params(), _x(), weight)
  return np.asarray(grads['router_bias'])


def _counts(tokens):
  """Of each expert, by hand, over these [B, T] tokens."""
  params = jax.tree.map(np.asarray, _params())
  counts = np.zeros(8)
  for token in np.asarray(_x())[tokens]:
    score = 1 / (1 + np.exp(-token @ params['router']))
    for e in _numpy_choice(EXPERTS, score, params['router_bias']):
      counts[e] += 1
  return counts


def test_the_load_is_counted_and_what_no_loss_sees_is_not():
  everything = np.ones((ROWS, LENGTH), bool)
  np.testing.assert_array_equal(_load(), _counts(everything))
  assert _load().sum() == 3 * ROWS * LENGTH
  seen = np.random.default_rng(1).random((ROWS, LENGTH)) < .6
  np.testing.assert_array_equal(_load(seen[..., None]), _counts(seen))
  # However little a token matters.
  weight = np.where(seen, 10. ** np.linspace(-30, 6, LENGTH), 0.)
  np.testing.assert_array_equal(_load(weight[..., None]), _counts(seen))
  np.testing.assert_array_equal(_load(0.), 0.)


def test_an_output_does_not_see_that_its_load_is_counted():
  layer, params, x = _layer(), _params(), _x()
  shifted = params | {'router_bias': params['router_bias'] + 1.}
  np.testing.assert_array_equal(
      _apply(layer, params, x), _apply(layer, shifted, x))


@functools.cache
def _decoder_gradient(**switches):
  switches |= dict(layers=3, moe=dataclasses.replace(EXPERTS, dense_layers=1),
                   window=3, local_layers=(False, True, False))
  model = tiny.model(**switches)
  tokens = np.random.default_rng(0).integers(0, tiny.SHAPE['vocab'], (4, 7))
  position = np.broadcast_to(np.arange(7), tokens.shape)

  def loss(params):
    hidden, _ = model.forward(params, tokens, None, position)
    return jnp.sum(jnp.sin(model.unembed(params, hidden)))

  return jax.jit(jax.grad(loss))(tiny.params(**switches))


@pytest.mark.parametrize('switches', [
    dict(scan_layers=False), dict(remat='full')])
def test_the_load_passes_through_a_decoder(switches):
  expected = _decoder_gradient()
  load = expected['blocks']['moe']['router_bias']
  np.testing.assert_array_equal(load.sum(-1), [EXPERTS.active * 4 * 7] * 2)
  tiny.assert_near(_decoder_gradient(**switches), expected)


@pytest.mark.parametrize('sizes', [None, dict(fsdp=2, expert=4)])
def test_micro_batches_add_loads_up_and_a_denominator_leaves_signs(sizes):
  place = sizes and sharding.Placement(sharding.make_mesh(sizes), machine_sections.RULES)
  layer, params = _layer(place), _params()

  def loss(params, x):
    y, _ = layer.apply({'params': params}, x)
    return (jnp.sum(jnp.sin(y)), jnp.float32(7.3)), {}

  grads, _ = jax.jit(functools.partial(accumulate.gradients, loss))(
      params, accumulate.split(_x(), 2))
  load = _load()
  np.testing.assert_allclose(grads['router_bias'] * 14.6, load, rtol=1e-6)
  bias = jnp.zeros(8)
  np.testing.assert_array_equal(
      optim.balanced(bias, grads['router_bias'], .1),
      optim.balanced(bias, jnp.asarray(load), .1))


def test_it_runs_inside_a_loop_on_a_mesh():
  def run(layer, rows):
    def step(carry):
      i, x = carry
      return i + 1, x + .1 * layer.apply({'params': _params()}, x)[0]
    return jax.jit(lambda x: jax.lax.while_loop(
        lambda carry: carry[0] < 3, step, (0, x))[1])(_x(rows=rows)[:, :1])

  mesh = sharding.make_mesh(dict(data=2, expert=2, tensor=2))
  for rows in (ROWS, 3):
    tiny.assert_near(run(_layer(sharding.Placement(mesh, machine_sections.RULES)), rows),
                     run(_layer(), rows))


def test_balancing_evens_a_skewed_load_out():
  """All tokens lean to the same experts; the bias takes them apart.

  Measured: the worst expert has 2.55 times the mean load, and after 80 steps
  1.14 times; the idlest .08 and .85 times.
  """
  layer = _layer(groups=1, active_groups=1)
  params, x, loads = _params(layer), _x(rows=64) + 1., []
  for _ in range(100):
    _, (grads, _) = _gradients(layer, params, x)
    load = grads['router_bias']
    loads.append(load / load.mean())
    params |= {'router_bias': optim.balanced(params['router_bias'], load, .01)}
  assert loads[0].max() > 2.5 and loads[0].min() < .1
  assert np.max(loads[-10:]) < 1.2 and np.min(loads[-10:]) > .8


def test_no_buffer_holds_every_expert_of_every_token():
  layer = _layer(experts=128, mlp=32, groups=1, active_groups=1)
  x = _x(rows=256)
  stats = _gradients.lower(layer, _params(layer), x).compile().memory_analysis()
  one = 4 * 256 * LENGTH * 128 * 32
  assert stats.temp_size_in_bytes < one / 2


def test_it_begins_with_products_that_keep_the_variance():
  """Less what the residual stream sums over layers."""
  experts = dataclasses.replace(EXPERTS, mlp=40)
  layer = moe.MoE(tiny.config(width=64, layers=3, moe=experts), None)
  params = nn.meta.unbox(layer.init(
      jax.random.key(0), jnp.zeros((1, 1, 64))))['params']
  inputs = dict(router=64, gate=64, up=64, down=40 * 6)
  for name, fan_in in inputs.items():
    assert .8 < np.std(params[name]) * fan_in ** .5 < 1.05, name
  assert params['shared']['gate'].shape == (64, 2 * 40)
  assert not params['router_bias'].any()


def test_a_width_may_be_a_layers_own():
  mlp = layers.MLP(tiny.config(), mlp=5)
  params = jax.eval_shape(mlp.init, jax.random.key(0), _x())['params']
  assert nn.meta.unbox(params)['gate'].shape == (WIDTH, 5)
