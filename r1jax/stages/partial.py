"""Partial rollouts in a stage: groups that are sampled over several steps.

The prompts of a run are numbered in the order in which batches draw them, k =
0, 1, ...; with P prompts a step, k is of batch k // P, whose random streams it
has. M groups are in flight. A step

    fills    places whose groups were trained on with the next prompts,
    samples  at most C more tokens of each response (partial_sampling.extend),
             until P groups are complete,
    takes    the complete groups, those of the least k first, at most P; the
             rest of the rollout, if any, is padding and weighs nothing.

A response has at most R tokens. Group k is due at step
k // P + ceil(R / C) - 1: its responses are drawn to their ends then, also with
more than C tokens. All that were due before have been trained on, so P are due
at most. A group begins at most ceil(M / P) - 1 steps before that of its batch.
So no token is trained on more than ceil(R / C) + ceil(M / P) - 2 steps after
the one that drew it. (A run that resumes on more devices may have more
responses begun on one than that has slots: they wait, and may be a step later.)

If C is R, a step trains on the groups of its own batch, and those of the next
ones fill the slots that they leave. If M is P, too, none is left over.

What is in flight is part of the state: a resumed run goes on as if never
stopped.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.data import batches
from r1jax.kernels import continuous_batching
from r1jax.kernels import masked
from r1jax.kernels import partial_sampling
from r1jax.parallel import sharding
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import timing
from r1jax.types import Array, Prompts, Rollout, Support


class Settings(NamedTuple):
  """How much is in flight; hashable, a static argument of jit."""
  prompts: int  # P, groups that a step trains on
  in_flight: int  # M, groups
  tokens: int  # C, the most of a response in a step
  late: int  # ceil(R / C) - 1: a group is due so long after its batch's step


class InFlight(NamedTuple):
  """Groups in flight, M of them with N = M G responses of up to R tokens."""
  number: Array  # i32[M], k of the prompt in each place; -1: none yet
  free: Array  # bool[M], trained on: its place is for the next prompt
  drawn: continuous_batching.Drawn  # [N, R], what there is of the responses
  step: Array  # i32[N, R], that drew each token


class Taken(NamedTuple):
  """What a step trains on: P groups, the kept ones first, then padding."""
  rollout: Rollout
  batch: batches.PromptBatch  # with records of those that are kept
  kept: np.ndarray  # bool[N]
  age: Array  # i32[N], steps since the first token of each response
  in_flight: InFlight
  metrics: dict[str, Any]
  began: float  # seconds of timing.now(), when the samples before were used

  def of(self, scored: scoring.Scored) -> scoring.Scored:
    """The scored rollout, its rows with their ages; padding is not kept."""
    age = sharding.to_host(self.age).tolist()
    rows = [row | {'age': n} for row, n in zip(scored.rows, age)]
    return scored._replace(rows=rows, kept=self.kept, kept_rows=rows)


def abstract_in_flight(placed: train_state.PlacedModel,
                       sampling: rollouts.Settings, partial: Settings
                       ) -> InFlight:
  """The shapes and shardings of what is in flight."""
  rows = partial.in_flight * sampling.group
  of_token = lambda dtype, *more: jax.ShapeDtypeStruct(
      (rows, sampling.response_tokens, *more), dtype, sharding=placed.batch)
  of_group = lambda dtype: jax.ShapeDtypeStruct(
      (partial.in_flight,), dtype, sharding=placed.replicated)
  support = Support(of_token(jnp.int32, sampling.top_k), of_token(jnp.float32))
  return InFlight(
      of_group(jnp.int32), of_group(jnp.bool_), continuous_batching.Drawn(
          of_token(jnp.int32), of_token(jnp.bool_), of_token(jnp.float32),
          support if sampling.keep_support else None, None),
      of_token(jnp.int32))


def sample(model, sampling: rollouts.Settings, partial: Settings, params,
           prompts: Prompts, held: InFlight, new_B: Array, seed, step
           ) -> tuple[InFlight, Array, dict[str, Array]]:
  """Draws on, for one step; pure, to be jitted.

  Args:
    model, sampling, partial: static.
    params: of the behaviour policy.
    prompts: of all B = M places.
    held: what is in flight; `number` is that of `prompts`.
    new_B: bool[B], places whose prompt has just come.
    seed, step: of the run.

  Returns:
    What is in flight then; which groups are complete, bool[B]; and metrics.
  """
  clear_N = jnp.repeat(new_B, sampling.group)
  before = jax.tree.map(lambda x: jnp.where(
      clear_N.reshape(-1, *[1] * (x.ndim - 1)), jnp.zeros((), x.dtype), x),
                        held.drawn)
  batch_B = held.number // partial.prompts
  drawn, complete_B = partial_sampling.extend(
      model, params, prompts, partial_sampling.keys(
          seed, batch_B, prompts.id, sampling.group),
      held.number, batch_B + partial.late <= step, before,
      slots=sampling.slots_of(clear_N.size) or clear_N.size,
      tokens=partial.tokens, wanted=partial.prompts, block=sampling.chunk,
      eos_ids=sampling.eos_ids, temperature=sampling.temperature,
      top_k=sampling.top_k, top_p=sampling.top_p)
  if model.place is not None:
    drawn = model.place.split(drawn)
  new_NR = drawn.mask & ~before.mask
  unfinished_N = drawn.mask[:, 0] & ~partial_sampling.ended(
      drawn, sampling.eos_ids)
  return held._replace(
      drawn=drawn, step=jnp.where(new_NR, step, held.step)), complete_B, {
          'perf/tokens': jnp.sum(new_NR),
          'sampling/carried': jnp.sum(unfinished_N)}


def take(drawn: continuous_batching.Drawn, step_NR: Array, row_N: Array,
         kept_N: Array, step) -> tuple[Rollout, Array, dict[str, Array]]:
  """The responses `row_N` of those in flight; their ages [N], and metrics.

  A token's age is the number of steps, and so of policies, since it was drawn.
  """
  drawn, step_NR = jax.tree.map(lambda x: x[row_N], (drawn, step_NR))
  age_NR = jnp.where(drawn.mask, step - step_NR, 0)
  mask_NR = drawn.mask & kept_N[:, None]
  return Rollout((), drawn.tokens, drawn.mask, drawn.logp, drawn.support), (
      age_NR.max(1)), {
          'staleness/mean': masked.mean(age_NR.astype(jnp.float32), mask_NR),
          'staleness/max': jnp.max(jnp.where(mask_NR, age_NR, 0))}


class Sampler:
  """Samples from one model over the steps of a run."""

  def __init__(self, placed: train_state.PlacedModel,
               sampling: rollouts.Settings, partial: Settings,
               draw: Callable[[int], batches.PromptBatch], seed: int):
    """`draw` gives batch 0, 1, ... of P prompts each."""
    self.abstract = abstract_in_flight(placed, sampling, partial)
    self._placed, self._partial, self._draw = placed, partial, draw
    self._group, self._seed = sampling.group, np.uint32(seed)
    rows, whole = placed.batch, placed.replicated
    self._sample = jax.jit(
        functools.partial(sample, placed.sampling, sampling, partial),
        out_shardings=(InFlight(whole, whole, rows, rows), whole, whole))
    self._take = jax.jit(take, out_shardings=(rows, rows, whole))

  def init(self) -> InFlight:
    """What is in flight before the first step."""
    def make():
      empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.abstract)
      return empty._replace(number=empty.number - 1, free=~empty.free)

    return jax.jit(
        make, out_shardings=train_state.shardings_of(self.abstract))()

  def __call__(self, params, held: InFlight, step: int) -> Taken:
    """The samples of a step, under `params`; `held` stays as it is."""
    new = np.array(held.free)
    number = np.array(held.number)
    number[new] = number.max() + 1 + np.arange(new.sum())
    batch = self._prompts(number)
    held, complete, metrics = self._sample(
        params, rollouts.on_mesh(batch, self._placed.mesh), held._replace(
            number=self._whole(number)), self._whole(new), self._seed,
        np.int32(step))
    began = timing.wait_for(params)
    complete = np.asarray(complete)
    places = np.lexsort((number, ~complete))[:self._partial.prompts]
    kept = complete[places]
    free = np.isin(np.arange(number.size), places[kept])
    batch = batches.PromptBatch(
        batch.tokens[places], batch.length[places], batch.id[places],
        tuple(batch.records[n] for n in places[kept]))
    row_N = (places[:, None] * self._group + np.arange(self._group)).reshape(-1)
    kept_N = np.repeat(kept, self._group)
    rollout, age, more = self._take(
        held.drawn, held.step, row_N, kept_N, np.int32(step))
    return Taken(
        rollout._replace(prompts=rollouts.on_mesh(batch, self._placed.mesh)),
        batches.with_step(batch, step), kept_N, age,
        held._replace(free=self._whole(free)),
        metrics | more | {'sampling/groups': kept.sum()}, began)

  def _prompts(self, number: np.ndarray) -> batches.PromptBatch:
    """The prompts of these numbers."""
    size = self._partial.prompts
    drawn = {batch: self._draw(batch) for batch in {*(number // size).tolist()}}
    at = [(drawn[batch], nth) for batch, nth in zip(
        (number // size).tolist(), (number % size).tolist())]
    column = lambda name: np.stack([getattr(b, name)[n] for b, n in at])
    return batches.PromptBatch(
        *map(column, ('tokens', 'length', 'id')),
        tuple(b.records[n] for b, n in at))

  def _whole(self, x: np.ndarray) -> Array:
    return jax.device_put(x, self._placed.replicated)


def build(section, placed: train_state.PlacedModel,
          sampling: rollouts.Settings,
          draw: Callable[[int], batches.PromptBatch], seed: int
          ) -> Sampler | None:
  """The sampler of a section `config.rl`.

  None where a step leaves nothing to the next: a rollout is then sampled whole.
  The other arguments are those of `Sampler`.
  """
  prompts, tokens = section.prompts, section.partial_tokens
  in_flight = section.in_flight or 2 * prompts
  most = section.response_tokens
  if tokens is None or (tokens >= most and in_flight == prompts):
    return None
  return Sampler(placed, sampling, Settings(
      prompts, in_flight, tokens, -(-most // tokens) - 1), draw, seed)
