"""A rollout in pieces: what has ended is seen while the rest is drawn.

The rollout is that of the sampler which is one program (rollouts.py), for the
same seed, stream and ids: the loops are the same, and stop after some tokens.
The host dispatches a piece before it looks at the one before it, so the devices
do not wait for the host, and caches are donated from piece to piece. How many
pieces there are follows from the samples alone, in every process alike.
"""

from collections.abc import Iterator
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.kernels import continuous_batching
from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.types import Array, Params, Prompts, Rollout

_PIECES = 16  # of as many tokens as a response may have
_LEAST = 64  # tokens of a piece, which costs about as much as one or two

# Of responses that have ended: {row: (its tokens, i32[R], and their number)}.
Ended = dict[int, tuple[np.ndarray, int]]


class Seen(NamedTuple):
  """What the host looks at after a piece."""
  over: Array  # bool[], nothing is left to draw at this size of the state
  left: Array  # i32[], responses that have not ended
  ended: Array  # bool[N]
  tokens: Array  # i32[N, R]
  length: Array  # i32[N], tokens drawn


class Programs(NamedTuple):
  """The jitted functions of this module that have these names."""
  prepare: Any
  begin: Any
  resize: Any
  advance: Any
  finish: Any


@functools.cache
def programs(mesh: jax.sharding.Mesh) -> Programs:
  """The programs of all pieces; each size of the state compiles its own."""
  batch, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  return Programs(
      jax.jit(prepare, static_argnums=0),
      jax.jit(begin, static_argnums=(0, 1)),
      jax.jit(resize, static_argnums=(0, 2)),
      jax.jit(advance, static_argnums=(0, 1), donate_argnums=4, out_shardings=(
          None, Seen(whole, whole, batch, batch, batch))),
      jax.jit(finish, static_argnums=0,
              out_shardings=Rollout(None, *[batch] * 5)))


def prepare(model, params: Params) -> Params:
  """The parameters as all pieces use them."""
  return model.prepare(params)


def begin(model, settings, params: Params, prompts: Prompts, seed, stream):
  """Prefills the prompts; arguments as of `rollouts.sample_groups`.

  Parameters are prepared ones.
  """
  keys = group_sampling.sample_keys(seed, stream, prompts.id, settings.group)
  given = (model, params, prompts, keys, settings.response_tokens,
           settings.top_k if settings.keep_support else 0,
           settings.keep_experts)
  if settings.slots is None:
    begun, state = group_sampling.begin_groups(*given)
  else:
    begun, state = continuous_batching.begin(*given, settings.slots)
    state = state._replace(done=jnp.zeros(keys.size, bool))
  return begun, _placed(model.place, state)


def resize(model, state, size: int | tuple[int, int]):
  """The state with a cache of `size` tokens, or with slots of a room."""
  if isinstance(state, continuous_batching.State):
    state = continuous_batching.resize(model.place, state, *size)
  else:
    state = group_sampling.grow(state, size)
  return _placed(model.place, state)


def advance(model, settings, params: Params, begun, state, ticks: Array):
  """Draws `ticks` tokens of each response in flight, at most; what is seen."""
  how = dict(eos_ids=settings.eos_ids, temperature=settings.temperature,
             top_k=settings.top_k, top_p=settings.top_p)
  if settings.slots is None:
    room = jax.tree.leaves(state.k)[0].shape[-1]
    state = group_sampling.advance(
        model, params, *begun, state, jnp.minimum(state.index + ticks, room),
        **how)
    drawn, over = state, (state.index >= room) | jnp.all(state.done)
  else:
    state = continuous_batching.advance(
        model, params, begun, state, settings.slots, ticks, **how)
    drawn = state.drawn
    over = continuous_batching.over(model.place, state, settings.slots)
  return _placed(model.place, state), Seen(
      over, jnp.sum(~state.done, dtype=jnp.int32), state.done, drawn.tokens,
      drawn.mask.sum(1, dtype=jnp.int32))


