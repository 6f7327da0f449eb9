"""Sampling of a group of responses to each prompt.

A prompt is prefilled once, and its group shares its keys and values; where the
group lies on several devices, on each of them. The cache of the responses' own
tokens grows when it is full, and the loop ends when every response has ended.
Every random number is a function of (seed, stream, prompt id, sample, token),
so samples do not depend on how a batch is split, nor on whether they are drawn
by one program, `sample`, or a few tokens at a time, by `begin`, `grow` and
`advance`, of which it is made.
"""

import math
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import attention
from r1jax.kernels import logprobs
from r1jax.parallel import sharding
from r1jax.types import Array, Cache, Params, Prompts, Rollout, Support


# Of a cache, as in types.Cache.
KeysValues = tuple[Array | tuple[Array, ...], Array | tuple[Array, ...] | None]

_ROUNDING = 1e-6  # of a sum of probabilities in float32


class SamplingState(NamedTuple):
  """The carry of the sampling loop: N responses of up to R tokens.

  A model that does not scan its layers has a tuple of L arrays for k and v, as
  in types.Cache, which also says how they differ with latent attention.
  """
  index: Array  # i32[], the response token that is drawn next
  hidden: Array  # [N, D], predicts it; once ended, at the end token
  done: Array  # bool[N], the response has its end token
  tokens: Array  # i32[N, R], 0 where none is drawn
  mask: Array  # bool[N, R], true on tokens drawn, the end token included
  logp: Array  # f32[N, R], of the tokens drawn
  k: Array | tuple[Array, ...]  # [L, N, K, h, S], keys of the tokens drawn
  v: Array | tuple[Array, ...] | None  # [L, N, K, S, h], their values
  support: Support | None = None  # of the tokens drawn, if it is to be kept
  # Chosen for prompts [B, P, L, K] and for drawn tokens [N, R, L, K], if kept.
  experts: tuple[Array, Array] | None = None


def sample_keys(seed: Array, stream: Array, id_B: Array, group: int) -> Array:
  """A random key for each response, key[N], group contiguous."""
  key = jax.random.fold_in(jax.random.key(seed), stream)
  of_prompt = jax.vmap(jax.random.fold_in, (None, 0))(key, id_B)
  of_sample = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
  return of_sample(of_prompt, jnp.arange(group)).reshape(-1)


def truncate(logits_NV: Array, top_k: int, top_p: float) -> Array:
  """Logits, with -inf outside the k most likely tokens and the nucleus of p.

  The nucleus is the smallest set of most likely tokens whose probabilities sum
  to `top_p` or more (Holtzman et al., arXiv 1904.09751), after `top_k` has been
  applied. 0 and 1 keep all tokens. Of equally likely tokens the first are kept:
  exactly k, and of four at 1/4 the first two for a `top_p` of 1/2.
  """
  vocab = logits_NV.shape[-1]
  if not 0 < top_k < vocab and top_p >= 1:
    return logits_NV
  ordered_NK, token_NK, last_N1 = _nucleus(logits_NV, top_k, top_p)
  least_N1, token_N1 = (jnp.take_along_axis(x_NK, last_N1, -1)
                        for x_NK in (ordered_NK, token_NK))
  kept = (logits_NV > least_N1) | (logits_NV == least_N1) & (
      jnp.arange(vocab) <= token_N1)
  return jnp.where(kept, logits_NV, -jnp.inf)


def _nucleus(logits_NV: Array, top_k: int, top_p: float
             ) -> tuple[Array, Array, Array]:
  """Logits and tokens in order, [N, K], and the last to be kept, [N, 1]."""
  vocab = logits_NV.shape[-1]
  most = top_k if 0 < top_k < vocab else vocab
  # Equal logits come in the order of their tokens.
  ordered_NK, token_NK = lax.top_k(logits_NV, most)
  last_N1 = jnp.full((len(logits_NV), 1), most - 1)
  if top_p < 1:
    probability_NK = jax.nn.softmax(ordered_NK, -1)
    before_NK = jnp.cumsum(probability_NK, -1)[:, :-1]
    last_N1 = jnp.sum(before_NK < top_p - _ROUNDING, -1, keepdims=True)
  return ordered_NK, token_NK, last_N1


