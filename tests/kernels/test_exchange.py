"""Rows that travel to their groups' devices: all arrive, and come back."""

import functools
import re

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

import tiny
from r1jax.kernels import exchange
from r1jax.parallel import sharding

D, N, K, DEVICES, HELD = 3, 8, 2, 4, 2  # N tokens on each of 4 * 2 devices
GROUPS, ALL = DEVICES * HELD, N * K
AXES = exchange.Axes(('expert',), ('data', 'expert'))
_RANDOM = np.random.default_rng(0)
ROUTES = {
    'random': _RANDOM.integers(0, GROUPS, (8 * N, K)),
    'all to one group': np.full((8 * N, K), 5),
    'all at home': np.arange(8 * N)[:, None] // N % DEVICES * HELD + [[0, 1]],
    'one device has the longest line': np.where(
        np.arange(8 * N)[:, None] < N, 7,
        _RANDOM.integers(0, GROUPS, (8 * N, K)))}


def _compute(scale_GD, x_RD, weight_R, group_R):
  group_R -= lax.axis_index('expert') * HELD
  is_row_R = (group_R >= 0) & (group_R < HELD)
  y_RD = jnp.sin(x_RD * scale_GD[group_R]) * weight_R[:, None]
  return jnp.where(is_row_R[:, None], y_RD, 0.)


def _sum(x_AD, scale_GD, weight_NK, group_NK):
  y = jnp.sin(x_AD[:, None] * scale_GD[group_NK]) * weight_NK[..., None]
  return y.sum(1)


@functools.cache
def _on_mesh(size):
  """Values and gradients, traced where rounds have this size."""
  mesh = sharding.make_mesh(dict(data=2, expert=4))
  rows = P(('data', 'expert'))

  @functools.partial(
      jax.shard_map, mesh=mesh,
      in_specs=(P('expert'), rows, rows, rows), out_specs=rows)
  def visit(scale, x, weight, group):
    scale = lax.pcast(scale, 'data', to='varying')
    return exchange.visit(
        _compute, AXES, scale, x, weight, group, group // HELD, K)

  @jax.jit
  def run(scale, x, weight, group, dy):
    y, pull = jax.vjp(lambda *args: visit(*args, group), scale, x, weight)
    return y, pull(dy)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(exchange, 'round_rows', lambda *_: size)
    return run.lower(*_arguments(ROUTES['random'])).compile()


def _arguments(group):
  floats = lambda *shape: jnp.asarray(_RANDOM.normal(size=shape), jnp.float32)
  return (floats(GROUPS, D), floats(8 * N, D), floats(8 * N, K),
          jnp.asarray(group, jnp.int32), floats(8 * N, D))


@pytest.mark.parametrize('size', [3, ALL])
@pytest.mark.parametrize('route', ROUTES)
def test_any_routing_is_served_in_rounds_of_any_size(route, size):
  scale, x, weight, group, dy = _arguments(ROUTES[route])
  y, pull = jax.vjp(lambda s, x, w: _sum(x, s, w, group), scale, x, weight)
  tiny.assert_near(_on_mesh(size)(scale, x, weight, group, dy), (y, pull(dy)))


def test_rows_of_a_round_by_hand():
  lines = exchange.line_up(jnp.array([0, 2, 0, 0, 2]), 3)
  first, second = (exchange.served(lines, 2, i) for i in range(2))
  # Beyond the end: row 5, place 6.
  np.testing.assert_array_equal(first.source, [[0, 2], [5, 5], [1, 4]])
  np.testing.assert_array_equal(first.slot, [0, 4, 1, 6, 5])
  np.testing.assert_array_equal(second.source, [[3, 5], [5, 5], [5, 5]])
  np.testing.assert_array_equal(second.slot, [6, 6, 6, 0, 6])


def test_a_round_has_room_for_twice_the_mean_within_bounds():
  for rows, devices, longest, expected in (
      (4, 4, 4, 4), (128, 64, 128, 8), (2 ** 12, 64, 2 ** 12, 128),
      (2 ** 18, 64, 2 ** 18, 512), (32, 256, 4, 4)):
    assert exchange.round_rows(rows, devices, longest) == expected


def test_what_travels_and_how_often():
  """Rows, weights and groups go and outputs come; then their gradients.

  One round stores the rows that came, others send them again. The sums are of
  gradients over `data`, and of how many rounds there are.
  """
  kinds = lambda size: sorted(re.findall(
      r' (all-to-all|all-gather|all-reduce|reduce-scatter)\(',
      _on_mesh(size).as_text()))
  assert kinds(ALL) == ['all-reduce'] + ['all-to-all'] * 7
  assert kinds(3) == ['all-reduce'] * 2 + ['all-to-all'] * 10


def test_bfloat16_gradients_of_rounds_are_summed_in_float32():
  add = lambda i: jnp.ones((), jnp.bfloat16)
  total = jax.jit(lambda n: exchange._sum(n, add, add(0)))(512)
  assert total.dtype == jnp.bfloat16 and total == 512  # not 256