def finish(model, prompts: Prompts, begun, state) -> Rollout:
  """The rollout, of a state in which nothing is left to draw."""
  if isinstance(state, continuous_batching.State):
    return continuous_batching.rollout(model.place, prompts, begun, state)
  return group_sampling.rollout(model.place, prompts, state)


def _placed(place: sharding.Placement | None, state):
  """Inside jit: constrains a state, so that all pieces find it alike."""
  if place is None:
    return state
  batch, heads = place.partition_spec(('batch', 'kv_heads'))

  def cache(x: Array) -> Array:  # [L, N, K, h, S], as in types.Cache, or of one
    of_heads = None if x.shape[-3] % place.size(heads) else heads
    spec = jax.sharding.PartitionSpec(
        *[None] * (x.ndim - 4), batch, of_heads)
    return jax.lax.with_sharding_constraint(
        x, jax.sharding.NamedSharding(place.mesh, spec))

  rows = jax.tree.map(
      lambda x: place.split(x) if x.ndim else x, state._replace(k=(), v=()))
  return rows._replace(k=jax.tree.map(cache, state.k),
                       v=jax.tree.map(cache, state.v))


def _prepares(jitted: Programs, model, params: Params) -> bool:
  """Whether prepared parameters are others, which take memory of their own."""
  made = jitted.prepare.eval_shape(model, params)
  moved = model.place is not None and model.place.given is not None
  kinds = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]
  return moved or kinds(made) != kinds(params) or (
      jax.tree.structure(made) != jax.tree.structure(params))


class Drawing:
  """A rollout that is being drawn. Iterated once, it gives what has ended."""

  def __init__(self, placed, settings, params, prompts: Prompts, seed,
               stream):
    """Dispatches the first pieces, and waits for nothing.

    Args:
      placed: the model, train_state.PlacedModel.
      settings: rollouts.Settings.
      params, prompts, seed, stream: as of `rollouts.sample_groups`.
    """
    count = len(prompts.id) * settings.group
    settings = settings._replace(slots=settings.slots_of(count))
    self.group, self._count = settings.group, count
    self.rollout = None  # when the iteration has ended
    self._pieces = self._draw(
        programs(placed.mesh), placed.sampling, settings, params, prompts,
        seed, stream)
    self._first = next(self._pieces)

  def __iter__(self) -> Iterator[Ended]:
    """Yields those rows of this process that have ended since, if any.

    They lie where `sharding.own_rows` finds them. Without slots,
    those that are cut at R are not yielded.
    """
    known = set()
    for seen in itertools.chain([self._first], self._pieces):
      new = {row for row, ended in sharding.own_rows(seen.ended).items()
             if ended and row not in known}
      known |= new
      if new:
        tokens, length = map(sharding.own_rows, (seen.tokens, seen.length))
        yield {row: (tokens[row], int(length[row])) for row in new}

  def _draw(self, jitted: Programs, model, settings, params, prompts, *names
            ) -> Iterator[Seen]:
    """Yields what is seen of each piece, once the next is dispatched."""
    if _prepares(jitted, model, params):
      params = jitted.prepare(model, params)
    begun, state = jitted.begin(model, settings, params, prompts, *names)
    ticks = np.int32(max(-(-settings.response_tokens // _PIECES), _LEAST))
    rooms = settings.response_tokens, settings.chunk
    if settings.slots is None:
      sizes = group_sampling.cache_sizes(*rooms)
    else:
      sizes = continuous_batching.sizes(model.place, settings.slots, *rooms)
    left = self._count
    for size in sizes:
      if not left:
        break
      state, over, last = jitted.resize(model, state, size), False, None
      while not over:
        state, seen = jitted.advance(
            model, settings, params, begun, state, ticks)
        if last is not None:
          yield last
          over, left = bool(last.over), int(last.left)
        last = seen
    state = state._replace(k=None, v=None)  # their memory is free again
    self.rollout = jitted.finish(model, prompts, begun, state)
