"""Prompts in, scored responses out: what training and evaluation share.

Sampling runs on the devices; decoding and rewards on the hosts where the rows
live, each response on one. What comes of it, every process knows of all.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.kernels import group_sampling
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.stages import train_state
from r1jax.types import Array, Prompts, Rollout


class Settings(NamedTuple):
  """How to sample; hashable, a static argument of jit."""
  group: int
  response_tokens: int
  eos_ids: tuple[int, ...]
  temperature: float
  chunk: int = 64
  top_k: int = 0
  top_p: float = 1.


class Scored(NamedTuple):
  """A rollout with its rewards, on the devices and on every host."""
  rollout: Rollout
  reward: Array  # f32[N], the weighted sum; 0 where there is no record
  parts: dict[str, Array]  # f32[N] each
  counters: dict[str, int]  # of the verifiers, all hosts together
  rows: list[dict[str, Any]]  # all hosts' responses to records, as logged


def sample(model, settings: Settings, params, prompts: Prompts, seed,
           step) -> Rollout:
  """Samples `settings.group` responses a prompt; pure, to be jitted."""
  fields = settings._asdict()
  keys = group_sampling.sample_keys(
      seed, step, prompts.id, fields.pop('group'))
  return group_sampling.sample(model, params, prompts, keys, **fields)


@functools.cache
def sampling(where: jax.sharding.NamedSharding):
  """`sample`, jitted: one for the stages of a pipeline."""
  return jax.jit(sample, static_argnums=(0, 1), out_shardings=where)


class Sampler:
  """Samples from a model under given parameters, and scores."""

  def __init__(self, setup: train_state.PlacedModel, settings: Settings, vocab,
               scorer: rewards_lib.Scorer,
               judges: Sequence[rewards_lib.ModelReward] = ()):
    self.settings = settings
    self._setup, self._vocab, self._scorer = setup, vocab, scorer
    self._judges = judges
    self._sample = sampling(setup.batch)

  def __call__(self, params, batch: batches.PromptBatch, seed: int,
               step: int, training_step: int | None = None) -> Scored:
    """Responses to a global batch of prompts.

    Args:
      params: the policy.
      batch: B prompts, the same on every process.
      seed, step: name the random streams, with the prompts' ids.
      training_step: told to the user's reward functions; None: an evaluation.
    """
    prompts = sharding.from_host(
        Prompts(batch.tokens, batch.length, batch.id), self._setup.mesh)
    rollout = self._sample(self._setup.model, self.settings, params, prompts,
                           np.uint32(seed), np.uint32(step))
    return self.score(rollout, batch, training_step)

  def score(self, rollout: Rollout, batch: batches.PromptBatch,
            training_step: int | None = None) -> Scored:
    """Rewards of a rollout of `batch`, placed as `parallel.sharding.batch`."""
    tokens, masks = map(sharding.own_rows, (rollout.tokens, rollout.mask))
    group = self.settings.group
    mine = [n for n in sorted(tokens) if n < len(batch.records) * group]
    prompts = [n // group for n in mine]
    known = [{**record, 'step': training_step} for record in batch.records]
    records = [known[b] for b in prompts]
    responses = [self._read(tokens[n], int(masks[n].sum())) for n in mine]
    scores = self._scorer.score(records, responses)
    rows = _log_rows(records, batch.id[prompts], responses, scores)
    # A verifier's limit is in seconds: scored on two hosts, a response could
    # get two rewards. So each is scored once, and the others are told.
    shares, counters = zip(*distributed.gather(
        [list(zip(mine, rows)), scores.counters]))
    rows = {n: row for share in shares for n, row in share}
    rows = [rows[n] for n in sorted(rows)]
    counts = {name: sum(c[name] for c in counters) for name in scores.counters}
    # Models score on the devices, where all processes must ask together.
    for judge in self._judges:
      counts |= judge.apply(batch.records, rows)

    def place(name):
      values = np.zeros(len(batch.id) * group, np.float32)
      values[:len(rows)] = [row[name] for row in rows]
      return sharding.from_host(values, self._setup.mesh)

    names = [*scores.parts, *(judge.name for judge in self._judges)]
    return Scored(rollout, place('reward'),
                  {name: place(name) for name in names}, counts, rows)

  def _read(self, tokens: np.ndarray, length: int) -> rewards_lib.Response:
    """The response in i32[R] `tokens`, of which the first `length` count."""
    finished = int(tokens[length - 1]) in self.settings.eos_ids
    return rewards_lib.Response(
        self._vocab.decode(tokens[:length - finished].tolist()), length,
        finished)


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


def sum_counters(every: Sequence[Mapping[str, int]]) -> dict[str, int]:
  """The sums of several rollouts' counters, 'errors' for 'verifier_errors'."""
  return {name.removeprefix('verifier_'): sum(c[name] for c in every)
          for name in every[0]}


def metrics(scored: Scored) -> dict[str, float]:
  """Counters of verifiers and judges, and means of the functions' columns."""
  counts = {f'verifier/{name}': count
            for name, count in sum_counters([scored.counters]).items()}
  return counts | {f'reward/{name}': mean for name, mean in (
      rewards_lib.column_means(scored.rows).items())}


def describe_counters(counts: Mapping[str, int]) -> str:
  """The counts of `counted` for a terminal, those that are not 0."""
  return 'verifier: ' + (', '.join(
      f'{name} {count}' for name, count in counts.items() if count)
                         or 'nothing failed')


def _log_rows(records, ids, responses, scores) -> list[dict[str, Any]]:
  return [
      {'id': int(i), 'task': record['task'], 'prompt': record['prompt'],
       'answer': record['answer'], 'response': response.text,
       'tokens': response.tokens, 'finished': response.finished}
      | scores.row(n)
      | {name: record[name] for name in ('source',) if name in record}
      for n, (i, record, response) in enumerate(zip(ids, records, responses))]
