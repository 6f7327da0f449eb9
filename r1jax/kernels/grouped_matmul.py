"""Grouped matrix product: each row times the matrix of its group.

The product of a mixture of experts, with E matrices and one group of rows per
expert. Rows of one group are placed together in tiles of C rows, the group's
last tile padded with rows of zeros, so that a tile needs a single matrix.
Every shape is static, however uneven the groups are: A rows of E groups fit
into A // C + E tiles.

  tiles = arrange(group_A, E, C)          places of the rows
  x_MCD = spread(x_AD, tiles, 1)          rows into tiles
  y_MCF = product(x_MCD, w_EDF, tiles)
  y_AF  = combine(y_MCF, tiles, 1)        and back

A row may belong to no group: it has no place, and comes back as zeros.

The gradient of a gather would be a scatter, which sums in no fixed order on a
GPU and row by row on a CPU. `spread` and `combine`, gathers both, are each
other's gradient instead.
"""

import functools
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jax import lax

from r1jax.types import Array


_BLOCK = 1024  # width and height of a block of a matrix in a TPU's fast memory


class Tiles(NamedTuple):
  """Places of A rows of E groups in M tiles of C rows.

  Example: groups [1, 0, 1, 2, 1] with E = C = 2, where 2 is no group, give
  source [[1, -], [0, 2], [4, -], [-, -]], slot [2, 0, 3, -, 4],
  group [0, 1, 1, -] and used [1, 2]. An absent entry (-) holds an index beyond
  the end: A, M * C and E respectively.
  """
  source: Array  # i32[M, C], the row at this place
  slot: Array  # i32[A], the place of a row in [M * C]
  group: Array  # i32[M], the group of a tile
  used: Array  # i32[E], the number of a group's tiles


def tile_rows(rows: int, groups: int) -> int:
  """C, the rows of a tile: a power of 2, from 8 to 512.

  About a quarter of a group's mean share of the rows, at most. Larger tiles
  make faster products, but half of each group's last tile is zeros on average.
  """
  quarter = rows // (4 * groups)
  return min(max(8, 1 << max(quarter.bit_length() - 1, 0)), 512)


def sort_rows(group_A: Array, groups: int) -> tuple[Array, Array]:
  """Rows in order of group, and each row's place in that order.

  As argsort and its inverse, which a TPU's compiler needs three times as long
  for, seven seconds a sort: here keys alone are sorted, each of them another.

  Raises ValueError for so many rows that keys would need more than 32 bits.
  """
  size = group_A.size
  if groups * size > 2 ** 32:
    raise ValueError(f'expected at most {2 ** 32 // groups} rows of {groups} '
                     f'groups on a device, received {size}; a smaller '
                     'micro-batch has fewer')
  index_A = jnp.arange(size, dtype=jnp.uint32)
  key_A = group_A.astype(jnp.uint32) * jnp.uint32(size) + index_A
  order_A = (lax.sort(key_A, is_stable=False) % size).astype(jnp.int32)
  rank_A = jnp.zeros_like(order_A).at[order_A].set(
      index_A.astype(jnp.int32), unique_indices=True,
      mode='promise_in_bounds')
  return order_A, rank_A


