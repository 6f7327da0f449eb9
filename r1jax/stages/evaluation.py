"""Measures a policy on held-out problems: pass@1, greedy, format, length.

A problem is sampled at the evaluation's temperature and once greedily. pass@1
is the mean over a problem's samples (DeepSeek-R1, arXiv 2501.12948, 3).
"""

from collections.abc import Callable, Sequence
import math
import pathlib
from typing import Any

import ml_collections
import numpy as np

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.parallel import distributed
from r1jax.stages import model_source
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import loop

STREAM = 2**31  # in a step's place: no step of training has these streams


def make_evaluator(config, setup: train_state.PlacedModel, vocab, prompts: batches.PromptSet,
         scorer: rewards_lib.Scorer,
         judges: Sequence[rewards_lib.ModelReward] = (),
         workdir: str | None = None, *, name: str = 'evaluation',
         greedy: bool = True) -> Callable[[Any, int], tuple[dict, list]]:
  """Makes (params, step) -> (figures, samples), as `config.eval` says.

  All responses sampled are kept in <name>_<step>.jsonl of the workdir; the
  likeliest ones (`greedy`) only count. To the figures comes 'verifier', what
  verifiers and judges have counted of all that they were shown.
  """
  eval_config, rl = config.eval, config.rl
  settings = rollouts.Settings(
      group=eval_config.samples, response_tokens=rl.response_tokens,
      eos_ids=vocab.eos_ids, temperature=eval_config.temperature,
      chunk=rl.sample_chunk, top_k=eval_config.top_k, top_p=eval_config.top_p)
  sampled = rollouts.Sampler(setup, settings, vocab, scorer, judges)
  likeliest = rollouts.Sampler(
      setup, settings._replace(group=1, temperature=0., top_k=0, top_p=1.),
      vocab, scorer, judges)

  def evaluate(params, step):
    each = lambda sampler: sample_all(
        sampler, params, prompts, eval_config.batch, config.seed)
    rows, counters = each(sampled)
    best, more = each(likeliest) if greedy else (None, [])
    if workdir is not None and distributed.is_main():
      files.write_rows(pathlib.Path(workdir) / f'{name}_{step}.jsonl', rows)
    found = figures(rows, best, eval_config.samples)
    found |= {judge.name: float(np.mean([row[judge.name] for row in rows]))
              for judge in judges}
    found['verifier'] = rollouts.sum_counters(counters + more)
    return found, samples(rows[::eval_config.samples], eval_config.shown)

  return evaluate


def sample_all(sampler: rollouts.Sampler, params, prompts: batches.PromptSet,
        batch: int, seed: int) -> tuple[list[dict[str, Any]],
                                        list[dict[str, int]]]:
  """The logged rows of every prompt, in order, and the counters of each batch.

  Both are the same on every process.
  """
  rows, counters = [], []
  for start in range(0, len(prompts.records), batch):
    scored = sampler(
        params, batches.slice_of(prompts, start, batch), seed, STREAM)
    rows += scored.rows
    counters.append(scored.counters)
  return rows, counters


def figures(rows: list[dict], greedy: list[dict] | None,
            group: int) -> dict[str, Any]:
  """{'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length', ...}.

  `ci95` is [low, high] by `wilson`; lengths are in tokens, EOS included;
  `truncated` is the share without EOS; `language` and `mixed` are there if the
  rewards tell languages apart.
  """
  right = np.array([row['accuracy'] for row in rows]).reshape(-1, group).mean(1)
  mean = lambda name, among=rows: float(np.mean([row[name] for row in among]))
  tasks = sorted({row['task'] for row in rows})
  return {
      'n': len(right),
      'pass@1': float(right.mean()),
      'ci95': wilson(float(right.mean()), len(right)),
      'format': mean('format'),
      'response_length': mean('tokens'),
      'truncated': 1. - mean('finished'),
      'tasks': {task: mean('accuracy', [r for r in rows if r['task'] == task])
                for task in tasks},
  } | ({} if greedy is None else {'greedy': mean('accuracy', greedy)}) | {
      name: mean(name) for name in ('language', 'mixed') if name in rows[0]}


def win_rate(before: list[dict], after: list[dict]) -> float:
  """How often a response is more accurate than one before, to its prompt.

  Every response is compared with every one to the same prompt; a tie is half.
  """
  by_prompt = {}
  for side, rows in enumerate((before, after)):
    for row in rows:
      by_prompt.setdefault(row['id'], ([], []))[side].append(row['accuracy'])
  lead = [np.subtract.outer(new, old).ravel()
          for old, new in by_prompt.values()]
  return float(np.mean([np.mean((x > 0) + .5 * (x == 0)) for x in lead]))


def wilson(share: float, n: int, z: float = 1.96) -> list[float]:
  """Wilson's score interval of a share among n problems, within [0, 1].

  With several samples a problem it is wider than need be, never narrower.
  """
  centre = (share + z * z / (2 * n)) / (1 + z * z / n)
  half = z / (1 + z * z / n) * math.sqrt(
      share * (1 - share) / n + z * z / (4 * n * n))
  return [max(0., centre - half), min(1., centre + half)]


def samples(rows: list[dict], count: int) -> list[dict[str, Any]]:
  """The first `count` problems' responses, for the report."""
  return [{'prompt': row['prompt'], 'answer': row['answer'],
           'text': row['response'], 'reward': row['reward'],
           'correct': row['accuracy'] == 1.} for row in rows[:count]]


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  if config.init_from is None:
    raise errors.expected('init_from', 'a model to measure', None)
  setup = train_state.place_model(config, mesh)
  vocab = model_source.vocabulary(config, setup.model.config)
  judges = scoring.load_model_rewards(config, mesh)
  tests = {}
  for name, test in config.tests.items():
    own = own_config(config, test)
    with errors.renamed('config.data', f'config.tests.{name}.data'):
      prompts = scoring.read_prompts(
          own, vocab, config.eval.split, test.problems)
    tests[name] = make_evaluator(
        own, setup, vocab, prompts, scoring.make_scorer(own), judges, workdir,
        name=name, greedy=False)

  def evaluate(params):
    found = {name: test(params, 0) for name, test in tests.items()}
    return ({name: figures for name, (figures, _) in found.items()},
            [{'test': name, **row} for name, (_, rows) in found.items()
             for row in rows])

  return loop.Stage(
      0, *train_state.empty_state(mesh), step=None,
      evaluate=lambda _: evaluate(train_state.init_params(
          setup, config.init_from, config.seed)),
      finish=closing_words)


def own_config(config, test) -> ml_collections.ConfigDict:
  """The config of one test: its prompts, and where its rewards differ."""
  own = ml_collections.ConfigDict(config)
  own.unlock()
  own.data = test.data
  own.rewards = ml_collections.ConfigDict(config.rewards)
  own.rewards.update(test.rewards)
  own.eval.problems = test.problems
  return own


def closing_words(summary) -> str:
  """A line a test."""
  lines = []
  for name, figures in summary['after'].items():
    low, high = figures['ci95']
    lines.append(
        f'{name}: {100 * figures["pass@1"]:.1f} % [{100 * low:.1f}, '
        f'{100 * high:.1f}] of {figures["n"]}, format '
        f'{100 * figures["format"]:.1f} %, '
        f'{figures["response_length"]:.0f} tokens; '
        f'{rollouts.describe_counters(figures["verifier"])}')
  return '\n'.join(lines)
