"""Measures a policy on several tests: a stage that trains nothing.

Each of `config.tests` has prompts of its own and may score them by other
rewards; all sample alike, so that policies can be compared (evaluate.py has
the figures). The responses stand in TEST_0.jsonl.
"""

import ml_collections

from r1jax import config as config_lib
from r1jax.stages import evaluate as evaluate_lib
from r1jax.stages import origin
from r1jax.stages import prompts as prompts_lib
from r1jax.stages import reward_models
from r1jax.stages import rl
from r1jax.stages import rollouts
from r1jax.stages import setup as setup_lib
from r1jax.training import loop


def build(config, mesh, workdir: str) -> loop.Stage:
  """The stage of `config`: reads its prompts, compiles nothing yet."""
  if config.init_from is None:
    raise config_lib.error('init_from', 'a model to measure', None)
  setup = setup_lib.make(config, mesh)
  vocab = origin.vocabulary(config, setup.model.config)
  judges = reward_models.load(config, mesh)
  tests = {}
  for name, test in config.tests.items():
    own = own_config(config, test)
    with config_lib.renamed('config.data', f'config.tests.{name}.data'):
      prompts = prompts_lib.read(
          own, vocab, config.eval.split, test.problems)
    tests[name] = evaluate_lib.make(
        own, setup, vocab, prompts, rl.make_scorer(own), judges, workdir,
        name=name, greedy=False)

  def evaluate(params):
    found = {name: test(params, 0) for name, test in tests.items()}
    return ({name: figures for name, (figures, _) in found.items()},
            [{'test': name, **row} for name, (_, rows) in found.items()
             for row in rows])

  return loop.Stage(
      0, *setup_lib.no_state(mesh), step=None,
      evaluate=lambda _: evaluate(setup_lib.init_params(
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
        f'{rollouts.words(figures["verifier"])}')
  return '\n'.join(lines)
