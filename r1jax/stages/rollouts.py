"""Prompts in, scored responses out: what training and evaluation share.

Sampling runs on the devices; decoding and rewards on the host where the rows
live, each process scoring its own.
"""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.kernels import group_sampling
from r1jax.parallel import sharding
from r1jax.stages import setup as setup_lib
from r1jax.types import Array, Prompts, Rollout


class Settings(NamedTuple):
  """How to sample; hashable, a static argument of jit."""
  group: int
  response_tokens: int
  eos_id: int
  temperature: float
  chunk: int = 64
  top_k: int = 0
  top_p: float = 1.


class Scored(NamedTuple):
  """A rollout with its rewards, on the devices and on this host."""
  rollout: Rollout
  reward: Array  # f32[N], the weighted sum
  parts: dict[str, Array]  # f32[N] each
  counters: dict[str, int]  # of the verifiers, all hosts together
  rows: list[dict[str, Any]]  # this host's responses, as they are logged


def sample(model, settings: Settings, params, prompts: Prompts, seed,
           step) -> Rollout:
  """Samples `settings.group` responses a prompt; pure, to be jitted."""
  fields = settings._asdict()
  keys = group_sampling.sample_keys(
      seed, step, prompts.id, fields.pop('group'))
  return group_sampling.sample(model, params, prompts, keys, **fields)


class Sampler:
  """Samples from a model under given parameters, and scores."""

  def __init__(self, setup: setup_lib.Setup, settings: Settings, vocab,
               scorer: rewards_lib.Scorer):
    self._setup, self._settings = setup, settings
    self._vocab, self._scorer = vocab, scorer
    self._sample = jax.jit(sample, static_argnums=(0, 1))

  def __call__(self, params, batch: batches.PromptBatch, seed: int,
               step: int) -> Scored:
    """Responses to a global batch of prompts.

    Args:
      params: the policy.
      batch: B prompts, the same on every process.
      seed, step: name the random streams, with the prompts' ids.
    """
    mine = batches.process_rows(
        len(batch.records), jax.process_index(), jax.process_count())
    prompts = sharding.from_local(
        Prompts(batch.tokens[mine], batch.length[mine], batch.id[mine]),
        self._setup.mesh)
    rollout = self._sample(self._setup.model, self._settings, params, prompts,
                           np.uint32(seed), np.uint32(step))
    return self.score(rollout, batch.records[mine])

  def score(self, rollout: Rollout, records: Sequence[dict]) -> Scored:
    """Rewards of a rollout; `records` are this process's prompts."""
    tokens, mask, ids = (
        sharding.to_local(x)
        for x in (rollout.tokens, rollout.mask, rollout.prompts.id))
    lengths = mask.sum(1)
    records = [r for r in records for _ in range(self._settings.group)]
    responses = []
    for row, length in zip(tokens, lengths):
      finished = row[length - 1] == self._settings.eos_id
      responses.append(rewards_lib.Response(
          self._vocab.decode(row[:length - finished].tolist()), int(length),
          bool(finished)))
    scores = self._scorer.score(records, responses)
    place = lambda x: sharding.from_local(x, self._setup.mesh)
    return Scored(
        rollout, place(scores.total),
        {name: place(part) for name, part in scores.parts.items()},
        sharding.sum_over_processes(scores.counters),
        _log_rows(records, np.repeat(ids, self._settings.group), responses,
                  scores))


def select(every: Sequence[Scored], chosen: np.ndarray, group: int) -> Scored:
  """One rollout of the groups numbered `chosen` among several rollouts'.

  What was sampled and counted is kept of all, for the log.
  """
  where = every[0].reward.sharding
  responses = (chosen[:, None] * group + np.arange(group)).reshape(-1)
  pick = jax.jit(lambda index, *arrays: jnp.concatenate(arrays)[index],
                 out_shardings=where)
  take = lambda index: functools.partial(pick, index)
  prompts = jax.tree.map(take(chosen), *(s.rollout.prompts for s in every))
  rollout, reward, parts = jax.tree.map(
      take(responses),
      *((s.rollout._replace(prompts=()), s.reward, s.parts) for s in every))
  counters = {name: sum(s.counters[name] for s in every)
              for name in every[0].counters}
  return Scored(rollout._replace(prompts=prompts), reward, parts, counters,
                [row for s in every for row in s.rows])


def _log_rows(records, ids, responses, scores) -> list[dict[str, Any]]:
  return [
      {'id': int(i), 'task': record['task'], 'prompt': record['prompt'],
       'answer': record['answer'], 'response': response.text,
       'tokens': response.tokens, 'finished': response.finished,
       'reward': float(scores.total[n])}
      | {name: float(part[n]) for name, part in scores.parts.items()}
      for n, (i, record, response) in enumerate(zip(ids, records, responses))]
