"""Which keys a query of the decoder sees: the prompt, the past, the new tokens.

A token sees those before it in its own document, its whole prompt, and on a
local layer only what is near.
"""

from typing import NamedTuple

import jax.numpy as jnp

from r1jax.kernels import attention
from r1jax.models import shape
from r1jax.types import Array


class Look(NamedTuple):
  """Where the queries of one forward pass stand, the same for all layers."""
  position: Array  # i32[B, T]
  segment: Array | None = None  # i32[B, T]; None: one document a row
  parent: Array | None = None  # i32[B, T], a segment seen besides one's own
  prompt_length: Array | None = None  # i32[prompts], with prompts
  filled: Array | None = None  # i32[], with a past
  table: Array | None = None  # rotary cos, sin of whole rows
  local_table: Array | None = None  # those of local layers
  responses: 'Look | None' = None  # of those behind each prompt in its row


def apart(look: Look, x_BT: Array) -> tuple[Array, Array]:
  """Rows of a prompt and its responses -> [B, P, ...] and [N, T, ...]."""
  length = look.position.shape[1]
  return x_BT[:, :length], x_BT[:, length:].reshape(
      *look.responses.position.shape, *x_BT.shape[2:])


def _window(config: shape.Config, position: Array, key_position: Array,
            local: Array):
  """bool[B, T, S]: which keys a layer's window lets a query see."""
  if config.window is None:
    return True
  return ~local | (position[:, :, None] - key_position < config.window)


def parts(config: shape.Config, look: Look, query: Array, local, prompt, k, v):
  """The prompt and the responses' own tokens, as some queries see them.

  Args:
    config, look: of the forward pass.
    query: i32[Q], columns of `look`.
    local: whether the layer is a local one.
    prompt: keys and values of the prompts, or None.
    k, v: those of the past and of all T new tokens after it.
  """
  position = look.position[:, query]
  rows, length = position.shape
  index = jnp.arange(k.shape[-1])
  if look.filled is None:
    first, key_position = 0, look.position[:, None, :index.size]
  else:
    first = look.filled
    start = jnp.repeat(look.prompt_length, rows // look.prompt_length.size)
    key_position = (start[:, None] + index)[:, None]
  seen = (index <= first + query[:, None])[None]
  if look.segment is not None:
    key_segment = look.segment[:, None, :index.size]
    same = look.segment[:, query, None] == key_segment
    if look.parent is not None:
      same |= look.parent[:, query, None] == key_segment
    seen &= same
  seen &= _window(config, position, key_position, local)
  own = attention.Part(k, v, seen[:, None])
  if prompt is None:
    return [own]
  prompts, index = prompt[0].shape[0], jnp.arange(prompt[0].shape[-1])
  seen = (index < look.prompt_length[:, None])[:, None, None]
  near = _window(config, position, index, local)
  if near is not True:
    near = near.reshape(prompts, rows // prompts, length, -1)
  return [attention.Part(*prompt, seen & near), own]
