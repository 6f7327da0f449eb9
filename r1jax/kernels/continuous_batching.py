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

A slot has room for a whole response from the start. The slots are read, in
blocks, as far as the longest response in them is. Each row writes a place of
its own (models/past.py).
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
  k: Array | tuple[Array, ...]  # [L, S, K, h, R], as in types.Cache
  v: Array | tuple[Array, ...] | None  # [L, S, K, R, h]
  drawn: Drawn


def sample(model, params: Params, prompts: Prompts, key_N: Array, *,
           slots: int, response_tokens: int, eos_ids: tuple[int, ...],
           temperature: float, top_k: int = 0, top_p: float = 1.,
           keep_support: bool = False, keep_experts: bool = False) -> Rollout:
  """As group_sampling.sample, with at most `slots` responses at a time.

  Args:
    slots: S, a multiple of the devices that split a batch.
  """
  place = model.place
  shared = sharding.repeat(prompts, len(key_N), place)
  params = model.prepare(params)
  prompt_kv, begun = group_sampling.begin(
      model, params, shared, len(key_N), response_tokens,
      top_k if keep_support else 0, keep_experts)
  devices = len(sharding.by_device(place, key_N))
  rows = len(key_N) // devices
  step = _stepper(model, params, shared, prompt_kv, key_N, begun.hidden,
                  eos_ids, temperature, top_k, top_p)
  state = State(
      jnp.zeros(devices, jnp.int32), jnp.full(slots, rows, jnp.int32),
      jnp.zeros(slots, jnp.int32),
      jnp.zeros((slots, begun.hidden.shape[1]), begun.hidden.dtype),
      *group_sampling.empty_past(*prompt_kv, slots, response_tokens),
      Drawn(begun.tokens, begun.mask, begun.logp, begun.support,
            begun.experts and begun.experts[1]))
  in_use_X = lambda s: jnp.sum(sharding.by_device(place, s.row) < rows, 1)
  few = slots // devices // _FEWER  # on each device
  for count in filter(None, (slots, few * devices)):
    most = few if count == slots else 0
    state = lax.while_loop(
        lambda s, most=most: (
            jnp.any(s.next < rows) | jnp.any(in_use_X(s) > most)),
        step, _in_fewer(place, state, count))
  return group_sampling.rollout(place, prompts, begun._replace(
      tokens=state.drawn.tokens, mask=state.drawn.mask, logp=state.drawn.logp,
      support=state.drawn.support,
      experts=begun.experts and (begun.experts[0], state.drawn.experts)))


def _stepper(model, params: Params, prompts: Prompts, prompt_kv, key_N: Array,
             first_ND: Array, eos_ids: tuple[int, ...], temperature: float,
             top_k: int, top_p: float):
  """The body of the loop: a token of each slot, after new responses entered."""
  place = model.place
  of_device = lambda x: sharding.by_device(place, x)
  pick = lambda x, index: sharding.pick(place, x, index)
  rows, group = of_device(key_N).shape[1], len(key_N) // len(prompts.length)

  def enter(state: State) -> State:
    empty_S = state.row == rows
    nth_XS = jnp.cumsum(of_device(empty_S), 1, dtype=jnp.int32)
    row_S = (state.next[:, None] + nth_XS - 1).reshape(-1)
    row_S = jnp.where(empty_S, jnp.minimum(row_S, rows), state.row)
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
    return State(
        state.next, jnp.where(ended_S, rows, row_S),
        jnp.where(ended_S, 0, index_S + 1), hidden_S1D[:, 0], k, v, drawn)

  return step


def _in_fewer(place, state: State, slots: int) -> State:
  """The state with its responses in the first of `slots` slots."""
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
