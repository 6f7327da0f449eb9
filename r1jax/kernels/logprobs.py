"""Log-probabilities and entropies of tokens, a chunk of positions at a time.

The logits of a whole batch, [B, T, V], are never held: each chunk of positions
makes its own, and the backward pass makes them again.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.types import Array, Prompts


def of_logits(logits_XV: Array, token_X: Array) -> tuple[Array, Array]:
  """log p(token) and entropy [nats] of softmax(logits), float32.

  The entropy carries no gradient: it is a metric.
  """
  norm_X = jax.nn.logsumexp(logits_XV, -1)
  picked_X = jnp.take_along_axis(logits_XV, token_X[..., None], -1)[..., 0]
  fixed_XV = lax.stop_gradient(logits_XV)
  mean_X = jnp.sum(jax.nn.softmax(fixed_XV, -1) * fixed_XV, -1)
  return picked_X - norm_X, lax.stop_gradient(norm_X) - mean_X


def of_hidden(unembed: Callable[[Array], Array], hidden_BTD: Array,
              token_BT: Array, *, temperature: float, chunk: int,
              each=of_logits) -> tuple[Array, Array]:
  """log p(token_BT[b, t]) under unembed(hidden_BTD[b, t]) / temperature.

  Args:
    unembed: hidden [B, C, D] -> logits [B, C, V].
    hidden_BTD: the states that predict each token.
    token_BT: the tokens; or a tree of what `each` is given besides the logits,
      [B, T, ...].
    temperature: divides the logits; the sampler's own.
    chunk: positions whose logits exist at a time.
    each: what is made of a chunk's logits and tokens.

  Returns:
    logp_BT and entropy_BT, float32; or what `each` gives.
  """
  length = hidden_BTD.shape[1]
  chunk = min(chunk, length)
  pad = -length % chunk

  @jax.checkpoint
  def one(hidden_BCD, token_BC):
    return each(unembed(hidden_BCD) / temperature, token_BC)

  def split(x):
    x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], -1, chunk, *x.shape[2:]).swapaxes(0, 1)

  def join(y):
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)[:, :length]

  logp, entropy = lax.map(
      lambda x: one(*x), jax.tree.map(split, (hidden_BTD, token_BT)))
  return join(logp), join(entropy)


def of_sequences(model, params, tokens_BT: Array, segment_BT: Array,
                 position_BT: Array, *, chunk: int, temperature: float = 1.,
                 parent_BT: Array | None = None, each=of_logits
                 ) -> tuple[Array, Array]:
  """log p of each token given those before it in its segment and its parent.

  Returns logp_BT and entropy_BT (or what `each` gives, see of_hidden); index
  0, which nothing precedes, holds 0, and the first token of any later segment
  that is its own parent a value that its weight must hide.
  """
  hidden_BTD, _ = model.forward(
      params, tokens_BT, segment_BT, position_BT, parent_BT=parent_BT)
  before_BTD = hidden_BTD[:, :-1] if parent_BT is None else (
      jnp.take_along_axis(
          hidden_BTD, _before(segment_BT, parent_BT)[:, 1:, None], 1))
  logp, entropy = of_hidden(
      lambda h: model.unembed(params, h), before_BTD, tokens_BT[:, 1:],
      temperature=temperature, chunk=chunk, each=each)
  shift = lambda x: jnp.pad(x, ((0, 0), (1, 0)))
  return shift(logp), shift(entropy)


def _before(segment_BT: Array, parent_BT: Array) -> Array:
  """Where the token stands that each one follows: at t-1, or its prompt's end.

  The responses to a prompt stand behind it, before any other prompt.
  """
  index = jnp.arange(segment_BT.shape[1])
  asked_BT = segment_BT == parent_BT
  prompt_end_BT = jax.lax.cummax(jnp.where(asked_BT, index, 0), 1)
  first_BT = segment_BT != jnp.roll(segment_BT, 1, 1)
  return jnp.where(first_BT & ~asked_BT, prompt_end_BT, index - 1)


def last(hidden_BPD: Array, prompts: Prompts) -> Array:
  """The hidden state of each prompt's last token, [B, D].

  It predicts the first token of all its responses.
  """
  return jnp.take_along_axis(
      hidden_BPD, (prompts.length - 1)[:, None, None], 1)[:, 0]


def of_responses(model, params, prompts: Prompts, tokens_NR: Array, *,
                 temperature: float, chunk: int) -> tuple[Array, Array]:
  """log p of each response token given its prompt and the tokens before it.

  A prompt is computed once for its whole group, forward and backward; values
  and gradients are those of scoring prompt + response N times.

  Returns logp_NR and entropy_NR, float32; what stands after a response's end
  is meaningless and must be masked.
  """
  hidden_NRD = before_each(model, params, prompts, tokens_NR)
  return of_hidden(lambda h: model.unembed(params, h), hidden_NRD, tokens_NR,
                   temperature=temperature, chunk=chunk)


def before_each(model, params, prompts: Prompts, tokens_NR: Array) -> Array:
  """The hidden state that each response token is chosen in, [N, R, D]."""
  group = tokens_NR.shape[0] // prompts.tokens.shape[0]
  hidden_BPD, hidden_NRD = model.groups(params, prompts, tokens_NR[:, :-1])
  first_N1D = jnp.repeat(last(hidden_BPD, prompts), group, 0)[:, None]
  return jnp.concatenate([first_N1D, hidden_NRD], 1)
