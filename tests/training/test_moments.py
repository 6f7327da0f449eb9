"""Moments in bfloat16, factored, and in the memory of the hosts."""

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax import models
from r1jax import types
from r1jax.models import presets
from r1jax.parallel import sharding
from r1jax.training import moments
from r1jax.training import optim

B1, B2, EPS, LR = .9, .95, 1e-3, .01
RULES = (('embed', 'fsdp'), ('mlp', 'tensor'))


def _params(layers=3, width=8, mlp=16, dtype='float32'):
  """Two matrices and a scale a layer, a router's bias, and an embedding."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  return {'blocks': {'up': draw(layers, width, mlp),
                     'down': draw(layers, mlp, width),
                     'scale': draw(layers, width),
                     'router_bias': jnp.zeros((layers, 4))},
          'embedding': draw(24, width)}


AXES = {'blocks': {'up': (None, 'embed', 'mlp'), 'down': (None, 'mlp', 'embed'),
                   'scale': (None, None), 'router_bias': (None, None)},
        'embedding': (None, 'embed')}


def _grads(params, step):
  rng = np.random.default_rng(step)
  return jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


@pytest.fixture(name='small', autouse=True)
def _small(monkeypatch):
  """Matrices as small as these are factored."""
  monkeypatch.setattr(moments, 'FACTORED_SIZE', 8)


def _optimizer(**fields):
  return optim.make_optimizer(
      steps=20, **dict(lr=LR, b1=B1, b2=B2, eps=EPS, clip_norm=0.) | fields)


def _run(optimizer, params, steps=3, shardings=None, state=None):
  """The TrainState after some updates, and each update's metrics."""
  counters = jnp.int32(0)
  state = state or types.TrainState(
      counters, params, optimizer.init(params), None, counters)
  if shardings is not None:
    state = jax.device_put(state, shardings)
  update = jax.jit(lambda state, grads: optim.update(optimizer, grads, state),
                   out_shardings=(shardings, None))
  metrics = []
  for step in range(steps):
    state, more = update(state, _grads(params, step))
    metrics.append(more)
  return state, metrics


def _shardings(optimizer, params, mesh):
  placed = sharding.shardings(AXES, params, mesh, RULES)
  whole = sharding.replicated(mesh)
  return types.TrainState(whole, placed, optim.state_shardings(
      optimizer, params, placed, whole), None, whole)


def _equal(tree, other, **tolerance):
  check = (np.testing.assert_allclose if tolerance
           else np.testing.assert_array_equal)
  jax.tree.map(lambda x, y: check(
      np.asarray(x, 'float32'), np.asarray(y, 'float32'), **tolerance),
               tree, other)


def _adafactor(value, grads, axes, b1=B1):
  """arXiv 1804.04235, eq. 4-6, for a matrix of `axes`, in float64 loops.

  V is the outer product of the means over rows and over columns, over the mean
  of the first; its means, and the momentum of g / sqrt(V), are weighted ones.
  """
  seen, updates = [], []
  for grad in np.asarray(grads, 'float64'):
    seen.append(grad ** 2 + EPS ** 2)
    weights = B2 ** np.arange(len(seen))[::-1]
    second = np.einsum('i,i...->...', weights, seen) / weights.sum()
    if axes:
      row, column = (second.mean(axis, keepdims=True) for axis in axes)
      second = row * column / row.mean(axes, keepdims=True)
    updates.append(grad / np.sqrt(second))
    weights = b1 ** np.arange(len(updates))[::-1]
    value = value - LR * np.einsum(
        'i,i...->...', weights, updates) / weights.sum()
  return value


@pytest.mark.parametrize('b1', [B1, 0.])
def test_factored_moments_are_adafactors(b1):
  params = _params()
  state, _ = _run(_optimizer(second_moment='factored', b1=b1), params)
  grads = [_grads(params, step) for step in range(3)]
  for name, axes in (('up', (1, 0)), ('down', (1, 0)), ('scale', ())):
    for layer in range(3):
      np.testing.assert_allclose(
          state.params['blocks'][name][layer], _adafactor(
              params['blocks'][name][layer],
              [grad['blocks'][name][layer] for grad in grads], axes, b1),
          rtol=2e-5, atol=2e-6)
  factored, *rest = state.opt_state[1]
  assert factored.v_row['blocks']['up'].shape == (3, 8)
  assert factored.v_col['blocks']['up'].shape == (3, 16)
  assert factored.v['blocks']['up'].shape == (1,)
  assert factored.v['blocks']['scale'].shape == (3, 8)
  assert bool(jax.tree.leaves(rest)) == bool(b1)  # no first moment without b1
  coarse = _optimizer(second_moment='factored').init(_params(dtype='bfloat16'))
  assert {x.dtype.name for x in jax.tree.leaves(coarse) if x.ndim} == {
      'float32'}


