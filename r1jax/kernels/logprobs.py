"""Log-probabilities and entropies of tokens, a chunk of positions at a time.

The logits of a whole batch, [B, T, V], are never held in memory: those of each
chunk of positions are computed when needed and, where there are several, again
in the backward pass. On a mesh each device goes through the chunks of its own
rows, so that the output matrix is gathered, and its gradient summed over
devices, once and not with every chunk.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import packing
from r1jax.kernels import padding
from r1jax.types import Array, Params, Prompts

# (logits [X, V], tokens [X]) -> two values for each token, [X] each
Measure = Callable[[Any, Any], tuple[Array, Array]]

_TILE, _LONG = 128, 1024


def of_logits(logits_XV: Array, token_X: Array, *, differentiate: bool = False
              ) -> tuple[Array, Array]:
  """log p(token) and entropy, in nats, of softmax(logits), float32.

  Without `differentiate` the entropy carries no gradient: it is a metric.
  """
  held = _held(differentiate)
  largest_X = lax.stop_gradient(jnp.max(logits_XV, -1))
  weight_XV = jnp.exp(logits_XV - largest_X[..., None])
  total_X = jnp.sum(weight_XV, -1)
  norm_X = largest_X + jnp.log(total_X)
  picked_X = jnp.take_along_axis(logits_XV, token_X[..., None], -1)[..., 0]
  mean_X = jnp.sum(held(weight_XV) * held(logits_XV), -1) / held(total_X)
  return picked_X - norm_X, held(norm_X) - mean_X


def _held(differentiate: bool) -> Callable[[Array], Array]:
  return (lambda x: x) if differentiate else lax.stop_gradient


def of_support(logits_XV: Array, token_and_kept: tuple[Array, Array], *,
               differentiate: bool = False) -> tuple[Array, Array]:
  """log p(token) and entropy of a softmax over the kept tokens alone, float32.

  Args:
    logits_XV: of all tokens.
    token_and_kept: token_X, and the tokens kept beside it, [X, K]; -1: none.
    differentiate: as of `of_logits`.
  """
  token_X, kept_XK = token_and_kept
  logits_XK = jnp.where(kept_XK < 0, -jnp.inf, jnp.take_along_axis(
      logits_XV, jnp.maximum(kept_XK, 0), -1))
  norm_X = jax.nn.logsumexp(logits_XK, -1)
  picked_X = jnp.take_along_axis(logits_XV, token_X[..., None], -1)[..., 0]
  logp_XK = _held(differentiate)(jnp.where(
      kept_XK < 0, 0., logits_XK - norm_X[..., None]))
  entropy_X = -jnp.sum(jnp.where(
      kept_XK < 0, 0., jnp.exp(logp_XK) * logp_XK), -1)
  return picked_X - norm_X, entropy_X


def of_hidden(unembed: Callable[[Params, Any], Any], head: Params,
              hidden_BTD: Any, token_BT: Any, *, temperature: float, chunk: int,
              measure: Measure = of_logits, place=None
              ) -> tuple[Array, Array]:
  """log p(token_BT[b, t]) under unembed(head, hidden_BTD[b, t]) / temperature.

  Args:
    unembed: (head, hidden [B, C, D]) -> logits [B, C, V].
    head: the parameters that it reads, `Model.head`.
    hidden_BTD: the hidden states that predict the tokens; or a tree of arrays
      of several models, for which `unembed` gives a tree of logits.
    token_BT: the tokens; or a tree of arrays [B, T, ...], where `measure`
      needs more than tokens.
    temperature: divides the logits; that of the sampler.
    chunk: positions whose logits are in memory at a time, on each device.
    measure: what is computed from the logits and tokens of a chunk.
    place: `Model.place`, where rows and positions are on a mesh.

  Returns:
    logp_BT and entropy_BT, float32; or the two values of `measure`.
  """
  def measure_rows(head, arrays):
    length = jax.tree.leaves(arrays)[0].shape[1]
    size = min(chunk, length)

    def measure_chunk(chunk):
      hidden_BCD, token_BC = chunk
      logits = jax.tree.map(
          lambda y: y / temperature, unembed(head, hidden_BCD))
      return measure(logits, token_BC)

    if size == length:  # no less is held if they are computed twice
      return measure_chunk(arrays)

    def split(x):
      x = padding.columns(x, size)
      return x.reshape(x.shape[0], -1, size, *x.shape[2:]).swapaxes(0, 1)

    def join(y):
      return y.swapaxes(0, 1).reshape(y.shape[1], -1)[:, :length]

    measured = lax.map(
        jax.checkpoint(measure_chunk), jax.tree.map(split, arrays))
    return jax.tree.map(join, measured)

  arrays = hidden_BTD, token_BT
  rows, length = jax.tree.leaves(arrays)[0].shape[:2]
  if place is not None and (parts := place.row_parts(rows)):
    arrays = jax.tree.map(lambda x: padding.columns(x, parts.length), arrays)
    measure_rows = parts.on_each(measure_rows)
  return jax.tree.map(lambda y: y[:, :length], measure_rows(head, arrays))


def of_sequences(model, params: Params, tokens_BT: Array, segment_BT: Array,
                 position_BT: Array, *, chunk: int, temperature: float = 1.,
                 parent_BT: Array | None = None, measure: Measure = of_logits
                 ) -> tuple[Array, Array]:
  """log p of each token given those before it in its segment and its parent.

  Args:
    model: `models.Model`.
    params: its parameters.
    tokens_BT, segment_BT, position_BT, parent_BT: as of `Model.forward`.
    chunk, temperature, measure: as of `of_hidden`.

  Returns:
    logp_BT and entropy_BT, or the two values of `measure`. Index 0, which
    nothing precedes, holds 0. The first token of a later segment that is its
    own parent holds a meaningless value, which its weight must hide.
  """
  hidden_BTD, _ = model.forward(
      params, tokens_BT, segment_BT, position_BT, parent_BT=parent_BT)
  before_BTD = hidden_BTD[:, :-1] if parent_BT is None else (
      jnp.take_along_axis(
          hidden_BTD, _before(segment_BT, parent_BT)[:, 1:, None], 1))
  logp, entropy = of_hidden(
      model.unembed, model.head(params), before_BTD, tokens_BT[:, 1:],
      temperature=temperature, chunk=chunk, measure=measure, place=model.place)
  shift = lambda x: jnp.pad(x, ((0, 0), (1, 0)))
  return shift(logp), shift(entropy)


def _before(segment_BT: Array, parent_BT: Array) -> Array:
  """The index of the token that each token follows, i32[B, T].

  It is t - 1, or the end of the prompt for the first token of a response. The
  responses to a prompt come after it and before the next prompt.
  """
  index = jnp.arange(segment_BT.shape[1])
  is_prompt_BT = segment_BT == parent_BT
  prompt_end_BT = jax.lax.cummax(jnp.where(is_prompt_BT, index, 0), 1)
  return jnp.where(packing.begins(segment_BT) & ~is_prompt_BT, prompt_end_BT,
                   index - 1)


def last_states(hidden_BPD: Array, prompts: Prompts) -> Array:
  """The hidden state of each prompt's last token, [B, D].

  It predicts the first token of every response to the prompt.
  """
  return jnp.take_along_axis(
      hidden_BPD, (prompts.length - 1)[:, None, None], 1)[:, 0]


def of_responses(model, params: Params, prompts: Prompts, tokens_NR: Array, *,
                 temperature: float, chunk: int,
                 kept_NRK: Array | None = None, differentiate: bool = False,
                 segment_NR: Array | None = None) -> tuple[Array, Array]:
  """log p of each response token given its prompt and the tokens before it.

  A prompt passes through the model once for its whole group, forward and
  backward; values and gradients are those of N sequences, prompt + response.

  Args:
    model: `models.Model`.
    params: its parameters.
    prompts: B prompts.
    tokens_NR: their responses.
    temperature, chunk: as of `of_hidden`.
    kept_NRK: the tokens among which each was drawn, -1: none; None: all. No
      other token has a probability.
    differentiate: whether the entropy has a gradient.
    segment_NR: where a row holds several responses, see types.Rollout.

  Returns:
    logp_NR and entropy_NR, float32; values after a response's end are
    meaningless and must be masked.
  """
  return _of_states(
      model, params,
      states_before(model, params, prompts, tokens_NR, segment_NR),
      tokens_NR, temperature, chunk, kept_NRK, differentiate)


def _of_states(model, params: Params, hidden_NRD: Array, tokens_NR: Array,
               temperature: float, chunk: int, kept_NRK: Array | None,
               differentiate: bool) -> tuple[Array, Array]:
  """`of_responses`, of the states that their tokens are chosen in."""
  tokens, measure = tokens_NR, of_logits
  if kept_NRK is not None:
    tokens, measure = (tokens_NR, kept_NRK), of_support
  measure = functools.partial(measure, differentiate=differentiate)
  return of_hidden(model.unembed, model.head(params), hidden_NRD, tokens,
                   temperature=temperature, chunk=chunk, measure=measure,
                   place=model.place)


def of_replayed(model, params: Params, prompts: Prompts, tokens_NR: Array,
                experts_NRLK: Array, *, temperature: float, chunk: int,
                kept_NRK: Array | None = None, differentiate: bool = False,
                segment_NR: Array | None = None
                ) -> tuple[Array, Array, Array]:
  """`of_responses`, where each token's experts are those of its sampling.

  Routing replay (R3, arXiv 2510.11370): sampler and scorer may choose other
  experts, and then differ by far more than by rounding.

  Args:
    prompts: with their experts.
    experts_NRLK: those of the responses, see types.Rollout.
    temperature, chunk, kept_NRK, differentiate, segment_NR: as of
      `of_responses`.

  Returns:
    logp_NR, entropy_NR, and changed f32[N, R - 1]: the share of the L layers
    whose routers would choose others for each token, the last one excepted.
  """
  *hidden, own_NTLK = model.replay_groups(
      params, prompts, _inputs(tokens_NR), _inputs(experts_NRLK),
      None if segment_NR is None else _inputs(segment_NR))
  logp, entropy = _of_states(
      model, params, _states_before(prompts, *hidden, tokens_NR, segment_NR),
      tokens_NR, temperature, chunk, kept_NRK, differentiate)
  # As sets: K experts, each of them once.
  same = (own_NTLK[:, :tokens_NR.shape[1] - 1, :, :, None]
          == experts_NRLK[:, :-1, :, None, :])
  changed = ~jnp.all(jnp.any(same, -1), -1)
  return logp, entropy, jnp.mean(changed, -1)


def states_before(model, params: Params, prompts: Prompts, tokens_NR: Array,
                  segment_NR: Array | None = None) -> Array:
  """The hidden state that each response token is chosen in, [N, R, D]."""
  hidden = model.forward_groups(
      params, prompts, _inputs(tokens_NR),
      None if segment_NR is None else _inputs(segment_NR))
  return _states_before(prompts, *hidden, tokens_NR, segment_NR)


def _inputs(x_NR: Array) -> Array:
  """The columns of the tokens that pass through the model.

  Nothing comes after the last token, which passes only if it is alone: a fused
  attention takes no row without columns. But a TPU's tiles are of 128 columns,
  and long rows of another length take longer to compute and, by far, to
  compile.
  """
  length = x_NR.shape[1]
  if length % _TILE and length < _LONG:
    return x_NR[:, :max(length - 1, 1)]
  return padding.columns(x_NR, _TILE)


def _states_before(prompts: Prompts, hidden_BPD: Array, hidden_NTD: Array,
                   tokens_NR: Array, segment_NR: Array | None) -> Array:
  """`states_before`, of the hidden states of prompts and tokens."""
  rows, length = tokens_NR.shape
  first_N1D = jnp.repeat(
      last_states(hidden_BPD, prompts), rows // len(prompts.tokens), 0)[:, None]
  before_NRD = jnp.concatenate([first_N1D, hidden_NTD[:, :length - 1]], 1)
  if segment_NR is None:
    return before_NRD
  return jnp.where(
      packing.begins(segment_NR)[..., None], first_N1D, before_NRD)
