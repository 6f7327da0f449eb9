"""Partial rollouts: responses that go on where an earlier step has left them.

N responses are being sampled, those to a prompt its group. A step draws some
more of their tokens through fewer slots, as continuous_batching does, and stops
before all have ended: those that are left go on in the next step, under the
policy of that step (Kimi k1.5, arXiv 2501.12599, sec. 2.6.2; AReaL, arXiv
2505.24298, sec. 4.1). Each token keeps the log p of the policy that drew it.

Keys and values are those of the present policy: what a response has so far is
read again before it goes on, a block of tokens at a time, beside others that
are as long. A response that has begun stays on its device and has a slot from
the start of every step; those that enter later are new. Random numbers are
those of group_sampling: under one policy the samples are those of one program.
"""

import math

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import continuous_batching
from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params, Prompts

Drawn = continuous_batching.Drawn
_PARTS = 4  # of the slots, read one after the other


def keys(seed: Array, stream_B: Array, id_B: Array, group: int) -> Array:
  """group_sampling.sample_keys, of prompts with a stream each; key[N]."""
  return jax.vmap(lambda stream, i: group_sampling.sample_keys(
      seed, stream, i[None], group))(stream_B, id_B).reshape(-1)


def ended(drawn: Drawn, eos_ids: tuple[int, ...]) -> Array:
  """Which responses have their end token or as many as they may, bool[N]."""
  length_N = jnp.sum(drawn.mask, 1)
  last_N = jnp.take_along_axis(
      drawn.tokens, jnp.maximum(length_N - 1, 0)[:, None], 1)[:, 0]
  at_end_N = jnp.isin(last_N, jnp.array(eos_ids, jnp.int32)) & (length_N > 0)
  return at_end_N | (length_N == drawn.mask.shape[1])


