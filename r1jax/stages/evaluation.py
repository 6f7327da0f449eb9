"""Evaluation of a policy: pass@1, pass@k, majority, greedy, format, length.

A problem has k samples, whose mean is pass@1 (DeepSeek-R1, arXiv 2501.12948,
3). In RL the held-out problems are also decoded greedily, and a config may have
tests besides, each with its own prompts, rewards and sampling.
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax import config as config_lib
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.data import vocabs
from r1jax.parallel import distributed
from r1jax.parallel import sharding
from r1jax.reports import intervals
from r1jax.reports import pass_at_k
from r1jax.rewards import votes
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import files

STREAM = 2**31  # the random streams of evaluations, beyond those of any step

Rows = list[dict[str, Any]]
Evaluate = Callable[[Any, int], tuple[dict[str, Any], Rows]]  # (params, step)


###############################################################################
# Sampling and scoring
###############################################################################


def make_evaluator(placed: train_state.PlacedModel, prompts: batches.PromptSet,
                   scorer: scoring.RolloutScorer, settings: rollouts.Settings,
                   *, batch: int, shown: int, seed: int,
                   workdir: str | None = None, name: str = 'evaluation',
                   greedy: bool = True, in_pieces: bool = False) -> Evaluate:
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
    in_pieces: whether responses are scored while others are sampled.
  """
  sampler = rollouts.Sampler(placed, settings, in_pieces)
  greedy_sampler = rollouts.Sampler(placed, settings._replace(
      group=1, temperature=0., top_k=0, top_p=1.), in_pieces)

  def evaluate(params, step):
    rows, counters = sample_all(sampler, scorer, params, prompts, batch, seed)
    best, more = None, []
    if greedy:
      best, more = sample_all(
          greedy_sampler, scorer, params, prompts,
          sharding.filled(batch, 1, placed.sampling.place), seed)
    if workdir is not None:
      path = pathlib.Path(workdir) / f'{name}_{step}.jsonl'
      distributed.in_main(lambda: files.write_rows(path, rows))
    result = results(rows, best, settings.group)
    result |= means_of_models(scorer, rows)
    result['verifier'] = scoring.sum_counters(counters + more)
    return result, samples(rows[::settings.group], shown)

  return evaluate


def sampling_settings(config, vocab: vocabs.Vocab,
                      test: str | None = None) -> rollouts.Settings:
  """How the evaluation of `config.eval` samples, or one of `config.tests`.

  Raises:
    ConfigError: several greedy samples of a problem, which are all the same.
  """
  own = config.tests[test] if test else {}
  chosen = {name: _chosen(section, own, name) for section, names in (
      (config.eval, ('samples', 'temperature', 'top_k', 'top_p')),
      (config.rl, ('response_tokens',))) for name in names}
  group = chosen.pop('samples')
  if group > 1 and not chosen['temperature']:
    raise errors.expected(
        'eval.samples' if own.get('samples') is None else
        f'tests.{test}.samples', '1 where the temperature is 0: greedy samples '
        'are all the same', group)
  return rollouts.Settings(
      group=group, eos_ids=vocab.eos_ids, chunk=config.rl.sample_chunk,
      slots=config.rl.slots, cpu_threads=config.rl.cpu_threads, **chosen)


def _chosen(section, own, name: str) -> Any:
  """A field of a section, or a test's own in its place."""
  usual = section[name]
  return usual if own.get(name) is None else own[name]


def sample_all(sampler: rollouts.Sampler, scorer: scoring.RolloutScorer, params,
               prompts: batches.PromptSet, batch: int, seed: int
               ) -> tuple[Rows, list[dict[str, int]]]:
  """The logged rows of every prompt, in order, and the counters of each batch.

  Both are the same on every process.
  """
  rows, counters = [], []
  for start in range(0, len(prompts.records), batch):
    found, counts = sample_batch(
        sampler, scorer, params, batches.slice_of(prompts, start, batch), seed)
    rows += found
    counters.append(counts)
  return rows, counters


