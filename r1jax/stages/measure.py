"""A stage that evaluates a policy on several tests, and trains nothing.

Each test has its own prompts and possibly its own rewards. All sample alike, so
that policies can be compared. Responses are written to <test>_0.jsonl.
"""

import collections

from r1jax import config as config_lib
from r1jax import errors
from r1jax.reports import intervals
from r1jax.stages import evaluation
from r1jax.stages import model_rewards
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.stages import train_state
from r1jax.training import loop


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  policy = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(config.rl),
      needs='a model to evaluate')
  config_lib.check_names('tests', config.tests)  # of files and results
  vocab, seed = policy.vocabulary(config.vocab), config.seed
  models = model_rewards.load(config.rewards, mesh, config.rules, seed)
  tests = {}
  for name, test in config.tests.items():
    with errors.section('data', at=f'tests.{name}.data'):
      prompts = rollouts.read_prompts(
          test.data, vocab, config.rl.prompt_tokens, split=config.eval.split,
          count=test.problems)
    scoring.check_judge(config.rewards, prompts)
    scoring.check_code(config.rewards, prompts)
    rule_scorer = scoring.make_rule_scorer(
        rewards_of_test(config.rewards, test.rewards),
        config.rl.response_tokens)
    tests[name] = evaluation.make_evaluator(
        policy.placed, prompts,
        scoring.RolloutScorer(vocab, rule_scorer, models),
        evaluation.sampling_settings(config, vocab), batch=config.eval.batch,
        shown=config.eval.shown, seed=seed, workdir=workdir, name=name,
        greedy=False)

  def evaluate(params):
    done = {name: test(params, 0) for name, test in tests.items()}
    return ({name: results for name, (results, _) in done.items()},
            [{'test': name, **row} for name, (_, rows) in done.items()
             for row in rows])

  return loop.Stage(
      0, *train_state.empty_state(mesh), step=None,
      evaluate=lambda _: evaluate(train_state.init_params(
          policy.placed, policy.source, seed)),
      finish=closing_words)


def rewards_of_test(rewards, changes):
  """The rewards of a test: the stage's, with the test's own settings over them.
  """
  weights = {name: {**rewards[name], **changes.get(name, {})}
             for name in ('weights', 'tasks')}
  return collections.ChainMap(weights, changes, rewards)


def closing_words(summary) -> str:
  """The results for the terminal, one line per test."""
  lines = []
  for name, results in summary['after'].items():
    right = intervals.Figure(results['pass@1'], *results['ci95'])
    lines.append(
        f'{name}: {intervals.text(right, interval=True)} of {results["n"]}, '
        f'format {intervals.percent(results["format"])}, '
        f'{results["response_length"]:.0f} tokens; '
        f'{scoring.describe_counters(results["verifier"])}')
  return '\n'.join(lines)
