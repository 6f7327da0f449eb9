"""Rollouts: groups of responses to prompts, sampled on the mesh."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from r1jax.data import batches
from r1jax.data import sources
from r1jax.data import tasks
from r1jax.data import vocabs
from r1jax.kernels import continuous_batching
from r1jax.kernels import group_sampling
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.parallel import threads
from r1jax.stages import pieces
from r1jax.stages import train_state
from r1jax.types import Prompts, Rollout


class Settings(NamedTuple):
  """How to sample; hashable, a static argument of jit."""
  group: int
  response_tokens: int
  eos_ids: tuple[int, ...]
  temperature: float
  chunk: int = 64
  top_k: int = 0
  top_p: float = 1.
  keep_support: bool = False  # for an update
  keep_experts: bool = False  # for routing replay
  slots: int | None = None  # responses in flight at once; None: all
  cpu_threads: int = 1  # parts of a batch that a Sampler draws at once

  def slots_of(self, rows: int) -> int | None:
    """The slots of so many responses; None: each has one of its own."""
    return None if self.slots is None or self.slots >= rows else self.slots


def sample_groups(model, settings: Settings, params, prompts: Prompts, seed,
                  stream) -> Rollout:
  """Samples `settings.group` responses per prompt; pure, to be jitted.

  Args:
    model, settings: static.
    params: of the behaviour policy.
    prompts: B prompts.
    seed, stream: name the random streams, with the prompts' ids; an RL step
      uses the number of its batch.
  """
  fields = settings._asdict()
  del fields['slots'], fields['cpu_threads']
  keys = group_sampling.sample_keys(
      seed, stream, prompts.id, fields.pop('group'))
  slots = settings.slots_of(keys.size)
  if slots is None:
    return group_sampling.sample(model, params, prompts, keys, **fields)
  return continuous_batching.sample(
      model, params, prompts, keys, slots=slots, **fields)


@functools.cache
def jitted_sampling(mesh: jax.sharding.Mesh, parts: int = 1):
  """`sample_groups`, jitted: one program for all stages of a pipeline.

  In `parts` of the prompts at once, as `sampled_at_once` says.
  """
  return threads.in_parts(
      sample_groups, parts, 3, static_argnums=(0, 1), out_shardings=Rollout(
          None, *[sharding.batch_sharding(mesh)] * 5))  # prompts: as given


def sampled_at_once(settings: Settings, mesh: jax.sharding.Mesh, prompts: int
                    ) -> tuple[int, Settings]:
  """How many parts of a batch of prompts are sampled at once, and how each is.

  All of them together have no more slots than the batch has.
  """
  count, slots = settings.cpu_threads, settings.slots
  parts = threads.usable(mesh, min(count, slots or count), prompts)
  return parts, settings._replace(slots=slots and slots // parts, cpu_threads=1)


def on_mesh(batch: batches.PromptBatch, mesh: jax.sharding.Mesh) -> Prompts:
  """The prompts of a global batch, the same on every process."""
  return sharding.from_host(
      Prompts(batch.tokens, batch.length, batch.id), mesh, uneven=True)


class Sampler:
  """Samples from one model under given parameters."""

  def __init__(self, placed: train_state.PlacedModel, settings: Settings,
               in_pieces: bool = False):
    """With `in_pieces` it gives rollouts that are still being drawn."""
    self._placed, self._settings = placed, settings
    self._in_pieces = in_pieces

  def __call__(self, params, batch: batches.PromptBatch, seed: int,
               stream: int) -> Rollout | pieces.Drawing:
    """Responses to a global batch of B prompts, the same on every process."""
    prompts = on_mesh(batch, self._placed.mesh)
    given = params, prompts, np.uint32(seed), np.uint32(stream)
    if self._in_pieces:
      return pieces.Drawing(self._placed, self._settings, *given)
    mesh = self._placed.mesh
    parts, settings = sampled_at_once(self._settings, mesh, len(batch.length))
    return jitted_sampling(mesh, parts)(
        self._placed.sampling, settings, *given)


def read_prompts(*args: Any, **fields: Any) -> batches.PromptSet:
  """The prompts of `read_counted` alone."""
  return read_counted(*args, **fields)[0]


def read_counted(data, vocab: vocabs.Vocab, prompt_tokens: int, *, split: str,
                 count: int | None) -> tuple[batches.PromptSet, int]:
  """The prompts of a split of `config.data`, and how many are too long.

  Args:
    data: the section.
    vocab: of the policy.
    prompt_tokens: P, `config.rl.prompt_tokens`; a longer prompt is left out.
    split: of the data.
    count: the most prompts to read; None: all.
  """
  examples = sources.examples(
      data.examples, data.shots, data.seed) if data.shots else ()
  prompts, counts = tasks.prompt_set(
      data.task, vocab, prompt_tokens, split=split, template=data.template,
      system=data.system, examples=examples, instruction=data.instruction,
      seed=data.seed, num_prompts=count, options=data.options.to_dict())
  if counts['too_long']:
    distributed.say(
        f'{counts["too_long"]} prompts of split {split!r} are longer than '
        f'prompt_tokens = {prompt_tokens} and left out')
  distributed.check_rows(split, (
      prompts.tokens[index]
      for index in batches.whole_batches(len(prompts.length), 1024)))
  return prompts, counts['too_long']


def longest_sequence(section) -> tuple[str, int]:
  """(fields, tokens): the longest sequence of a section `config.rl`, and what
  sets it, for errors.
  """
  return ('rl.response_tokens (+ rl.prompt_tokens)',
          section.prompt_tokens + section.response_tokens)


def policy_settings(section, vocab: vocabs.Vocab, top_k: int = 0,
                    top_p: float = 1., keep_support: bool = False) -> Settings:
  """How a section `config.rl` samples."""
  return Settings(
      group=section.group, response_tokens=section.response_tokens,
      eos_ids=vocab.eos_ids, temperature=section.temperature,
      chunk=section.sample_chunk, top_k=top_k, top_p=top_p,
      keep_support=keep_support, slots=section.slots,
      cpu_threads=section.cpu_threads)
