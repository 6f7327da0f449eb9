"""Scores of responses, and values of tokens: outputs of a scalar model.

A scalar model (`models.Model` with `config.scalar`) has a head of one number in
place of logits: a reward model's score, or a critic's value. A prompt passes
through the model once for its whole group.
"""

import jax
import jax.numpy as jnp

from r1jax.kernels import logprobs
from r1jax.types import Array, Params, Preferences, Prompts


def of_responses(model, params: Params, prompts: Prompts, tokens_NR: Array,
                 length_N: Array) -> Array:
  """A reward model's score of each response, f32[N], read at its last token.

  Tokens after the first `length_N` of a response do not matter. An empty
  response has no score: the value returned for it must be masked.
  """
  _, hidden_NRD = model.forward_groups(params, prompts, tokens_NR)
  index_N11 = jnp.maximum(length_N - 1, 0)[:, None, None]
  last_N1D = jnp.take_along_axis(hidden_NRD, index_N11, 1)
  return model.score(params, last_N1D)[:, 0]


def of_steps(model, params: Params, tokens_NT: Array, end_NK: Array) -> Array:
  """A process reward model's score of each step, f32[N, K].

  Read at index `end_NK` of the tokens of prompt and response, which is the
  step's last token; what follows it does not matter.
  """
  hidden_NTD, _ = model.forward(
      params, tokens_NT, None,
      jnp.broadcast_to(jnp.arange(tokens_NT.shape[1]), tokens_NT.shape))
  return model.score(
      params, jnp.take_along_axis(hidden_NTD, end_NK[..., None], 1))


def of_states(model, params: Params, prompts: Prompts, tokens_NR: Array,
              segment_NR: Array | None = None) -> Array:
  """A critic's value of the state before each response token, f32[N, R].

  The first of a response is the value of the prompt. Where a row holds several
  responses, `segment_NR` says which, see types.Rollout.
  """
  hidden_NRD = logprobs.states_before(
      model, params, prompts, tokens_NR, segment_NR)
  return model.score(params, hidden_NRD)


def of_rows(model, params: Params, batch: Preferences) -> Array:
  """A reward model's score of each response in packed rows, f32[B, S, K]."""
  hidden_BTD, _ = model.forward(
      params, batch.tokens, batch.segment, batch.position,
      parent_BT=batch.parent)
  end_BE = batch.end.reshape(batch.end.shape[0], -1)
  last_BED = jnp.take_along_axis(hidden_BTD, end_BE[..., None], 1)
  return model.score(params, last_BED).reshape(batch.end.shape)


def sums_of_rows(value_BT: Array, batch: Preferences) -> Array:
  """The sum of per-token values over each response, f32[B, S, K]."""
  prompts, responses = batch.end.shape[1:]
  sum_BX = jax.vmap(lambda value, segment: jax.ops.segment_sum(
      value, segment, (1 + prompts) * (1 + responses)))(value_BT, batch.segment)
  return sum_BX.reshape(-1, 1 + prompts, 1 + responses)[:, 1:, 1:]
