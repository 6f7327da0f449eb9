"""One response, a few tokens at a time, as they are sampled.

The text is that of the sampler that runs as one program, for the same seed,
stream and id (kernels/group_sampling.py). What is compiled depends on two
sizes alone, both powers of two: that to which the prompt is padded, and that of
the cache of the response. The number of tokens drawn by a call is no constant.
"""

from collections.abc import Callable, Iterator, Sequence
import functools

import jax
import numpy as np

from r1jax import models
from r1jax.data import batches
from r1jax.kernels import group_sampling
from r1jax.stages import rollouts
from r1jax.types import Params, Prompts

_SHORTEST = 128  # tokens, to which a shorter prompt is padded
_AT_ONCE = 8  # the most tokens drawn by one call: a third of a second, if slow


class Streamer:
  """Samples responses to single prompts, on one device."""

  def __init__(self, model: models.Model, params: Params,
               settings: rollouts.Settings,
               on_compile: Callable[[str], None] = lambda _: None):
    """Prepares the parameters; nothing else is compiled yet.

    Args:
      model: of the policy.
      params: its own.
      settings: how to sample; `group`, `slots` and what it keeps are not read.
      on_compile: called before new sizes are compiled, with what they are.
    """
    self._model, self._settings = model, settings
    self._params = jax.jit(model.prepare)(params)
    how = settings._asdict()
    for field in ('group', 'chunk', 'response_tokens', 'keep_support',
                  'keep_experts', 'slots', 'cpu_threads'):
      del how[field]
    self._begin = jax.jit(functools.partial(
        _begin, model, rows=1, response_tokens=settings.response_tokens))
    self._grow = jax.jit(group_sampling.grow, static_argnums=1)
    self._advance = jax.jit(
        functools.partial(group_sampling.advance, model, **how),
        donate_argnames='state')
    self._on_compile, self._compiled = on_compile, set()

  def __call__(self, ids: Sequence[int], seed: int, stream: int,
               tokens: int | None = None) -> Iterator[list[int]]:
    """Yields the response's tokens as they are drawn, the end token included.

    Args:
      ids: the prompt, at least one token.
      seed, stream: name the random numbers, as in an RL step; the id is 0.
      tokens: the most to draw, at most `settings.response_tokens`.
    """
    most = self._settings.response_tokens
    tokens = most if tokens is None else min(tokens, most)
    padded, length = batches.pad_right(
        [ids], batches.padded_width(len(ids), _SHORTEST))
    prompts = Prompts(padded, length, np.zeros(1, np.int32))
    key = group_sampling.sample_keys(
        np.uint32(seed), np.uint32(stream), prompts.id, 1)
    sizes = group_sampling.cache_sizes(most, self._settings.chunk)
    self._note(padded.shape[1], sizes[0])
    prompt_kv, state = self._begin(self._params, prompts)
    done = drawn = 0
    for size in sizes:
      if done or drawn == tokens:
        return
      self._note(padded.shape[1], size)
      state = self._grow(state, size)
      while not done and drawn < min(size, tokens):
        # The first comes alone, so that it comes soon.
        end = min(drawn + min(max(drawn, 1), _AT_ONCE), size, tokens)
        state = self._advance(
            self._params, prompts, prompt_kv, key, state=state, end=end)
        row, mask, done = jax.device_get(
            (state.tokens[0], state.mask[0], state.done[0]))
        yield row[drawn:end][mask[drawn:end]].tolist()
        drawn = end

  def _note(self, prompt: int, response: int) -> None:
    """Tells of sizes that have not been compiled yet."""
    if (prompt, response) not in self._compiled:
      self._compiled.add((prompt, response))
      self._on_compile(f'compiling for a prompt of up to {prompt} tokens and '
                       f'{response} of the response')


def _begin(model, params: Params, prompts: Prompts, **sizes):
  return group_sampling.begin(model, params, prompts, **sizes)
