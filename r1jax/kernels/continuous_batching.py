"""Continuous batching: N responses to B prompts, through fewer slots.

A slot holds one response. When that has ended, the next that waits takes the
slot, before the next token is drawn: no response waits for a longer one. All
prompts are prefilled first; a response only points to its prompt, which its
group shares throughout. When none waits any more, those that are left move
together into fewer slots.

Samples are those of group_sampling.sample, whatever the slots: a token's random
numbers do not depend on where or when it is drawn, nor do its keys and values,
which lie in its slot in the order of its response's tokens. What an earlier
response has left behind them is not seen.

On a mesh each device has slots, prompts and waiting responses of its own, and
no cache travels. X counts these devices, those that split a batch.

The room of all slots grows with the longest response in any of them, as the
cache of group_sampling does. Each row writes a place of its own
(models/past.py).
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params, Prompts, Rollout, Support

_FEWER = 4  # times, slots once no response waits


class Drawn(NamedTuple):
  """What is kept of every token; as of Rollout."""
  tokens: Array  # i32[N, R]
  mask: Array  # bool[N, R]
  logp: Array  # f32[N, R]
  support: Support | None
  experts: Array | None  # [N, R, L, K]


class State(NamedTuple):
  """The carry of the loop: S slots, N responses of up to R tokens.

  Responses are numbered on each device; N / X is none.
  """
  next: Array  # i32[X], the first response that waits for a slot
  row: Array  # i32[S], the response in each slot, if any
  index: Array  # i32[S], its token that is drawn next
  hidden: Array  # [S, D], predicts it
  k: Array | tuple[Array, ...]  # [L, S, K, h, room], as in types.Cache
  v: Array | tuple[Array, ...] | None  # [L, S, K, room, h]
  drawn: Drawn
  done: Array | None = None  # bool[N], a response has ended; None: not kept


class Begun(NamedTuple):
  """What stays while N responses are drawn; `stepper` takes all but `experts`.
  """
  prompts: Prompts  # of the rows, sharding.repeat
  prompt_kv: group_sampling.KeysValues
  keys: Array  # key[N]
  first: Array  # [N, D], predicts the first token
  experts: Array | None  # of the prompts' tokens, as of Rollout


def sample(model, params: Params, prompts: Prompts, key_N: Array, *,
           slots: int, response_tokens: int, eos_ids: tuple[int, ...],
           temperature: float, chunk: int = 64, top_k: int = 0,
           top_p: float = 1., keep_support: bool = False,
           keep_experts: bool = False) -> Rollout:
  """As group_sampling.sample, with at most `slots` responses at a time.

  Args:
    slots: S, a multiple of the devices that split a batch.
  """
  params = model.prepare(params)
  begun, state = begin(
      model, params, prompts, key_N, response_tokens,
      top_k if keep_support else 0, keep_experts, slots)
  for size in sizes(model.place, slots, response_tokens, chunk):
    state = advance(
        model, params, begun, resize(model.place, state, *size), slots,
        eos_ids=eos_ids, temperature=temperature, top_k=top_k, top_p=top_p)
  return rollout(model.place, prompts, begun, state)


def begin(model, params: Params, prompts: Prompts, key_N: Array,
          response_tokens: int, kept: int, keep_experts: bool, slots: int
          ) -> tuple[Begun, State]:
  """As group_sampling.begin_groups; all slots are empty, without room."""
  place = model.place
  shared = sharding.repeat(prompts, len(key_N), place)
  prompt_kv, empty = group_sampling.begin(
      model, params, shared, len(key_N), response_tokens, kept, keep_experts)
  devices = len(sharding.by_device(place, key_N))
  of_prompts, of_tokens = empty.experts or (None, None)
  return Begun(shared, prompt_kv, key_N, empty.hidden, of_prompts), (
      State(jnp.zeros(devices, jnp.int32),
            jnp.full(slots, len(key_N) // devices, jnp.int32),
            jnp.zeros(slots, jnp.int32),
            jnp.zeros((slots, empty.hidden.shape[1]), empty.hidden.dtype),
            *group_sampling.empty_past(*prompt_kv, slots, 0),
            Drawn(empty.tokens, empty.mask, empty.logp, empty.support,
                  of_tokens)))


def sizes(place: sharding.Placement | None, slots: int, response_tokens: int,
          chunk: int) -> list[tuple[int, int]]:
  """How many slots of which room there are, one after the other.

  All of them until few responses are left, with room for more and more tokens,
  the first of them for `chunk`; then some for the last responses.
  """
  devices = 1 if place is None else place.batch_shards
  rooms = group_sampling.cache_sizes(response_tokens, chunk)
  few = slots // devices // _FEWER * devices
  return [*((slots, room) for room in rooms),
          *([(few, response_tokens)] if few else [])]


def advance(model, params: Params, begun: Begun, state: State, slots: int,
            ticks: Array | None = None, *, eos_ids: tuple[int, ...],
            temperature: float, top_k: int = 0, top_p: float = 1.) -> State:
  """Draws tokens until `over`, or until `ticks` are drawn in each slot.

  Args:
    model: `models.Model`.
    params: `model.prepare`d ones.
    begun, state: of `begin`, the state with room by `resize`.
    slots: as in `sample`.
    ticks: i32[]; None: any number.
    eos_ids, temperature, top_k, top_p: as in `sample`.
  """
  step = stepper(
      model, params, *begun[:4], eos_ids, temperature, top_k, top_p)
  if ticks is None:
    # Plans know it by this.
    with jax.named_scope(f'slots_{len(state.row)}_{_room(state)}'):
      return lax.while_loop(
          lambda s: ~over(model.place, s, slots), step, state)
  state, _ = lax.while_loop(
      lambda carry: (carry[1] < ticks) & ~over(model.place, carry[0], slots),
      lambda carry: (step(carry[0]), carry[1] + 1),
      (state, jnp.zeros((), jnp.int32)))
  return state


def over(place: sharding.Placement | None, state: State, slots: int) -> Array:
  """bool[]: one needs more room, or those left need fewer of the `slots`."""
  of_device = lambda x: sharding.by_device(place, x)
  devices, rows = of_device(state.drawn.tokens).shape[:2]
  most = slots // devices // _FEWER if len(state.row) == slots else 0
  in_use_X = jnp.sum(of_device(state.row) < rows, 1)
  return (jnp.max(state.index) >= _room(state)) | ~(
      jnp.any(state.next < rows) | jnp.any(in_use_X > most))


def _room(state: State) -> int:
  return jax.tree.leaves(state.k)[0].shape[-1]


def rollout(place: sharding.Placement | None, prompts: Prompts, begun: Begun,
            state: State) -> Rollout:
  """What has been sampled; `prompts` as they were given."""
  drawn = state.drawn
  return group_sampling.rollout(place, prompts, group_sampling.SamplingState(
      None, None, None, drawn.tokens, drawn.mask, drawn.logp, None, None,
      drawn.support,
      None if begun.experts is None else (begun.experts, drawn.experts)))


def stepper(model, params: Params, prompts: Prompts, prompt_kv, key_N: Array,
            first_ND: Array, eos_ids: tuple[int, ...], temperature: float,
            top_k: int, top_p: float, order_N: Array | None = None):
  """The body of the loop: a token of each slot, after new responses entered.

  They enter in the order of their numbers on each device, or in `order_N`: then
  `State.next` is a place in it.
  """
  place = model.place
  of_device = lambda x: sharding.by_device(place, x)
  pick = lambda x, index: sharding.pick(place, x, index)
  rows, group = of_device(key_N).shape[1], len(key_N) // len(prompts.length)

  def enter(state: State) -> State:
    empty_S = state.row == rows
    nth_XS = jnp.cumsum(of_device(empty_S), 1, dtype=jnp.int32)
    row_S = jnp.minimum((state.next[:, None] + nth_XS - 1).reshape(-1), rows)
    if order_N is not None:
      row_S = jnp.where(row_S < rows, pick(order_N, row_S), rows)
    row_S = jnp.where(empty_S, row_S, state.row)
    return state._replace(
        next=jnp.minimum(state.next + nth_XS[:, -1], rows), row=row_S,
        hidden=jnp.where(
            empty_S[:, None], pick(first_ND, row_S), state.hidden))

  def step(state: State) -> State:
    state = enter(state)
    row_S, index_S, drawn = state.row, state.index, state.drawn
    owner_S = jnp.minimum(row_S, rows - 1) // group
    logits_SV = model.unembed(params, state.hidden[:, None])[:, 0]
    token_S, logp_S = group_sampling.draw(
        logits_SV, pick(key_N, row_S), index_S, temperature=temperature,
        top_k=top_k, top_p=top_p)
    token_S = token_S.astype(jnp.int32)
    hidden_S1D, (k, v), chosen_S1LK = group_sampling.forward(
        model, drawn.experts is not None, params, token_S[:, None], None,
        (pick(prompts.length, owner_S) + index_S)[:, None],
        Cache(*prompt_kv, prompts.length, state.k, state.v, filled=index_S,
              owner=owner_S))
    new = Drawn(
        token_S, jnp.ones_like(row_S, bool), logp_S,
        drawn.support and group_sampling.support(
            logits_SV / temperature, top_k, top_p),
        chosen_S1LK if drawn.experts is None else chosen_S1LK[:, 0])
    put = jax.vmap(lambda x, row, index, y: x.at[row, index].set(
        y, mode='drop'))
    drawn = jax.tree.map(lambda x, y: put(
        *map(of_device, (x, row_S, index_S, y))).reshape(x.shape), drawn, new)
    ended_S = (row_S == rows) | (index_S + 1 == drawn.tokens.shape[1]) | (
        jnp.isin(token_S, jnp.array(eos_ids, jnp.int32)))
    done = state.done
    if done is not None:
      done = jax.vmap(lambda x, row, y: x.at[row].max(y, mode='drop'))(
          *map(of_device, (done, row_S, ended_S))).reshape(-1)
    return State(
        state.next, jnp.where(ended_S, rows, row_S),
        jnp.where(ended_S, 0, index_S + 1), hidden_S1D[:, 0], k, v, drawn, done)

  return step


def resize(place, state: State, slots: int, room: int) -> State:
  """The state with its responses in the first of `slots` slots of a room."""
  state = _in_fewer(place, state, slots)
  k, v = group_sampling.with_room((state.k, state.v), room)
  return state._replace(k=k, v=v)


def _in_fewer(place, state: State, slots: int) -> State:
  if slots == len(state.row):
    return state
  row_XS = sharding.by_device(place, state.row)
  order_XS = jnp.argsort(row_XS, 1)  # the empty slots last
  kept_S = order_XS[:, :slots // len(row_XS)].reshape(-1)
  pick = lambda x: sharding.pick(place, x, kept_S)
  row, index, hidden = map(pick, (state.row, state.index, state.hidden))
  k, v = jax.tree.map(
      lambda x: jax.vmap(pick)(x) if x.ndim == 5 else pick(x),
      (state.k, state.v))
  return state._replace(row=row, index=index, hidden=hidden, k=k, v=v)