def test_no_gradient_is_no_update_whatever_eps_is():
  params = {'w': jnp.ones((8, 8)), 'scale': jnp.ones(8)}
  optimizer = _optimizer(second_moment='factored', eps=1e-30)
  state = types.TrainState(
      0, params, optimizer.init(params), None, jnp.int32(0))
  after, metrics = optim.update(
      optimizer, jax.tree.map(jnp.zeros_like, params), state)
  assert not metrics['optim/skipped']
  _equal(after.params, params)


def test_moments_in_bfloat16_are_exact_steps_rounded():
  params = _params()
  coarse = _optimizer(first_moment='bfloat16', second_moment='bfloat16')
  state, _ = _run(coarse, params, 2)
  assert {str(x.dtype) for x in jax.tree.leaves(
      (state.opt_state[1].mu, state.opt_state[1].nu))} == {'bfloat16'}
  wide = jax.tree.map(
      lambda x: x.astype('float32') if x.dtype == 'bfloat16' else x, state)
  after, exact = (_run(optimizer, params, 1, state=start)[0] for
                  optimizer, start in ((coarse, state), (_optimizer(), wide)))
  _equal(after.params, exact.params)
  _equal(after.opt_state, jax.tree.map(
      lambda x: x.astype('bfloat16') if x.ndim else x, exact.opt_state))


def test_only_as_fast_a_moment_as_bfloat16_can_follow_is_in_it():
  """Where g^2 falls from 2 to 1, v ends at 2, 1.07 or 1.125."""
  for b, end in ((.999, 2.), (.95, 1.0703), (moments.MAX_COARSE_DECAY, 1.125)):
    v = np.float32(2.)
    for _ in range(500):
      v = np.float32(jnp.bfloat16(b * v + (1 - b) * 1.))
    np.testing.assert_allclose(v, end, rtol=1e-3)
  for name in ('b1', 'b2'):
    moment = dict(b1='first_moment', b2='second_moment')[name]
    _optimizer(**{name: .96, moment: 'bfloat16'})
    with pytest.raises(errors.ConfigError, match=(
        f'config.optim.{name}: expected at most 0.96875.*received 0.99')):
      _optimizer(**{name: .99, moment: 'bfloat16'})


ALL = [dict(first_moment='bfloat16', second_moment='bfloat16'),
       dict(second_moment='factored'),
       dict(first_moment='bfloat16', second_moment='factored', b1=.5),
       dict(second_moment='factored', b1=0.)]


@pytest.mark.parametrize('fields', ALL, ids=str)
def test_moments_live_with_their_parameters_and_mesh_changes_nothing(fields):
  mesh, params = sharding.make_mesh(dict(fsdp=4, tensor=2)), _params()
  optimizer = _optimizer(**fields, weight_decay=.1)
  placed, _ = _run(optimizer, params, shardings=_shardings(
      optimizer, params, mesh))
  alone, _ = _run(optimizer, params)
  close = 1e-2 if 'bfloat16' in fields.values() else 1e-5
  _equal(placed.params, alone.params, rtol=1e-3, atol=close * LR)
  if fields['second_moment'] == 'factored':
    factored = placed.opt_state[1][0]
    part = lambda tree: tree['blocks']['up'].addressable_shards[0].data.shape
    assert part(factored.v_row) == (3, 2) and part(factored.v_col) == (3, 8)


def test_a_square_matrix_and_what_is_not_kept_have_a_place():
  mesh = sharding.make_mesh(dict(fsdp=4, tensor=2))
  spec = jax.sharding.PartitionSpec(None, 'fsdp', 'tensor')
  place = jax.sharding.NamedSharding(mesh, spec)
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, 'float32')
  found = lambda leaf, param: tuple(
      moments.sharding_of(shape(*leaf), shape(*param), place).spec)
  assert found((3, 8, 16), (3, 8, 16)) == (None, 'fsdp', 'tensor')
  assert found((3, 8), (3, 8, 16)) == (None, 'fsdp')
  assert found((3, 16), (3, 8, 16)) == (None, 'tensor')
  assert found((3, 8), (3, 8, 8)) in ((None, 'fsdp'), (None, 'tensor'))
  assert found((8, 16), (8, 8, 16)) in (('fsdp', 'tensor'), (None, 'tensor'))
  assert found((1,), (3, 8, 16)) == ()


@pytest.mark.parametrize('masters, fields', [
    (False, dict()), (True, dict()), *((True, fields) for fields in ALL)],
    ids=str)
def test_an_offloaded_state_takes_the_same_steps(fields, masters):
  params = _params(dtype='bfloat16' if masters else 'float32')
  mesh = sharding.make_mesh(dict(fsdp=4, tensor=2))
  fields = fields | dict(master_weights=masters, weight_decay=.1, clip_norm=1.)
  plain, offloaded = (
      _optimizer(**fields, offload=names) for names in (None, ('blocks',)))
  state, metrics = _run(plain, params, shardings=_shardings(
      plain, params, mesh))
  other, more = _run(offloaded, params, shardings=_shardings(
      offloaded, params, mesh))
  coarse = 'bfloat16' in fields.values()
  _equal(other, state, rtol=.02 if coarse else 2e-6, atol=1e-4 * coarse + 1e-7)
  _equal(more, metrics, rtol=1e-6)
  for path, leaf in jax.tree_util.tree_leaves_with_path(other.opt_state):
    whole = 'embedding' in jax.tree_util.keystr(path)
    assert leaf.sharding.memory_kind == (
        'pinned_host' if whole or leaf.ndim == 3 else 'device'), path
  assert {leaf.sharding.memory_kind
          for leaf in jax.tree.leaves(other.params)} == {'device'}


