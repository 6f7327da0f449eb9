"""Rows that travel to the devices that hold their groups, and back.

For a mixture of experts whose experts and tokens are split over the same X
devices: each of a token's K assignments is a row that goes to the device of its
expert, and its output comes back (GShard, arXiv 2006.16668, sec. 3;
DeepSpeed-MoE, arXiv 2201.05596, sec. 5). No row is dropped, wherever rows want
to go, although shapes are static: rows travel in rounds. In a round a device
sends at most C rows to each other one, and there are as many rounds as the
longest line of rows needs, the same number on all devices.

Why not gather all tokens on all X devices, and sum the outputs over them? With
DeepSeek-V3 (K = 8, D = 7168, bfloat16) over X = 64 devices, and 32,768 tokens
on each, a layer's forward pass would receive (X - 1) N D, 30 GB, into a buffer
as large, and sum as much. Assignments are N K D, 3.8 GB each way; a round of
2 ** 15 rows holds 0.47 GB at a time, of which there are 8 rounds if all lines
are equal. One round for the worst case would hold X times N K D, 240 GB.
A token whose experts share a device travels once for each of them: with 4
experts a device, 8 rows where 7.4 would do. The price of rounds is that the
backward pass sends the rows again; it stores none.

X devices, N tokens of each, A = N * K rows in order of token, C rows of a line
in a round.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from r1jax.kernels import grouped_matmul
from r1jax.types import Array

ROUND_ROWS = 2 ** 15  # that a device receives in a round, at most

# (operands, rows [R, D], weight [R], group [R]) -> [R, D]; group -1: no row.
Compute = Callable[[Any, Array, Array, Array], Array]


class Axes(NamedTuple):
  """Axes of the mesh."""
  travel: tuple[str, ...]  # along which rows travel
  all: tuple[str, ...]  # along which devices differ, these among them


class Lines(NamedTuple):
  """The rows of this device, in line for the devices that they go to."""
  order: Array  # i32[A], the rows, by destination
  place: Array  # i32[A], of a row in its line
  to: Array  # i32[A], the destination of a row
  begin: Array  # i32[X], the first of a line in `order`
  size: Array  # i32[X], the rows of a line


def round_rows(rows: int, devices: int, longest: int) -> int:
  """C: twice the mean line of `rows`, from 8 to a part of `ROUND_ROWS`.

  Never more than the longest line there may be: a round of that size serves
  everyone.
  """
  mean = -(-rows // devices)
  return min(longest, max(8, min(2 * mean, ROUND_ROWS // devices)))


def line_up(to_A: Array, devices: int) -> Lines:
  """A line for each destination, in order of the rows."""
  order_A, rank_A = grouped_matmul.sort_rows(to_A, devices)
  bounds = jnp.searchsorted(to_A[order_A], jnp.arange(devices + 1))
  begin_X = bounds[:-1]
  return Lines(
      order_A, rank_A - begin_X[to_A], to_A, begin_X, jnp.diff(bounds))


def served(lines: Lines, size: int, i: Array) -> grouped_matmul.Tiles:
  """The rows of round i: a tile of `size` for each destination."""
  devices, rows = lines.size.size, lines.order.size
  nth_C = i * size + jnp.arange(size)
  source_XC = lines.order[lines.begin[:, None] + nth_C]
  place_A = lines.place - i * size
  is_served_A = (place_A >= 0) & (place_A < size)
  return grouped_matmul.Tiles(
      jnp.where(nth_C < lines.size[:, None], source_XC, rows),
      jnp.where(is_served_A, lines.to * size + place_A, devices * size),
      jnp.arange(devices), jnp.ones(devices, jnp.int32))


def visit(compute: Compute, axes: Axes, operands: Any, x_ND: Array,
          weight_NK: Array, group_NK: Array, to_NK: Array, most: int) -> Array:
  """The sum of what `compute` makes of each token's rows, [N, D].

  Inside `shard_map`, where all arrays vary over `axes.all`.

  Args:
    compute: is handed the rows that came to this device. Rows of group -1 are
      none: what it returns for them, and their gradients, must be zeros.
    axes: of the mesh.
    operands: of `compute`: weights that stay where they are.
    x_ND: tokens.
    weight_NK: of the K rows of each token.
    group_NK: i32, the groups of these rows.
    to_NK: i32, the devices that they go to, numbered along `axes.travel`.
    most: of the K rows of a token, that may go to one device.
  """
  devices, longest = lax.axis_size(axes.travel), most * len(to_NK)
  size = round_rows(to_NK.size, devices, longest)
  lines = line_up(to_NK.reshape(-1), devices)
  serve = functools.partial(_serve, compute, axes.travel, size)
  operands, places = (operands, x_ND, weight_NK), (group_NK, lines)
  if size == longest:
    return serve(0, operands, places)
  rounds = lax.pmax(-(-jnp.max(lines.size) // size), axes.all)
  return _over_rounds(serve, rounds, operands, places)


def _serve(compute: Compute, axes: tuple[str, ...], size: int, i: Array,
           operands: tuple, places: tuple[Array, Lines]) -> Array:
  """What round i adds to the sum, [N, D]."""
  (weights, x_ND, weight_NK), (group_NK, lines) = operands, places
  tiles, copies = served(lines, size, i), group_NK.shape[1]
  travel = functools.partial(
      lax.all_to_all, axis_name=axes, split_axis=0, concat_axis=0)
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  y_RD = compute(
      weights, flat(travel(grouped_matmul.spread(x_ND, tiles, copies))),
      flat(travel(grouped_matmul.spread(weight_NK.reshape(-1), tiles, 1))),
      flat(travel(jnp.take(group_NK.reshape(-1), tiles.source, mode='fill',
                           fill_value=-1))))
  back_XCD = travel(y_RD.reshape(*tiles.source.shape, -1))
  return grouped_matmul.combine(back_XCD, tiles, copies)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _over_rounds(serve: Callable, rounds: Array, operands: tuple,
                 places: tuple) -> Array:
  """The sum of `serve` over rounds; it and gradients are summed in float32."""
  x_ND = operands[1]
  return _sum(rounds, lambda i: serve(i, operands, places), x_ND)


def _over_rounds_bwd(serve: Callable, residuals: tuple, dy_ND: Array):
  rounds, operands, places = residuals

  def pull(i):
    return jax.vjp(lambda x: serve(i, x, places), operands)[1](dy_ND)[0]

  return None, _sum(rounds, pull, operands), None


_over_rounds.defvjp(
    lambda serve, *args: (_over_rounds(serve, *args), args), _over_rounds_bwd)


def _sum(count: Array, part: Callable, like: Any) -> Any:
  """The sum of trees part(i) of the shapes and dtypes of `like`."""
  add = lambda i, total: jax.tree.map(jnp.add, total, part(i))
  zeros = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), like)
  with jax.named_scope('rounds'):  # plans know it by this
    total = lax.fori_loop(0, count, add, zeros)
  return jax.tree.map(lambda x, y: y.astype(x.dtype), like, total)
