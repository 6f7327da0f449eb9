"""Micro-batches: rows of responses that one pass of a model has at once.

A row of the pass is a prompt and some rows of its responses' tokens. These are
the rollout's own, a response each; or, with `packed_rows`, rows of as many
columns that hold whole responses one after the other (kernels/packing.py). Then
how many there are is known at run time only, and what has no tokens (responses
that are dropped) is not computed at all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import packing
from r1jax.parallel import sharding
from r1jax.training import accumulate
from r1jax.types import Array, Experience, Rollout


class MicroBatches(NamedTuple):
  """The micro-batches of a rollout and what is known of it."""
  count: int | Array  # how many
  most: int  # that count can be
  # number -> rows of the rollout, and of what is known of it: of the same
  # responses, and of the same tokens where it has a value for each of them
  take: Callable[[Array], tuple[Rollout, Any]]
  join: Callable[[Array], Array]  # [most, n, R] -> [N, R], of the rollout


def make(rollout: Rollout, known: Any, size: int | None,
         packed_rows: int | None, place: sharding.Placement | None
         ) -> MicroBatches:
  """The micro-batches of a rollout of N responses.

  Args:
    rollout: the rollout.
    known: a tree of arrays, [N] or [N, R, ...]. In packed rows a number of
      each response, [N], becomes [n, R]: that number at each of its tokens.
    size: rows of tokens in each; None: all, which packed rows do not allow.
    packed_rows: how many share a copy of their prompt; None: not packed, each
      row is a response.
    place: `Model.place`.
  """
  if packed_rows is None:
    return _apart(rollout, known, size, place)
  return _packed(rollout, known, size, packed_rows, place)


def _apart(rollout: Rollout, known: Any, size: int | None,
           place: sharding.Placement | None) -> MicroBatches:
  """`make`, each response in a row of its own.

  Rows of a pass are those of `sharding.repeat`, in each micro-batch as many of
  every device. So no response leaves the device that it lies on.
  """
  responses = len(rollout.tokens)
  parts = responses // (size or responses)
  prompts = sharding.repeat(rollout.prompts, responses, place, parts)
  arrays = rollout._replace(prompts=()), known
  if place is not None:
    arrays = place.split(arrays)
  rows, group = len(prompts.length) // parts, responses // len(prompts.length)
  arrays = jax.tree.map(
      lambda x: x.reshape(-1, group, *x.shape[1:]), arrays)
  cut = accumulate.split((prompts, *arrays), parts)

  def take(index):
    prompt, *found = accumulate.one_of(cut, index)
    part, more = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    return part._replace(prompts=prompt), more

  def join(x):
    return accumulate.join(x.reshape(parts, rows, -1, x.shape[-1])).reshape(
        rollout.tokens.shape)

  return MicroBatches(parts, parts, take, join)


def _packed(rollout: Rollout, known: Any, size: int, packed_rows: int,
            place: sharding.Placement | None) -> MicroBatches:
  """`make`, whole responses in rows.

  In here d devices split the batch. On each lie b prompts with g responses;
  b g = n of these in all. A unit is a prompt and `packed_rows` rows; `size` is
  a multiple of the rows of d units.
  """
  responses, columns = rollout.tokens.shape
  prompts = sharding.repeat(rollout.prompts, responses, place)
  group = responses // prompts.length.size
  on_device = lambda tree: jax.tree.map(
      lambda x: sharding.by_device(place, x), tree)
  length_dn = on_device(jnp.sum(rollout.mask, 1, dtype=jnp.int32))
  devices = len(length_dn)
  laid = jax.vmap(packing.first_fit, (0, None))(
      length_dn.reshape(devices, -1, group), columns)
  units_db = -(-laid.rows // packed_rows)
  end_db = jnp.cumsum(units_db, 1)
  row_dbg = laid.row + packed_rows * (end_db - units_db)[..., None]

  most = end_db.shape[1] * -(-group // packed_rows)
  at_once = size // packed_rows // devices
  most = -(-most // at_once)
  start_dnC = jax.vmap(packing.starts, (0, 0, 0, None, None))(
      row_dbg.reshape(devices, -1), laid.begin.reshape(devices, -1), length_dn,
      most * at_once * packed_rows, columns)
  pick = jax.vmap(lambda x, i: x.at[i].get(mode='clip'))
  arrays = on_device((rollout._replace(prompts=()), known))
  rows = at_once * packed_rows

  def take(index):
    found = jax.vmap(packing.columns_of)(
        lax.dynamic_slice_in_dim(start_dnC, index * rows, rows, 1), length_dn)

    def of_columns(x):  # [d, n] or [d, n, R, ...]
      if x.ndim == 2:
        return pick(x, found.response)
      flat = x.reshape(devices, -1, *x.shape[3:])
      return pick(flat, found.response * columns + found.token)

    unit = index * at_once + jnp.arange(at_once)
    of_unit = jax.vmap(lambda end_b: jnp.searchsorted(end_b, unit, 'right'))(
        end_db)
    part, more, segment = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]),
        (*jax.tree.map(of_columns, arrays), found.segment))
    part = part._replace(
        prompts=sharding.pick(place, prompts, of_unit.reshape(-1)),
        mask=segment > 0, segment=segment)
    return (part, more) if place is None else place.split((part, more))

  def join(x):
    x = x.reshape(most, devices, -1).swapaxes(0, 1).reshape(devices, -1)
    first_dn1 = (row_dbg * columns + laid.begin).reshape(devices, -1, 1)
    return pick(x, first_dn1 + jnp.arange(columns)).reshape(responses, columns)

  return MicroBatches(-(-jnp.max(end_db[:, -1]) // at_once), most, take, join)


def of_experience(experience: Experience, size: int | None,
                  packed_rows: int | None, place: sharding.Placement | None
                  ) -> tuple[int | Array, Callable[[Array], Experience]]:
  """How many micro-batches an experience has; number -> one of them."""
  made = make(experience.rollout, experience._replace(rollout=()), size,
              packed_rows, place)

  def take(index):
    rollout, known = made.take(index)
    return known._replace(rollout=rollout)

  return made.count, take


def measure(rollout: Rollout, size: int | None, packed_rows: int | None,
            place: sharding.Placement | None,
            function: Callable[[Rollout], Array]) -> Array:
  """What a function of rows, [n, R], is of a rollout, f32[N, R].

  After the end of a response it is meaningless.
  """
  made = make(rollout, (), size, packed_rows, place)
  part, _ = jax.eval_shape(made.take, 0)
  found = jnp.zeros((made.most, *part.tokens.shape), jnp.float32)
  with jax.named_scope('micro_batches'):  # plans know it by this
    found = lax.fori_loop(
        0, made.count, lambda index, found: found.at[index].set(
            function(made.take(index)[0])), found)
  return made.join(found)