def support(logits_NV: Array, top_k: int, top_p: float) -> Support:
  """What `truncate` keeps: tokens [N, K] for a `top_k` of K, and mass [N]."""
  ordered_NK, token_NK, last_N1 = _nucleus(logits_NV, top_k, top_p)
  most = token_NK.shape[-1]
  kept_NK = jnp.arange(most) <= last_N1
  log_mass_N = jax.nn.logsumexp(
      jnp.where(kept_NK, ordered_NK, -jnp.inf), -1) - jax.nn.logsumexp(
          logits_NV, -1)
  return Support(jnp.pad(jnp.where(kept_NK, token_NK, -1),
                         ((0, 0), (0, top_k - most)), constant_values=-1),
                 jnp.exp(log_mass_N))


def categorical(logits_NV: Array, uniform_N2: Array) -> tuple[Array, Array]:
  """Draws token_N ~ softmax(logits); returns it and its log p, float32.

  Inverts the distribution function in two steps: first among about sqrt(V)
  blocks of tokens, then within the block. A draw takes two uniforms, where
  Gumbel noise takes V, and has the resolution of both together.
  """
  vocab = logits_NV.shape[-1]
  block = 2 ** math.ceil(math.log2(vocab) / 2)
  largest_N1 = logits_NV.max(-1, keepdims=True)
  weight = jnp.exp(logits_NV - largest_N1)
  weight = jnp.pad(weight, ((0, 0), (0, -vocab % block)))
  weight = weight.reshape(-1, weight.shape[-1] // block, block)

  def invert(weight_NX, uniform_N):
    # uniform < 1, so the last entry is always larger, and the index drawn has
    # a positive weight.
    below = jnp.cumsum(weight_NX, -1)
    target = uniform_N[:, None] * below[:, -1:]
    return jnp.sum(below <= target, -1), below[:, -1]

  block_N, total_N = invert(weight.sum(-1), uniform_N2[:, 0])
  within = jnp.take_along_axis(weight, block_N[:, None, None], 1)[:, 0]
  token_N = block_N * block + invert(within, uniform_N2[:, 1])[0]
  picked_N = jnp.take_along_axis(logits_NV, token_N[:, None], 1)[:, 0]
  return token_N, picked_N - largest_N1[:, 0] - jnp.log(total_N)


def draw(logits_NV: Array, key_N: Array, index: Array, *, temperature: float,
         top_k: int, top_p: float) -> tuple[Array, Array]:
  """Draws token `index` of each response: the token and its log p, float32.

  `index` is of all responses, i32[], or of each, i32[N]. A temperature of 0
  takes the most likely token.
  """
  if temperature == 0:
    token_N = jnp.argmax(logits_NV, -1)
    return token_N, logprobs.of_logits(logits_NV, token_N)[0]
  uniform_N2 = jax.vmap(
      lambda key, index: jax.random.uniform(
          jax.random.fold_in(key, index), (2,)))(
              key_N, jnp.broadcast_to(index, key_N.shape))
  return categorical(truncate(logits_NV / temperature, top_k, top_p),
                     uniform_N2)


def cache_sizes(response_tokens: int, chunk: int) -> list[int]:
  """The sizes of the growing cache: chunk, 2 chunk, ..., response_tokens.

  A cache is read whole, and so doubles, until it is read in blocks, as far as
  it is filled: then it has all the room. The loops over tokens, and the time to
  compile them, do not grow with the response.
  """
  sizes = [min(chunk, response_tokens)]
  while sizes[-1] < response_tokens:
    sizes.append(min(2 * sizes[-1], response_tokens)
                 if sizes[-1] < attention.BLOCK else response_tokens)
  return sizes


class Begun(NamedTuple):
  """What stays while N responses are drawn; arguments of `advance`."""
  prompts: Prompts  # of the rows, sharding.repeat
  prompt_kv: KeysValues
  keys: Array  # key[N]


def begin(model, params: Params, prompts: Prompts, rows: int,
          response_tokens: int, kept: int = 0, keep_experts: bool = False
          ) -> tuple[KeysValues, SamplingState]:
  """Prefills the prompts: their keys and values, and the state of `rows` = N.

  Args:
    model: `models.Model`.
    params: of the behaviour policy.
    prompts: B prompts, padded as the caller likes: a prompt's padding changes
      no sample.
    rows: N, a multiple of B.
    response_tokens: R, for which the state has room; its cache has none yet.
    kept: K, the tokens of a support that is to be kept; 0: none is.
    keep_experts: of prompts and tokens, as in `sample`.
  """
  batch, length = prompts.tokens.shape
  group, shape = rows // batch, (rows, response_tokens)
  hidden_BPD, prompt_kv, chosen_BPLK = forward(
      model, keep_experts, params, prompts.tokens, None,
      jnp.broadcast_to(jnp.arange(length), (batch, length)))
  experts = None
  if keep_experts:
    # Of tokens that are never drawn: any, each of them once.
    *_, active = chosen_BPLK.shape
    experts = chosen_BPLK, jnp.broadcast_to(
        jnp.arange(active, dtype=chosen_BPLK.dtype),
        (*shape, *chosen_BPLK.shape[2:]))
  first_ND = jnp.repeat(logprobs.last_states(hidden_BPD, prompts), group, 0)
  return prompt_kv, SamplingState(
      jnp.zeros((), jnp.int32), first_ND, jnp.zeros(rows, bool),
      jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool),
      jnp.zeros(shape, jnp.float32), *empty_past(*prompt_kv, rows, 0),
      Support(jnp.zeros((*shape, kept), jnp.int32),
              jnp.zeros(shape, jnp.float32)) if kept else None, experts)


