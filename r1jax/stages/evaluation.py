"""Evaluation of a policy on held-out problems: pass@1, greedy, format, length.

A problem is sampled at the evaluation's temperature and once greedily. pass@1
is the mean over a problem's samples (DeepSeek-R1, arXiv 2501.12948, 3).
"""

from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from r1jax.data import batches
from r1jax.data import vocabs
from r1jax.parallel import distributed
from r1jax.reports import intervals
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files

STREAM = 2**31  # the random streams of evaluations, beyond those of any step

Rows = list[dict[str, Any]]


def make_evaluator(placed: train_state.PlacedModel, prompts: batches.PromptSet,
                   scorer: scoring.RolloutScorer, settings: rollouts.Settings,
                   *, batch: int, shown: int, seed: int,
                   workdir: str | None = None, name: str = 'evaluation',
                   greedy: bool = True
                   ) -> Callable[[Any, int], tuple[dict[str, Any], Rows]]:
  """Makes (params, step) -> (results, samples).

  Args:
    placed: the model.
    prompts: of the problems.
    scorer: of the responses.
    settings: how they are sampled; its group is the samples per problem.
    batch: problems at a time.
    shown: problems whose responses are among the samples.
    seed: of the random streams.
    workdir: where all sampled responses are kept, in <name>_<step>.jsonl.
    name: of that file.
    greedy: whether each problem is also decoded greedily.
  """
  sampler = rollouts.Sampler(placed, settings)
  greedy_sampler = rollouts.Sampler(placed, settings._replace(
      group=1, temperature=0., top_k=0, top_p=1.))

  def evaluate(params, step):
    rows, counters = sample_all(sampler, scorer, params, prompts, batch, seed)
    best, more = None, []
    if greedy:
      best, more = sample_all(
          greedy_sampler, scorer, params, prompts, batch, seed)
    if workdir is not None:
      path = pathlib.Path(workdir) / f'{name}_{step}.jsonl'
      distributed.in_main(lambda: files.write_rows(path, rows))
    result = results(rows, best, settings.group)
    result |= {model.name: float(np.mean([row[model.name] for row in rows]))
               for model in scorer.models}
    result['verifier'] = scoring.sum_counters(counters + more)
    return result, samples(rows[::settings.group], shown)

  return evaluate


def sampling_settings(config, vocab: vocabs.Vocab) -> rollouts.Settings:
  """How the evaluation of `config.eval` samples."""
  rl, section = config.rl, config.eval
  return rollouts.Settings(
      group=section.samples, response_tokens=rl.response_tokens,
      eos_ids=vocab.eos_ids, temperature=section.temperature,
      chunk=rl.sample_chunk, top_k=section.top_k, top_p=section.top_p)


def sample_all(sampler: rollouts.Sampler, scorer: scoring.RolloutScorer, params,
               prompts: batches.PromptSet, batch: int, seed: int
               ) -> tuple[Rows, list[dict[str, int]]]:
  """The logged rows of every prompt, in order, and the counters of each batch.

  Both are the same on every process.
  """
  rows, counters = [], []
  for start in range(0, len(prompts.records), batch):
    part = batches.slice_of(prompts, start, batch)
    scored = scorer(sampler(params, part, seed, STREAM), part)
    rows += scored.rows
    counters.append(scored.counters)
  return rows, counters


def results(rows: list[dict], greedy: list[dict] | None,
            group: int) -> dict[str, Any]:
  """{'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length', ...}.

  `ci95` is [low, high] by Wilson; lengths are in tokens, EOS included;
  `truncated` is the share without EOS; `language` and `mixed` are there if the
  rewards measure them.
  """
  right = np.array([row['accuracy'] for row in rows]).reshape(-1, group).mean(1)
  mean = lambda name, among=rows: float(np.mean([row[name] for row in among]))
  tasks = sorted({row['task'] for row in rows})
  return {
      'n': len(right),
      'pass@1': float(right.mean()),
      'ci95': intervals.wilson(float(right.mean()), len(right)),
      'format': mean('format'),
      'response_length': mean('tokens'),
      'truncated': 1. - mean('finished'),
      'tasks': {task: mean('accuracy', [r for r in rows if r['task'] == task])
                for task in tasks},
  } | ({} if greedy is None else {'greedy': mean('accuracy', greedy)}) | {
      name: mean(name) for name in ('language', 'mixed') if name in rows[0]}


def samples(rows: list[dict], count: int) -> list[dict[str, Any]]:
  """The first `count` problems' responses, for the report."""
  return [{'prompt': row['prompt'], 'answer': row['answer'],
           'text': row['response'], 'reward': row['reward'],
           'correct': row['accuracy'] == 1., 'finished': row['finished']}
          | ({'verdict': row['verdict']} if 'verdict' in row else {})
          for row in rows[:count]]