def arrange(group_A: Array, groups: int, rows: int) -> Tiles:
  """Places of A rows in tiles of `rows`; a row of group E gets none."""
  size = group_A.size
  tiles = min(size, size // rows + groups)
  order_A, rank_A = sort_rows(group_A, groups + 1)
  bounds = jnp.searchsorted(group_A[order_A], jnp.arange(groups + 1))
  begin_E, held_E = bounds[:-1], jnp.diff(bounds)
  used_E = -(-held_E // rows)
  end_E = jnp.cumsum(used_E)
  first_E = end_E - used_E
  group_M = jnp.searchsorted(end_E, jnp.arange(tiles), side='right')
  slot_A = rank_A + (first_E * rows - begin_E)[group_A]
  nth_MC = ((jnp.arange(tiles) - first_E[group_M])[:, None] * rows
            + jnp.arange(rows))
  source_MC = order_A[begin_E[group_M][:, None] + nth_MC]
  there_MC = nth_MC < _take(held_E, group_M)[:, None]
  return Tiles(jnp.where(there_MC, source_MC, size),
               jnp.where(group_A < groups, slot_A, tiles * rows),
               group_M, used_E)


def _take(x: Array, index: Array) -> Array:
  """x[index], and zeros for an index beyond its end."""
  return jnp.take(x, index, 0, mode='fill', fill_value=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def spread(x: Array, tiles: Tiles, copies: int) -> Array:
  """[A / copies, ...] -> [M, C, ...]: x[i // copies] at the place of row i."""
  return _take(x, tiles.source // copies)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def combine(y: Array, tiles: Tiles, copies: int) -> Array:
  """[M, C, ...] -> [A / copies, ...]: the rows, summed over their copies."""
  rows = _take(y.reshape(-1, *y.shape[2:]), tiles.slot)
  return jnp.sum(rows.reshape(-1, copies, *rows.shape[1:]), 1)


spread.defvjp(
    lambda x, tiles, copies: (spread(x, tiles, copies), tiles),
    lambda copies, tiles, dy: (combine(dy, tiles, copies), None))
combine.defvjp(
    lambda y, tiles, copies: (combine(y, tiles, copies), tiles),
    lambda copies, tiles, dx: (spread(dx, tiles, copies), None))


@jax.custom_vjp
def product(x_MCD: Array, w_EDF: Array, tiles: Tiles) -> Array:
  """Each tile times its group's matrix, [M, C, F]."""
  return _multiply(x_MCD, w_EDF, tiles)


def _product_bwd(residuals: tuple, dy_MCF: Array):
  x_MCD, w_EDF, tiles = residuals
  dx_MCD = _multiply(dy_MCF, w_EDF, tiles, swap=True)
  dw_EDF = _outer(x_MCD, dy_MCF, tiles)
  return dx_MCD, dw_EDF.astype(w_EDF.dtype), None


product.defvjp(lambda *args: (product(*args), args), _product_bwd)


def _multiply(x: Array, w: Array, tiles: Tiles, swap: bool = False) -> Array:
  """Tiles times matrices, or times their transposes with `swap`.

  XLA has an operation for this, `ragged_dot`, but only TPUs implement it.
  Elsewhere, and on TPUs for `_outer`, XLA expands it into a product with E
  masked copies of all rows: E times the work. There is a loop over the used
  tiles instead, and on TPUs for `_outer` a kernel.
  """
  return lax.platform_dependent(
      x, w, tiles, tpu=functools.partial(_ragged, swap),
      default=functools.partial(_looped, swap))


def _ragged(swap: bool, x: Array, w: Array, tiles: Tiles) -> Array:
  rows = tiles.used * x.shape[1]
  w = w.swapaxes(1, 2) if swap else w
  return lax.ragged_dot(
      x.reshape(-1, x.shape[2]), w, rows).reshape(*x.shape[:2], -1)


def _looped(swap: bool, x: Array, w: Array, tiles: Tiles) -> Array:
  def multiply(i, y):
    matrix = _at(w, _at(tiles.group, i))
    return _put(y, _at(x, i) @ (matrix.T if swap else matrix), i)

  y = jnp.zeros_like(x, shape=(*x.shape[:2], w.shape[1 if swap else 2]))
  return lax.fori_loop(0, jnp.sum(tiles.used), multiply, y)


def _outer(x_MCD: Array, y_MCF: Array, tiles: Tiles) -> Array:
  """The sum of x^T y over the tiles of each group, f32[E, D, F]."""
  return lax.platform_dependent(
      x_MCD, y_MCF, tiles, tpu=_summed_in_blocks, default=_summed)


def _summed(x_MCD: Array, y_MCF: Array, tiles: Tiles) -> Array:
  def add(i, sum_EDF):
    group = _at(tiles.group, i)
    part = jnp.matmul(_at(x_MCD, i).T, _at(y_MCF, i),
                      preferred_element_type=jnp.float32)
    return _put(sum_EDF, _at(sum_EDF, group) + part, group)

  shape = tiles.used.size, x_MCD.shape[2], y_MCF.shape[2]
  return lax.fori_loop(0, jnp.sum(tiles.used), add,
                       jnp.zeros_like(x_MCD, jnp.float32, shape))


def _summed_in_blocks(x_MCD: Array, y_MCF: Array, tiles: Tiles,
                      interpret: bool = False) -> Array:
  """`_summed` as a TPU kernel: a sum over tiles never leaves fast memory.

  The loop would read and write a group's whole matrix for each of its tiles,
  which takes as long as to multiply them. Here the tiles of a group follow each
  other, for one block of its matrix at a time.
  """
  (m, c, d), f = x_MCD.shape, y_MCF.shape[2]
  block_d, block_f = min(d, _BLOCK), min(f, _BLOCK)
  # Of arrays alike, since inside shard_map results differ as arguments do.
  shape = jax.eval_shape(lambda x: jnp.zeros_like(
      x, jnp.float32, (tiles.used.size, d, f)), x_MCD)
  sum_EDF = pl.pallas_call(
      _add_tile, out_shape=shape, interpret=interpret,
      grid_spec=pltpu.PrefetchScalarGridSpec(
          num_scalar_prefetch=1,
          grid=(pl.cdiv(f, block_f), pl.cdiv(d, block_d), jnp.sum(tiles.used)),
          in_specs=[
              pl.BlockSpec((None, c, block_d), lambda i, j, t, _: (t, 0, j)),
              pl.BlockSpec((None, c, block_f), lambda i, j, t, _: (t, 0, i))],
          out_specs=pl.BlockSpec(
              (None, block_d, block_f),
              lambda i, j, t, group_M: (group_M[t], j, i))),
      cost_estimate=pl.CostEstimate(
          flops=2 * m * c * d * f, transcendentals=0,
          bytes_accessed=x_MCD.nbytes * pl.cdiv(f, block_f) + y_MCF.nbytes
          * pl.cdiv(d, block_d) + 4 * shape.size),
      compiler_params=pltpu.CompilerParams(dimension_semantics=(
          'parallel', 'parallel', 'arbitrary')),
  )(tiles.group, x_MCD, y_MCF)
  # A group without tiles was never written.
  return jnp.where(tiles.used[:, None, None] > 0, sum_EDF, 0.)


def _add_tile(group_M, x_CD, y_CF, sum_DF):
  """Adds one tile's product to a block of its group's matrix."""
  tile = pl.program_id(2)
  is_first = (tile == 0) | (
      group_M[tile] != group_M[jnp.maximum(tile - 1, 0)])

  @pl.when(is_first)
  def _():
    sum_DF[...] = jnp.zeros_like(sum_DF)

  sum_DF[...] += lax.dot_general(
      x_CD[...], y_CF[...], (((0,), (0,)), ((), ())),
      preferred_element_type=jnp.float32)


def _at(x: Array, i: Array) -> Array:
  return lax.dynamic_index_in_dim(x, i, keepdims=False)


def _put(x: Array, new: Array, i: Array) -> Array:
  return lax.dynamic_update_index_in_dim(x, new, i, 0)
