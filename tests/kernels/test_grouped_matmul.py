"""Rows in tiles: who lies where, products and gradients, what is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import grouped_matmul

E, D, F, ROWS = 4, 5, 3, 8
# Group 1 fills more than two tiles, group 2 has no row, 4 is no group.
GROUP = np.random.default_rng(0).permutation(
    [0] * 3 + [1] * 19 + [3] * 8 + [4] * 6)


def _floats(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype('f')


def _multiply(x, w, group, rows):
  tiles = grouped_matmul.arrange(jnp.asarray(group), len(w), rows)
  y = grouped_matmul.product(grouped_matmul.spread(x, tiles, 1), w, tiles)
  return grouped_matmul.combine(y, tiles, 1)


def test_who_lies_where_by_hand():
  tiles = jax.jit(grouped_matmul.arrange, static_argnums=(1, 2))(
      jnp.array([1, 0, 1, 2, 1]), 2, 2)
  # Beyond the end: row 5, place 8, group 2.
  np.testing.assert_array_equal(tiles.source, [[1, 5], [0, 2], [4, 5], [5, 5]])
  np.testing.assert_array_equal(tiles.slot, [2, 0, 3, 8, 4])
  np.testing.assert_array_equal(tiles.group, [0, 1, 1, 2])
  np.testing.assert_array_equal(tiles.used, [1, 2])
  x = jnp.array([1., 2., 3., 4., 5.])
  spread = grouped_matmul.spread(x, tiles, 1)
  np.testing.assert_array_equal(spread, [[2, 0], [1, 3], [5, 0], [0, 0]])
  np.testing.assert_array_equal(
      grouped_matmul.combine(spread, tiles, 1), [1, 2, 3, 0, 5])


def test_rows_are_sorted_as_by_argsort():
  order, rank = grouped_matmul.sort_rows(jnp.asarray(GROUP), E + 1)
  np.testing.assert_array_equal(order, np.argsort(GROUP, kind='stable'))
  np.testing.assert_array_equal(rank, np.argsort(order))
  rows = jax.ShapeDtypeStruct((2 ** 24,), jnp.int32)
  sort = lambda groups: jax.eval_shape(
      lambda rows: grouped_matmul.sort_rows(rows, groups), rows)
  sort(256)
  with pytest.raises(ValueError, match='at most 16711935 rows of 257 groups'):
    sort(257)


def test_a_row_may_be_spread_several_times():
  tiles = grouped_matmul.arrange(jnp.array([1, 0, 0, 1]), 2, 2)
  spread = grouped_matmul.spread(jnp.array([[7.], [9.]]), tiles, 2)
  np.testing.assert_array_equal(spread[:2, :, 0], [[7, 9], [7, 9]])
  np.testing.assert_array_equal(
      grouped_matmul.combine(spread, tiles, 2), [[14.], [18.]])


def test_each_is_the_others_gradient():
  tiles = grouped_matmul.arrange(jnp.asarray(GROUP), E, ROWS)
  x, y = _floats(0, len(GROUP) // 2, D), _floats(1, *tiles.source.shape, D)
  spread = lambda x: grouped_matmul.spread(x, tiles, 2)
  combine = lambda y: grouped_matmul.combine(y, tiles, 2)
  # <spread(x), y> = <x, combine(y)> is what a transpose is.
  np.testing.assert_allclose(
      jnp.vdot(spread(x), y), jnp.vdot(x, combine(y)), rtol=1e-5)
  np.testing.assert_array_equal(jax.vjp(spread, x)[1](y)[0], combine(y))
  np.testing.assert_array_equal(jax.vjp(combine, y)[1](x)[0], spread(x))


@pytest.mark.parametrize('rows', [1, 8, 64])
@pytest.mark.parametrize('group', [
    GROUP, np.zeros(9, int), np.full(9, E), np.arange(3)])
def test_products_and_gradients_against_numpy(group, rows):
  x, w, dy = _floats(0, len(group), D), _floats(1, E, D, F), _floats(
      2, len(group), F)

  @jax.jit
  def both(x, w, dy):
    y, pull = jax.vjp(lambda x, w: _multiply(x, w, group, rows), x, w)
    return y, *pull(dy)

  w_each = np.concatenate([w, np.zeros((1, D, F))])[group]
  expected = (np.einsum('ad,adf->af', x, w_each),
              np.einsum('af,adf->ad', dy, w_each),
              np.stack([x[group == e].T @ dy[group == e] for e in range(E)]))
  tiny.assert_near(both(x, w, dy), expected)


def test_a_tile_holds_part_of_a_groups_share():
  for rows, groups, expected in (
      (1, 8, 8), (1024, 8, 32), (1000, 8, 16), (10 ** 6, 8, 512)):
    assert grouped_matmul.tile_rows(rows, groups) == expected


def test_on_tpus_it_is_the_instruction_for_it_whose_rows_are_the_tiles():
  tiles = grouped_matmul.arrange(jnp.asarray(GROUP), E, ROWS)
  x, w = _floats(0, *tiles.source.shape, D), _floats(1, E, D, F)
  used = int(tiles.used.sum())
  for y, swap in ((x, False), (_floats(3, *x.shape[:2], F), True)):
    tiny.assert_near(grouped_matmul._looped(swap, y, w, tiles)[:used],
                     grouped_matmul._ragged(swap, y, w, tiles)[:used])
  gradient = jax.jit(jax.grad(
      lambda x: grouped_matmul.product(x, w, tiles).sum()))
  lowered = {
      platform: gradient.trace(x).lower(
          lowering_platforms=(platform,)).as_text()
      for platform in ('tpu', 'cpu', 'cuda')}
  for platform, text in lowered.items():
    assert ('ragged_dot' in text) == (platform == 'tpu'), platform


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_kernel_of_tpus_sums_as_the_loop_does(dtype, monkeypatch):
  """In blocks that do not divide the width; a group has no tile."""
  monkeypatch.setattr(grouped_matmul, '_BLOCK', 4)
  tiles = grouped_matmul.arrange(jnp.asarray(GROUP), E, ROWS)
  x, y = (jnp.asarray(grouped_matmul.spread(
      _floats(seed, len(GROUP), width), tiles, 1), dtype)
          for seed, width in enumerate((D, 6)))
  got = grouped_matmul._summed_in_blocks(x, y, tiles, interpret=True)
  assert got.dtype == jnp.float32 and not got[2].any() and got[3].any()
  tiny.assert_near(got, grouped_matmul._summed(x, y, tiles))


@pytest.mark.parametrize('tile, rows', [(32, 2 ** 12), (257, 772)])
def test_bfloat16_gradients_are_summed_in_float32(tile, rows):
  group = jnp.zeros(rows, int)
  x, w = jnp.ones((rows, 1), jnp.bfloat16), jnp.ones((1, 1, 1), jnp.bfloat16)
  dw = jax.grad(lambda w: _multiply(x, w, group, tile).astype('f').sum())(w)
  assert dw.dtype == jnp.bfloat16 and dw == rows  # bfloat16 would stop at 256


def test_no_buffer_holds_the_rows_once_a_group():
  groups, rows = 64, 2048
  x, w = jnp.ones((rows, 16)), jnp.ones((groups, 16, 16))
  group = jnp.arange(rows) % groups
  gradient = jax.grad(lambda x, w: _multiply(x, w, group, 32).sum(), (0, 1))
  stats = jax.jit(gradient).lower(x, w).compile().memory_analysis()
  assert stats.temp_size_in_bytes < groups * x.nbytes / 4