def sample_batch(sampler: rollouts.Sampler, scorer: scoring.RolloutScorer,
                 params, part: batches.PromptBatch, seed: int
                 ) -> tuple[Rows, dict[str, int]]:
  """The rows of those prompts that have a record.

  Rows have the number of the `sample`, the tokens of its prompt, and where
  there are several samples the class of its answer (`vote`). What is sampled
  for a prompt is the same in any batch.
  """
  scored = scorer(sampler(params, part, seed, STREAM), part)
  group = len(scored.rows) // len(part.records)
  counters = scored.counters
  if group > 1 and 'extracted' in scored.rows[0] and not any(
      record['verifier'] in votes.WITHOUT for record in part.records):
    counters = counters | scorer.add_votes(part, scored.rows)
  lengths = part.length[:len(part.records)]
  return [row | {'sample': n % group, 'prompt_tokens': int(lengths[n // group])}
          for n, row in enumerate(scored.rows)], counters


###############################################################################
# Results
###############################################################################


def results(rows: list[dict], greedy: list[dict] | None,
            group: int) -> dict[str, Any]:
  """{'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length', ...}.

  Of `group` samples of each problem there are pass@k and cons@k, too, with
  `intervals`. All intervals are [low, high] of 95 % over problems
  (intervals.clustered). Lengths are in tokens, EOS included; `truncated` is the
  share without EOS, `answered` that with an answer; `language` and `mixed` are
  there if the rewards measure them.
  """
  right = np.array([row['accuracy'] for row in rows]).reshape(-1, group)
  mean = lambda name, among=rows: float(np.mean([row[name] for row in among]))
  tasks = sorted({row['task'] for row in rows})
  found = {
      'n': len(right),
      'samples': group,
      'pass@1': float(right.mean()),
      'ci95': intervals.clustered(right.mean(1), group)}
  found |= of_several(rows, right) if group > 1 else {}
  found |= {
      'format': mean('format'),
      'response_length': mean('tokens'),
      'truncated': 1. - mean('finished'),
      'tasks': {task: mean('accuracy', [r for r in rows if r['task'] == task])
                for task in tasks}}
  if 'extracted' in rows[0]:
    found['answered'] = float(
        np.mean([row['extracted'] is not None for row in rows]))
  return found | ({} if greedy is None else {
      'greedy': mean('accuracy', greedy)}) | {
          name: mean(name) for name in ('language', 'mixed') if name in rows[0]}


def of_several(rows: Sequence[Mapping[str, Any]], right_BG: np.ndarray
              ) -> dict[str, Any]:
  """pass@k and cons@k of problems with several samples, and their `intervals`.

  A graded accuracy counts as right for pass@k where it is 1.
  """
  group = right_BG.shape[1]
  found, edges = {}, {}
  correct = (right_BG == 1.).sum(1)
  for k in pass_at_k.sizes(group)[1:]:
    each = [pass_at_k.estimate(group, int(c), k) for c in correct]
    found[f'pass@{k}'] = float(np.mean(each))
    edges[f'pass@{k}'] = intervals.clustered(each, group // k)
  if 'vote' in rows[0]:
    votes_BG = [[row['vote'] for row in rows[n:n + group]]
                for n in range(0, len(rows), group)]
    each = list(map(votes.majority, votes_BG, right_BG))
    found[f'cons@{group}'] = float(np.mean(each))
    edges[f'cons@{group}'] = intervals.clustered(each, 1)
  return found | {'intervals': edges}


def means_of_models(scorer: scoring.RolloutScorer, rows: Rows
                   ) -> dict[str, float]:
  """The mean score of each reward model."""
  return {model.name: float(np.mean([row[model.name] for row in rows]))
          for model in scorer.models}


def samples(rows: list[dict], count: int) -> list[dict[str, Any]]:
  """The first `count` problems' responses, for the report."""
  return [{'prompt': row['prompt'], 'answer': row['answer'],
           'text': row['response'], 'reward': row['reward'],
           'correct': row['accuracy'] == 1., 'finished': row['finished']}
          | ({'verdict': row['verdict']} if 'verdict' in row else {})
          for row in rows[:count]]


###############################################################################
# Tests
###############################################################################


class Test(NamedTuple):
  """The problems of a test, how they are sampled, and what scores responses."""
  name: str
  prompts: batches.PromptSet
  order: np.ndarray  # i64[M], the numbers of the prompts by their lengths
  left_out: int  # prompts that are too long
  settings: rollouts.Settings
  scorer: scoring.RolloutScorer
  count: int  # problems at a time, by the config alone
  batch: int  # the same, filled up for the devices

  def part(self, start: int) -> batches.PromptBatch:
    """`count` prompts in the order of their lengths, from number `start`.

    So those of a batch are about as long, and little padding is computed.
    """
    found = batches.slice_of(self.prompts, start, self.batch, self.order)
    return batches.trimmed(found._replace(records=found.records[:self.count]))


def make_tests(config, policy: train_state.StageModel, vocab: vocabs.Vocab,
               models: Sequence[rewards_lib.GroupReward]) -> dict[str, Test]:
  """The tests of `config.tests`, by name; `models` are its reward models."""
  if 'tests' not in config:
    return {}
  config_lib.check_names('tests', config.tests, ('evaluation',))
  return {name: make_test(name, test, config, policy, vocab, models)
          for name, test in config.tests.items()}


def make_test(name: str, test, config, policy: train_state.StageModel,
              vocab: vocabs.Vocab, models: Sequence[rewards_lib.GroupReward]
              ) -> Test:
  """One of `config.tests`; what it does not set is as in the whole config."""
  prompt_tokens = _chosen(config.rl, test, 'prompt_tokens')
  settings = sampling_settings(config, vocab, name)
  length = 'rl' if test.prompt_tokens is None else f'tests.{name}'
  settings = settings._replace(response_tokens=_room(
      name, f'{length}.prompt_tokens', prompt_tokens, settings.response_tokens,
      policy))
  with errors.section('data', at=f'tests.{name}.data'), errors.section(
      'rl', at=length):
    prompts, left_out = rollouts.read_counted(
        test.data, vocab, prompt_tokens,
        split=_chosen(config.eval, test, 'split'), count=test.problems)
  scoring.check_records(config.rewards, prompts)
  rule_scorer = scoring.make_rule_scorer(
      rewards_of_test(config.rewards, test.rewards), settings.response_tokens)
  filled = lambda count: sharding.filled(
      count, settings.group, policy.placed.sampling.place)
  most = max(config.eval.batch // settings.group, 1)
  idle = filled(most) - most
  if idle:
    distributed.say(
        f'{name}: {idle} of {most + idle} rows stand idle; a config.eval.batch '
        f'of {(most + idle) * settings.group} responses would use all devices')
  problems = len(prompts.records)
  count = -(-problems // -(-problems // most))  # as many in every batch
  batch = filled(count)
  by_length = np.argsort(prompts.length, kind='stable')
  return Test(name, prompts, by_length, left_out, settings,
              scoring.RolloutScorer(vocab, rule_scorer, models), count, batch)


def _room(name: str, field: str, prompt_tokens: int, response_tokens: int,
          policy: train_state.StageModel) -> int:
  """The longest response that the model has room for; says if it is less."""
  room = policy.placed.model.config.max_len - prompt_tokens
  if room < 1:
    raise errors.expected(
        field, f"less than the model's {policy.placed.model.config.max_len} "
        'tokens', prompt_tokens)
  if room < response_tokens:
    distributed.say(
        f'{name}: responses are cut at {room} tokens, not {response_tokens}: '
        f'after a prompt of {prompt_tokens} the model has no more')
  return min(room, response_tokens)


def rewards_of_test(rewards, changes):
  """The rewards of a test: the stage's, with the test's own settings over them.
  """
  weights = {name: {**rewards[name], **changes.get(name, {})}
             for name in ('weights', 'tasks', 'functions')}
  return {**rewards, **changes, **weights}


def build(config, policy: train_state.StageModel, vocab: vocabs.Vocab,
          held_out: batches.PromptSet, scorer: scoring.RolloutScorer,
          workdir: str) -> Evaluate:
  """The evaluation during training: `held_out`, then each of `config.tests`.

  A test's results are named TEST/pass@1 and so on, beside those of `held_out`;
  its responses are in TEST_<step>.jsonl.
  """
  whole = make_evaluator(
      policy.placed, held_out, scorer, sampling_settings(config, vocab),
      batch=config.eval.batch, shown=config.eval.shown, seed=config.seed,
      workdir=workdir, in_pieces=config.rl.score_while_sampling)
  tests = {name: make_evaluator(
      policy.placed, test.prompts, test.scorer, test.settings,
      batch=test.batch, shown=0, seed=config.seed, workdir=workdir, name=name,
      greedy=False, in_pieces=config.rl.score_while_sampling
  ) for name, test in make_tests(
      config, policy, vocab, scorer.models).items()}

  def evaluate(params, step):
    found, shown = whole(params, step)
    for name, test in tests.items():
      found |= {f'{name}/{key}': value
                for key, value in test(params, step)[0].items()}
    return found, shown

  return evaluate