def forward(model, keep_experts: bool, *args):
  """States, keys and values, and the experts that are chosen, if kept."""
  if keep_experts:
    return model.forward_routed(*args)
  return *model.forward(*args), None


def empty_past(prompt_k: Array, prompt_v: Array | None, rows: int, size: int
               ) -> KeysValues:
  """Zeros for the keys and values of `rows` responses of `size` tokens."""
  k = jax.tree.map(lambda x: jnp.zeros(
      (*x.shape[:-4], rows, *x.shape[-3:-1], size), x.dtype), prompt_k)
  v = jax.tree.map(lambda x: jnp.zeros(
      (*x.shape[:-4], rows, x.shape[-3], size, x.shape[-1]), x.dtype), prompt_v)
  return k, v


def with_room(kv: KeysValues, size: int) -> KeysValues:
  """The keys and values, with zeros up to `size` tokens."""
  def put(shape, x):
    return lax.dynamic_update_slice(
        jnp.zeros(shape, x.dtype), x, (0,) * x.ndim)

  k, v = kv
  return (jax.tree.map(lambda x: put((*x.shape[:-1], size), x), k),
          jax.tree.map(
              lambda x: put((*x.shape[:-2], size, x.shape[-1]), x), v))


def grow(state: SamplingState, size: int) -> SamplingState:
  """The state with room for the keys and values of `size` tokens."""
  k, v = with_room((state.k, state.v), size)
  return state._replace(k=k, v=v)


