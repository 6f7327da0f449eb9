"""Labels the steps of sampled responses by Monte-Carlo rollouts.

Math-Shepherd (arXiv 2312.08935, 3.3): a step is as good as what it leads to.
The policy samples responses, which are cut into steps; from the beginning up to
each step it samples K completions. The step's soft label is the share of right
ones, its hard label whether there is one. The last step's is whether the
response itself is right. Beginnings that several responses share are completed
once.

With a judge (config.rewards.judge) a response is kept only where the judge and
the hard labels find the first wrong step at the same place, or both none
(consensus filtering, arXiv 2501.07301, 2.3).

rollouts.jsonl has a row per response; at the end steps.jsonl has those that are
kept, with their labels in columns `soft` and `hard`, and preferences.jsonl all
distinct ones with their rewards, for a reward model of outcomes. steps.json
counts.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any
import zlib

import numpy as np

from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.data import steps as steps_lib
from r1jax.data import verdicts
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.rewards import cutting
from r1jax.rewards import judge as judge_lib
from r1jax.stages import rollouts
from r1jax.stages import sample
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import history
from r1jax.training import loop

STEPS = 'steps.jsonl'
_STREAM = 2**30  # the random streams of completions, beyond those of responses


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  rl, labels, seed = config.rl, config.labelling, config.seed
  policy = train_state.configured_model(
      config, mesh, (
          '2 * rl.response_tokens (+ rl.prompt_tokens)',
          rl.prompt_tokens + 2 * rl.response_tokens),
      needs='a model to sample from')
  vocab = policy.vocabulary(config.vocab)
  settings = rollouts.policy_settings(rl, vocab, top_k=rl.top_k, top_p=rl.top_p)
  sampler = rollouts.Sampler(policy.placed, settings, rl.score_while_sampling)
  scorer = scoring.build(config, vocab, mesh)
  prompts = rollouts.read_prompts(
      config.data, vocab, rl.prompt_tokens, split=config.data.split,
      count=config.data.num_prompts)
  scoring.check_records(config.rewards, prompts)
  judge = next((model for model in scorer.models
                if isinstance(model, rewards_lib.GenerativeJudge)), None)
  # Not part of the state: they do not change.
  params = functools.cache(lambda: train_state.init_params(
      policy.placed, policy.source, seed))
  complete = Completer(
      rollouts.Sampler(policy.placed, settings._replace(
          group=labels.completions), rl.score_while_sampling), scorer,
      rl.prompt_tokens + rl.response_tokens,
      sharding.filled(labels.batch, labels.completions,
                      policy.placed.sampling.place), seed)
  cut, size = labels.cut, rl.prompts

  def step(state, index):
    batch = batches.slice_of(prompts, index * size, size)
    scored = scorer(sampler(params(), batch, seed, index), batch)
    tokens = sharding.to_host(scored.rollout.tokens)
    begun = []
    for n, row in enumerate(scored.rows):
      row['steps'] = cutting.cut(row['response'], cut)
      last = scorer.step_ends(
          batch.records[n // settings.group], row, tokens[n], row['steps'])
      begun.append([tuple(tokens[n, :end + 1].tolist()) for end in last[:-1]])
    shares, spent, counters = complete(params(), batch, begun, index)
    for row, share in zip(scored.rows, shares):
      row['soft'] = share + [row['accuracy']] * bool(row['steps'])
    counters = scoring.sum_counters([
        scored.counters, counters, _judged(judge, scored.rows) if judge else {}
    ])
    return state._replace(step=state.step + 1), _metrics(
        scored._replace(counters=counters), spent), scored.rows

  return loop.Stage(
      -(-len(prompts.records) // size), *train_state.empty_state(mesh), step,
      finish=functools.partial(finish, workdir), makes_rollouts=True,
      progress={'reward/accuracy': 'accuracy', 'labels/soft': 'label',
                'perf/tokens_per_second': 'tok/s'})


class Completer:
  """The share of right completions of beginnings of responses."""

  def __init__(self, sampler: rollouts.Sampler, scorer: scoring.RolloutScorer,
               width: int, size: int, seed: int):
    """Compiles nothing yet.

    Args:
      sampler: its group is K, the completions of each beginning.
      scorer: of the whole responses.
      width: the tokens of the longest prompt with a beginning.
      size: beginnings at a time.
      seed: of the random streams; each is named by its beginning's tokens.
    """
    self._sampler, self._scorer = sampler, scorer
    self._width, self._size, self._seed = width, size, seed

  def __call__(self, params, batch: batches.PromptBatch,
               begun: Sequence[Sequence[tuple[int, ...]]], stream: int
               ) -> tuple[list[list[float]], int, dict[str, int]]:
    """The shares of each response's beginnings, and what they took.

    That is the tokens that were sampled, and the counters of verifiers and
    judges: an answer that was not checked in time makes a label wrong.

    Args:
      params: of the policy.
      batch: B prompts.
      begun: the beginnings of each of their responses, G of a prompt in turn.
      stream: names the random streams.
    """
    group = len(begun) // len(batch.records)
    keys = [[(n // group, tokens) for tokens in beginnings]
            for n, beginnings in enumerate(begun)]
    distinct = list(dict.fromkeys(key for row in keys for key in row))
    share_of, spent, counters = {}, 0, []
    for index in batches.whole_batches(len(distinct), self._size):
      distributed.check_stopped()
      chosen = [distinct[i] for i in index]
      part = self._prompts(batch, chosen)._replace(records=tuple(
          {**batch.records[b], 'begun': tokens}
          for b, tokens in chosen[:len(distinct) - len(share_of)]))
      scored = self._scorer(self._sampler(
          params, part, self._seed, _STREAM + stream), part)
      right = scored.parts['accuracy'].reshape(len(chosen), -1).mean(1)
      share_of |= dict(zip(chosen[:len(part.records)], right.tolist()))
      spent += sum(row['tokens'] for row in scored.rows)
      counters.append(scored.counters)
    return [[share_of[key] for key in row] for row in keys], spent, (
        scoring.sum_counters(counters))

  def _prompts(self, batch: batches.PromptBatch,
               chosen: Sequence[tuple[int, tuple[int, ...]]]
               ) -> batches.PromptBatch:
    """Prompts that end in beginnings of responses."""
    rows = [[*batch.tokens[b, :batch.length[b]].tolist(), *tokens]
            for b, tokens in chosen]
    tokens, length = batches.pad_right(rows, self._width)
    names = [zlib.crc32(np.array(row, np.int32).tobytes()) >> 1
             for row in rows]
    return batches.PromptBatch(tokens, length, np.array(names, np.int32), ())


def _judged(judge: rewards_lib.GenerativeJudge, rows: Sequence[dict]
            ) -> dict[str, int]:
  """Adds where the judge finds the first wrong step; None: no verdict.

  It is not asked about responses without a step.
  """
  for row in rows:
    row['judge'] = None
  rows = [row for row in rows if row['steps']]
  found, counters = judge_lib.ask_first_errors(judge.ask, [
      verdicts.StepCase(row['prompt'], str(row['answer']), tuple(row['steps']))
      for row in rows], retries=judge.retries)
  for row, first in zip(rows, found):
    row['judge'] = first
  return counters


def _metrics(scored: scoring.Scored, spent: int) -> dict[str, float]:
  rows = scored.rows
  soft = [share for row in rows for share in row['soft']]
  mean = lambda values: float(np.mean(values)) if len(values) else 0.
  return scoring.scorer_metrics(scored) | {
      'reward/accuracy': mean([row['accuracy'] for row in rows]),
      'response_length/mean': mean([row['tokens'] for row in rows]),
      'labels/steps': mean([len(row['steps']) for row in rows]),
      'labels/soft': mean(soft),
      'labels/hard': mean([share > 0 for share in soft]),
      'perf/tokens': spent + sum(row['tokens'] for row in rows)}


def finish(workdir: str, summary: Mapping[str, Any]) -> str:
  """Writes the data sets, whole or not at all; returns the closing words."""
  outcomes = sample.write_preferences(workdir, True, summary)
  folder = pathlib.Path(workdir)
  lines, counts = labelled(files.read_rows(folder / history.ROLLOUTS))
  files.write_output(folder / STEPS, lines)
  files.write_json(folder / 'steps.json', counts)
  return (f'{outcomes}\nsteps: {folder / STEPS}, ' + ', '.join(
      f'{name} {count}' for name, count in counts.items())
          + '\nnext: a process reward model, --config.preference.loss=stepwise '
          f'--config.data.task=jsonl:{folder / STEPS}')


def labelled(rows: Sequence[Mapping[str, Any]]
             ) -> tuple[list[dict[str, Any]], dict[str, int]]:
  """The lines of steps.jsonl, and what of the rows they are.

  'kept' counts responses, 'repeated' those equal to an earlier one to their
  prompt, 'empty' those without a step; with a judge 'disagreed' those in which
  it finds another first wrong step, 'no_verdict' those without its answer.
  """
  counts = dict(kept=0, steps=0, repeated=0, empty=0, disagreed=0, no_verdict=0)
  lines, seen = [], set()
  for row in rows:
    hard = [float(share > 0) for share in row['soft']]
    said = row['id'], row['response'].strip()
    reason = next((name for name, holds in (
        ('empty', not row['steps']), ('repeated', said in seen),
        ('no_verdict', row.get('judge', 0) is None),
        ('disagreed', 'judge' in row
         and row['judge'] != steps_lib.first_error(hard))) if holds), None)
    seen.add(said)
    counts[reason or 'kept'] += 1
    if reason is None:
      counts['steps'] += len(hard)
      lines.append({name: row[name] for name in (
          'prompt', 'steps', 'soft', 'task', 'accuracy')} | {'hard': hard})
  return lines, counts