def extend(model, params: Params, prompts: Prompts, key_N: Array,
           number_B: Array, due_B: Array, drawn: Drawn, *, slots: int,
           tokens: int, wanted: int, block: int, eos_ids: tuple[int, ...],
           temperature: float, top_k: int = 0, top_p: float = 1.
           ) -> tuple[Drawn, Array]:
  """Draws more tokens of N responses to B prompts.

  It ends when `tokens` are drawn in each slot, or when `wanted` groups are
  complete; but not before those that are due are, of which none waits.

  Args:
    model: `models.Model`.
    params: of the present policy.
    prompts: B prompts.
    key_N: from `keys`.
    number_B: i32[B]; of new responses those of the least get a slot first.
    due_B: bool[B], groups to be drawn to their end.
    drawn: what there is of the responses; nothing of those that are new.
    slots: S, a multiple of the devices that split a batch. Of responses that
      have begun a device has at most as many as slots; others wait.
    tokens, wanted: as above.
    block: tokens of a response that are read at once.
    eos_ids, temperature, top_k, top_p: as of group_sampling.sample.

  Returns:
    What there is of them now, and which groups are complete, bool[B].
  """
  place, group = model.place, len(key_N) // len(number_B)
  shared = sharding.repeat(prompts, len(key_N), place)
  params = model.prepare(params)
  length = drawn.mask.shape[1]
  prompt_kv, begun = group_sampling.begin(
      model, params, shared, len(key_N), length)
  order_N, state = _enter(
      place, drawn, ended(drawn, eos_ids), jnp.repeat(number_B, group),
      slots, begun.hidden)
  state = _read(model, params, shared, prompt_kv, state,
                len(key_N) // len(shared.length), block)
  step = continuous_batching.stepper(
      model, params, shared, prompt_kv, key_N, begun.hidden, eos_ids,
      temperature, top_k, top_p, order_N)
  complete = lambda s: jnp.all(s.done.reshape(-1, group), 1)

  def goes_on(count, s):
    complete_B = complete(s)
    enough = (count >= tokens) | (jnp.sum(complete_B) >= wanted)
    return ~(enough & jnp.all(complete_B | ~due_B)) & (
        ~continuous_batching.over(place, s, slots))

  count = jnp.zeros((), jnp.int32)
  for size in continuous_batching.sizes(place, slots, length, length):
    count, state = lax.while_loop(
        lambda c: goes_on(*c), lambda c: (c[0] + 1, step(c[1])),
        (count, continuous_batching.resize(place, state, *size)))
  return state.drawn, complete(state)


def _enter(place, drawn: Drawn, done_N: Array, number_N: Array, slots: int,
           first_ND: Array) -> tuple[Array, continuous_batching.State]:
  """The order of the responses on each device, and the slots at the start.

  Those that have ended come first, then those that have begun, the longest
  first, then new ones in the order of `number_N`. The cache has no room yet;
  `hidden` is that of a new response.
  """
  of_device = lambda x: sharding.by_device(place, x)
  pick = lambda x, index: sharding.pick(place, x, index)
  length_N = jnp.sum(drawn.mask, 1, dtype=jnp.int32)
  kind_XN = of_device(jnp.where(done_N, 0, jnp.where(length_N > 0, 1, 2)))
  rank_N = jnp.where(length_N > 0, -length_N, number_N)
  order_XN = jnp.lexsort((of_device(rank_N), kind_XN), axis=-1)
  order_N = order_XN.reshape(-1).astype(jnp.int32)
  devices, rows = order_XN.shape
  count = lambda kind: jnp.sum(kind_XN == kind, 1, dtype=jnp.int32)
  at_XS = count(0)[:, None] + jnp.arange(slots // devices, dtype=jnp.int32)
  used_S = at_XS.reshape(-1) < rows
  row_S = jnp.where(used_S, pick(order_N, at_XS.reshape(-1)), rows)
  next_X = count(0) + jnp.maximum(count(1), slots // devices)
  return order_N, continuous_batching.State(
      jnp.minimum(next_X, rows), row_S,
      jnp.where(used_S, pick(length_N, row_S), 0), pick(first_ND, row_S), None,
      None, drawn, done_N)


def _read(model, params: Params, prompts: Prompts, prompt_kv,
          state: continuous_batching.State, group: int, block: int
          ) -> continuous_batching.State:
  """The state with the keys and values of what its slots' responses have.

  `hidden` is then at each response's last token, which predicts the next. The
  slots are read in parts, each as far as its longest response is.
  """
  place, length = model.place, state.drawn.tokens.shape[1]
  width, (devices, rows) = min(block, length), sharding.by_device(
      place, state.drawn.tokens[:, 0]).shape
  parts = math.gcd(len(state.row) // devices, _PARTS)

  def read_part(part):
    row_S, index_S, hidden_SD = part
    owner_S = jnp.minimum(row_S, rows - 1) // group
    tokens_SR, start_S = (sharding.pick(place, *pair) for pair in (
        (state.drawn.tokens, row_S), (prompts.length, owner_S)))

    def read(carry):
      begin, hidden_SD, k, v = carry
      at = jnp.minimum(begin, length - width)  # the last may overlap
      position = start_S[:, None] + at + jnp.arange(width)
      hidden_STD, (k, v) = model.forward(
          params, lax.dynamic_slice_in_dim(tokens_SR, at, width, 1), None,
          position, Cache(*prompt_kv, prompts.length, k, v, filled=at,
                          owner=owner_S))
      last_S = index_S - 1 - at
      found_SD = jnp.take_along_axis(
          hidden_STD, jnp.clip(last_S, 0, width - 1)[:, None, None], 1)[:, 0]
      inside_S1 = ((last_S >= 0) & (last_S < width))[:, None]
      return begin + width, jnp.where(inside_S1, found_SD, hidden_SD), k, v

    return lax.while_loop(
        lambda carry: carry[0] < jnp.max(index_S), read,
        (jnp.zeros((), jnp.int32), hidden_SD, *group_sampling.empty_past(
            *prompt_kv, len(row_S), length)))[1:]

  def cut(x):
    """[S, ...] -> [parts, S / parts, ...], some rows of every device."""
    return x.reshape(devices, parts, -1, *x.shape[1:]).swapaxes(0, 1).reshape(
        parts, -1, *x.shape[1:])

  def join(x, axis=0):
    x = jnp.moveaxis(x, 0, axis)
    shape = *x.shape[:axis], -1, *x.shape[axis + 2:]
    x = x.reshape(*x.shape[:axis + 1], devices, -1, *x.shape[axis + 2:])
    return x.swapaxes(axis, axis + 1).reshape(shape)

  hidden, k, v = lax.map(
      read_part, jax.tree.map(cut, (state.row, state.index, state.hidden)))
  k, v = jax.tree.map(lambda x: join(x, x.ndim - 5), (k, v))
  return state._replace(hidden=join(hidden), k=k, v=v)