def advance(model, params: Params, prompts: Prompts, prompt_kv: KeysValues,
            key_N: Array, state: SamplingState, end: Array | int, *,
            eos_ids: tuple[int, ...], temperature: float, top_k: int = 0,
            top_p: float = 1.) -> SamplingState:
  """Draws tokens until `end` are drawn, or all responses have ended.

  Args:
    model: `models.Model`.
    params: `model.prepare`d ones.
    prompts, prompt_kv, state: as `begin` has left them, or `advance`.
    key_N: from `sample_keys`.
    end: at most the tokens that the cache has room for; i32[] or a constant.
    eos_ids, temperature, top_k, top_p: as in `sample`.
  """
  group = len(key_N) // len(prompts.length)
  start_N = jnp.repeat(prompts.length, group)

  def step(state: SamplingState) -> SamplingState:
    index, hidden_ND, done_N, tokens, mask, logp, k, v, kept, experts = state
    logits_NV = model.unembed(params, hidden_ND[:, None])[:, 0]
    token_N, logp_N = draw(logits_NV, key_N, index, temperature=temperature,
                           top_k=top_k, top_p=top_p)
    token_N = jnp.where(done_N, 0, token_N).astype(jnp.int32)
    put = lambda x, y: lax.dynamic_update_index_in_dim(x, y, index, 1)
    tokens, mask, logp = (put(tokens, token_N), put(mask, ~done_N),
                          put(logp, jnp.where(done_N, 0., logp_N)))
    if kept is not None:
      kept = jax.tree.map(
          put, kept, support(logits_NV / temperature, top_k, top_p))
    ended_N1 = done_N[:, None]
    done_N = done_N | jnp.isin(token_N, jnp.array(eos_ids, jnp.int32))
    hidden_N1D, (k, v), chosen_N1LK = forward(
        model, experts is not None, params, token_N[:, None], None,
        (start_N + index)[:, None],
        Cache(*prompt_kv, prompts.length, k, v, filled=index))
    hidden_ND = jnp.where(ended_N1, hidden_ND, hidden_N1D[:, 0])
    if experts is not None:
      experts = experts[0], put(experts[1], chosen_N1LK[:, 0])
    return SamplingState(
        index + 1, hidden_ND, done_N, tokens, mask, logp, k, v, kept, experts)

  return lax.while_loop(
      lambda s: (s.index < end) & ~jnp.all(s.done), step, state)


def sample(model, params: Params, prompts: Prompts, key_N: Array, *,
           response_tokens: int, eos_ids: tuple[int, ...],
           temperature: float, chunk: int = 64, top_k: int = 0,
           top_p: float = 1., keep_support: bool = False,
           keep_experts: bool = False) -> Rollout:
  """Samples len(key_N) / B responses to each of B prompts.

  Args:
    model: `models.Model`.
    params: of the behaviour policy.
    prompts: B prompts.
    key_N: from `sample_keys`.
    response_tokens: R; a response that has not ended by then is cut.
    eos_ids: end tokens; each ends a response, as part of it and of its mask.
    temperature: 0 takes the most likely token.
    chunk: the number of response tokens that the first cache holds.
    top_k, top_p: log p is that of the truncated distribution.
    keep_support: whether the rollout has the `top_k` tokens, or fewer, that
      each was drawn among, for an update.
    keep_experts: whether it has the experts that were chosen for each token.
  """
  params = model.prepare(params)
  begun, state = begin_groups(
      model, params, prompts, key_N, response_tokens,
      top_k if keep_support else 0, keep_experts)
  for end in cache_sizes(response_tokens, chunk):
    with jax.named_scope(f'tokens_{end}'):  # plans know it by this
      state = advance(
          model, params, *begun, grow(state, end), end, eos_ids=eos_ids,
          temperature=temperature, top_k=top_k, top_p=top_p)
  return rollout(model.place, prompts, state)


def begin_groups(model, params: Params, prompts: Prompts, key_N: Array,
                 response_tokens: int, kept: int, keep_experts: bool
                 ) -> tuple[Begun, SamplingState]:
  """`begin`, with the prompts as a rollout is given them."""
  shared = sharding.repeat(prompts, len(key_N), model.place)
  prompt_kv, state = begin(
      model, params, shared, len(key_N), response_tokens, kept, keep_experts)
  return Begun(shared, prompt_kv, key_N), state


def rollout(place: sharding.Placement | None, prompts: Prompts,
            state: SamplingState) -> Rollout:
  """What has been sampled; `prompts` as they were before any was repeated."""
  of_tokens = None
  if state.experts is not None:
    of_shared, of_tokens = state.experts
    times = len(of_shared) // len(prompts.length)
    prompts = prompts._replace(experts=of_shared[::times])
  drawn = state.tokens, state.mask, state.logp, state.support, of_tokens
  if place is not None:
    drawn = place.split(drawn)  # the caller may want them elsewhere
  return Rollout(prompts, *drawn)