@pytest.mark.parametrize('name', ['grads', 'params', 'moments'])
@pytest.mark.parametrize('second', ['float32', 'factored'])
def test_an_offloaded_update_that_is_not_finite_changes_no_bit(name, second):
  """Wherever that shows: here in the last layer, after others were fine."""
  params = _params()
  optimizer = _optimizer(
      offload=('blocks',), second_moment=second, master_weights=True)
  state, _ = _run(optimizer, params, 1)
  spoil = lambda tree: jax.tree_util.tree_map_with_path(
      lambda path, x: x.at[-1].set(jnp.inf) if jax.tree_util.keystr(
          path[-2:], simple=True, separator='/') == 'blocks/down' else x, tree)
  grads = _grads(params, 1)
  if name == 'grads':
    grads = spoil(grads)
  elif name == 'params':
    state = state._replace(params=spoil(state.params))
  else:
    state = state._replace(opt_state=state.opt_state._replace(
        inner=spoil(state.opt_state.inner)))
  after, metrics = jax.jit(
      lambda state: optim.update(optimizer, grads, state))(state)
  assert after.skipped == 1 and metrics['optim/skipped'] == 1.
  _equal(after._replace(skipped=state.skipped), state)


def test_of_an_offloaded_state_one_layer_is_on_the_devices():
  """Every transfer to them, in all loops, is of a layer or of no stack."""
  params = _params(layers=5)
  optimizer = _optimizer(offload=('blocks',), master_weights=True)
  mesh = sharding.make_mesh(dict(fsdp=4, tensor=2))
  state = types.TrainState(0, params, optimizer.init(params), None, 0)
  shapes = sharding.abstract_arrays(
      jax.eval_shape(lambda: state), _shardings(optimizer, params, mesh))
  jaxpr = jax.make_jaxpr(lambda state: optim.update(
      optimizer, _grads(params, 0), state)[0])(shapes)
  host = jax.memory.Space.Host
  sizes = {True: set(), False: set()}  # by whether it comes from the hosts
  def visit(jaxpr):
    for equation in jaxpr.eqns:
      for inner in core.jaxprs_in_params(equation.params):
        visit(inner)
      if equation.primitive.name == 'device_put':
        for x, y in zip(equation.invars, equation.outvars):
          if x.aval.memory_space != y.aval.memory_space:
            sizes[x.aval.memory_space == host].add(y.aval.shape)
  visit(jaxpr.jaxpr)
  layer = {(8, 16), (16, 8), (24, 8)}  # and the embedding
  assert sizes == {True: layer, False: layer}


def test_layers_that_could_be_factored_are_taken_as_a_whole():
  params = _params(layers=8)
  fields = dict(second_moment='factored')
  plain, offloaded = (
      _run(_optimizer(offload=names, **fields), params)[0]
      for names in (None, ('blocks',)))
  _equal(offloaded, plain, rtol=1e-6)


@pytest.mark.parametrize('first, second, b1, bytes_each', [
    ('float32', 'float32', B1, 8.), ('bfloat16', 'float32', B1, 6.),
    ('bfloat16', 'bfloat16', B1, 4.), ('float32', 'factored', B1, 4.005),
    ('bfloat16', 'factored', B1, 2.005), ('float32', 'factored', 0., .005)])
def test_the_state_is_as_large_as_the_table_says(
    monkeypatch, first, second, b1, bytes_each):
  monkeypatch.undo()
  config = presets.PRESETS['qwen2.5_32b']
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))
  state = jax.eval_shape(_optimizer(
      b1=b1, first_moment=first, second_moment=second).init, params)
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  count = sum(x.size for x in jax.tree.leaves(params))
  np.testing.assert_allclose(size / count, bytes_each, atol=5e-4)
  name = first if b1 else 'none (b1 = 0)'
  assert (f'\n    {name:13} {second:13} {bytes_each:8g} {size / 1e9:7.1f}\n'
          in moments.__doc__)
  # In closed form: of a layer's attention, the matrices are those of a head.
  d, f, h, v = config.width, config.mlp, config.head_size, config.vocab
  heads = 2 * config.heads + 2 * config.kv_heads
  means = config.layers * (heads * (d + h) + 3 * (d + f)) + 2 * (v + d)
  whole = config.layers * (2 * d + (config.heads + 2 * config.kv_heads) * h) + d
  if second == 'factored':
    kept = {'float32': 4, 'bfloat16': 2}[first] * count * bool(b1)
    assert abs(size - kept - 4 * (means + whole)) < 200  # placeholders, counters
