r"""Evaluation of a policy: any model on any of the suites in suites.py.

    python -m r1jax.evaluate --model=smollm2 --suite=gsm8k --data=FOLDER

is the command to use; it runs this config as r1jax.main does:

    python -m r1jax.main --config=experiments/evaluate.py:mini --workdir=DIR

`:mini` measures the base model of the mini world, offline, in a minute.
`:suite` is GSM8K and five other suites of mathematics; `:gsm8k,math500` are any
by name, each a test of its own. {data} in a task is the folder with the files
as they are published; --config.tests.gsm8k.data.task=jsonl:PATH names another.

Responses are sampled as in DeepSeek-R1's evaluation ([v1] arXiv 2501.12948v1,
3): k samples a problem (suites.py) at temperature 0.6 and top-p 0.95.
"""

from collections.abc import Sequence
import functools

from experiments import common
from experiments import reward_sections
from experiments import sections
from experiments import suites
from r1jax import errors

WHOLE = ('gsm8k', 'math500', 'aime', 'amc', 'minerva', 'olympiad_bench')
MINI = ('mini_reasoning', 'mini_general')
FOLDER = 'data'  # {data}, where no other is named
WHILE_TRAINING = 64  # problems of a suite


def get_config(arg: str = 'mini') -> common.ConfigDict:
  named = {name: [name] for name in suites.SUITES} | {'suite': WHOLE}
  if ',' in arg or ':' in arg:
    named[arg] = arg.split(',')
  return common.variant(__file__, arg, {'mini': mini} | {
      name: functools.partial(of_suites, names)
      for name, names in named.items()})


def mini() -> common.ConfigDict:
  config = of_suites(MINI)
  config.init_from, config.rewards.form = 'mini', 'answer'
  for one in config.tests.values():
    one.samples, one.problems = 4, 128
  return config


def of_suites(names, data: str = FOLDER) -> common.ConfigDict:
  """The evaluation of a model in init_from on several suites."""
  return common.base(
      'evaluate', model=common.released_model(attention_chunk=256),
      vocab=common.vocab(),
      rl=sections.lengths(prompt_tokens=64, response_tokens=64,
                          sample_chunk=128, cpu_threads=2),
      # Nothing is trained, and a part of weight 0 is measured as well.
      rewards=reward_sections.rewards(weights=dict(format=0.0), form='summary'),
      tests={_key(name): test(suites.find(name, data)) for name in names},
      eval=dict(split='train', batch=64, temperature=suites.TEMPERATURE,
                top_p=suites.TOP_P))


def add_tests(config: common.ConfigDict, names: Sequence[str]) -> None:
  """Makes suites the tests of an `rl` stage, in addition to held-out problems.

  Template, sampling, length limit and where the answer is found are those of
  config.data, config.eval, config.rl and config.rewards; only a suite that has
  its own form of question and answer, as a multiple choice, keeps it.
  """
  config.tests = {}
  for name in names:
    with errors.renamed('--suite', to='--config'):
      suite = suites.find(name, FOLDER)
    suite = suite._replace(
        problems=min(suite.problems, WHILE_TRAINING), samples=None,
        response_tokens=None, template=config.data.template)
    if suite.instruction is not None:
      suite = suite._replace(instruction=config.data.instruction,
                             answer=config.rewards.answer)
    config.tests[_key(name)] = test(suite)


def _key(name: str) -> str:
  return name.replace(':', '_')  # --config.tests.a-b.samples=1 is a difference


def test(suite: suites.Suite) -> common.ConfigDict:
  """A suite as a test of an evaluation."""
  made = sections.test(
      sections.questions(
          suite.task, template=suite.template, instruction=suite.instruction,
          options=suite.options),
      suite.problems, dict(
          split=suite.split, samples=suite.samples,
          prompt_tokens=suite.prompt_tokens,
          response_tokens=suite.response_tokens),
      answer=suite.answer)
  made.rewards.functions = suite.functions
  return made
