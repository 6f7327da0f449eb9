"""Evaluation of a policy on held-out problems: pass@1, greedy, format, length.

A problem is sampled at the evaluation's temperature and once greedily. pass@1
is the mean over a problem's samples (DeepSeek-R1, arXiv 2501.12948, 3).

A stage of kind `measure` trains nothing: it evaluates a policy on several
tests, each with prompts of its own and possibly other rewards. All sample
alike, so that policies can be compared. The responses stand in TEST_0.jsonl.
"""

import collections
from collections.abc import Callable
import pathlib
from typing import Any

import numpy as np

from r1jax import errors
from r1jax.data import batches
from r1jax.data import vocabs
from r1jax.parallel import distributed
from r1jax.reports import intervals
from r1jax.stages import model_rewards
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import loop

STREAM = 2**31  # in a step's place: no step of training has these streams

Rows = list[dict[str, Any]]


def make_evaluator(placed: train_state.PlacedModel, prompts: batches.PromptSet,
                   scorer: scoring.RolloutScorer, settings: rollouts.Settings,
                   *, batch: int, shown: int, seed: int,
                   workdir: str | None = None, name: str = 'evaluation',
                   greedy: bool = True
                   ) -> Callable[[Any, int], tuple[dict[str, Any], Rows]]:
  """Makes (params, step) -> (figures, samples).

  Args:
    placed: the model.
    prompts: of the problems.
    scorer: of the responses.
    settings: how they are sampled; its group is the samples a problem.
    batch: problems at a time.
    shown: problems whose responses are among the samples.
    seed: of the random streams.
    workdir: where all sampled responses are kept, in <name>_<step>.jsonl.
    name: of that file.
    greedy: whether the likeliest response to each problem counts, too.
  """
  sampler = rollouts.Sampler(placed, settings)
  likeliest = rollouts.Sampler(placed, settings._replace(
      group=1, temperature=0., top_k=0, top_p=1.))

  def evaluate(params, step):
    rows, counters = sample_all(sampler, scorer, params, prompts, batch, seed)
    best, more = None, []
    if greedy:
      best, more = sample_all(likeliest, scorer, params, prompts, batch, seed)
    if workdir is not None and distributed.is_main():
      files.write_rows(pathlib.Path(workdir) / f'{name}_{step}.jsonl', rows)
    result = figures(rows, best, settings.group)
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


def figures(rows: list[dict], greedy: list[dict] | None,
            group: int) -> dict[str, Any]:
  """{'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length', ...}.

  `ci95` is [low, high] by Wilson; lengths are in tokens, EOS included;
  `truncated` is the share without EOS; `language` and `mixed` are there if the
  rewards tell languages apart.
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
          for row in rows[:count]]


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage `measure` of `config`: reads its prompts, compiles nothing yet.
  """
  policy = train_state.configured_model(
      config, mesh, rollouts.longest(config.rl), needs='a model to measure')
  vocab, seed = policy.vocabulary(config.vocab), config.seed
  models = model_rewards.load(config.rewards, mesh, config.rules, seed)
  tests = {}
  for name, test in config.tests.items():
    with errors.section('data', at=f'tests.{name}.data'):
      prompts = rollouts.read_prompts(
          test.data, vocab, config.rl.prompt_tokens, split=config.eval.split,
          count=test.problems)
    scoring.check_judge(config.rewards, prompts)
    rules = scoring.make_rules(
        test_rewards(config.rewards, test.rewards),
        config.rl.response_tokens)
    tests[name] = make_evaluator(
        policy.placed, prompts, scoring.RolloutScorer(vocab, rules, models),
        sampling_settings(config, vocab), batch=config.eval.batch,
        shown=config.eval.shown, seed=seed, workdir=workdir, name=name,
        greedy=False)

  def evaluate(params):
    results = {name: test(params, 0) for name, test in tests.items()}
    return ({name: figures for name, (figures, _) in results.items()},
            [{'test': name, **row} for name, (_, rows) in results.items()
             for row in rows])

  return loop.Stage(
      0, *train_state.empty_state(mesh), step=None,
      evaluate=lambda _: evaluate(train_state.init_params(
          policy.placed, policy.source, seed)),
      finish=closing_words)


def test_rewards(rewards, changes):
  """The rewards of a test: the stage's, but for what the test says."""
  weights = {name: {**rewards[name], **changes.get(name, {})}
             for name in ('weights', 'tasks')}
  return collections.ChainMap(weights, changes, rewards)


def closing_words(summary) -> str:
  """A line a test."""
  lines = []
  for name, figures in summary['after'].items():
    right = intervals.Figure(figures['pass@1'], *figures['ci95'])
    lines.append(
        f'{name}: {intervals.text(right, interval=True)} of {figures["n"]}, '
        f'format {intervals.percent(figures["format"])}, '
        f'{figures["response_length"]:.0f} tokens; '
        f'{scoring.describe_counters(figures["verifier"])}')
  return '\n'.join(lines)
