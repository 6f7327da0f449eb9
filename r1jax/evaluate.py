r"""Evaluates a model on benchmarks, and writes a table and report.html.

    python -m r1jax.evaluate --model=smollm2 --suite=gsm8k --data=FOLDER
    python -m r1jax.evaluate --model=RUN --suite=mini_reasoning --samples=8

The model is the workdir of a run, a Hugging Face folder, a GGUF file, or the
name of a packaged one. It is the stage of experiments/evaluate.py, and any
field of that can be set, too: --config.eval.batch=16. Started again with the
same workdir it goes on where it was stopped.
"""

from r1jax import interrupts
from r1jax import terminal

if __name__ == '__main__':  # before the imports, which take their time
  interrupts.install()
  terminal.secure()

# pylint: disable=wrong-import-position
import argparse
import importlib
import os
import re
import sys

from absl import app

from r1jax import command
from r1jax import errors
from r1jax import flags
from r1jax import main as main_lib

_FILE = 'experiments/evaluate.py'
_TOGETHER = ('mini', 'suite')  # variants that have several suites
_OF_TESTS = {  # a flag: the field of every test that it sets
    'samples': 'samples', 'temperature': 'temperature', 'top_p': 'top_p',
    'limit': 'problems', 'response_tokens': 'response_tokens',
    'template': 'data.template'}


def parser() -> command.Parser:
  """Of the flags that this command has besides those of r1jax.main."""
  made = command.Parser(
      description=__doc__.partition('\n')[0], allow_abbrev=False)
  add = made.add_argument
  add('--model', required=True, help='workdir of a run, Hugging Face folder, '
      'GGUF file, or a name: smollm2, mini')
  add('--suite', required=True, help='one or several, by comma: gsm8k, aime, '
      '... (experiments/suites.py); suite: the six of mathematics; mini')
  add('--data', help='folder with the files of the suites; left out: ./data')
  add('--workdir', help='of the evaluation; left out: beside the model')
  add('--samples', type=int, help='responses to each problem, k')
  add('--temperature', type=float, help='0: greedy, one response')
  add('--top_p', type=float, help='total probability of what is sampled among')
  add('--limit', type=int, help='at most so many problems of each suite')
  add('--response_tokens', type=int, help='responses are cut at this length')
  add('--template', help="of the prompts; left out: the model's own")
  return made


def arguments(argv: list[str]) -> list[str]:
  """The same command as r1jax.main has it.

  Flags that are not of this command, as --config.eval.batch=16, stay.

  Raises:
    ConfigError: there is no such suite, model or folder; or no such number.
  """
  args, rest = parser().parse_known_args(argv[1:])
  if (other := flags.value_of('config', rest)) is not None:
    raise errors.expected('--config', 'none, since this command runs '
                          f'{_FILE}; r1jax.main runs others', other)
  _check_numbers(args)
  _check_suites(args.suite)
  spec = f'{_FILE}:{args.suite}'
  tests = flags.load_config(spec).tests
  _check_folder(tests, args.data, rest)
  asked = how_asked(args.model)
  if args.workdir is None:
    args.workdir = default_workdir(args.model, args.suite)
    terminal.say(f'workdir: {args.workdir}', sys.stderr)
  made = [f'--config={spec}', f'--workdir={args.workdir}',
          f'--config.init_from={args.model}']
  if args.temperature == 0 and args.samples is None:
    args.samples = 1  # however many the suite has
  args.template = args.template or asked.template
  for test in tests:
    made += [f'--config.tests.{test}.{field}={value}'
             for flag, field in _OF_TESTS.items()
             if (value := getattr(args, flag)) is not None]
    if asked.system is not None and args.template == asked.template:
      made.append(f'--config.tests.{test}.data.system={asked.system}')
    if args.data is not None:
      task = _in_folder(tests[test].data.task, args.data)
      made.append(f'--config.tests.{test}.data.task={task}')
  return argv[:1] + made + rest


def _check_numbers(args: argparse.Namespace) -> None:
  """Raises ConfigError for a number that no test can have."""
  for name in ('samples', 'limit', 'response_tokens'):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise errors.expected(f'--{name}', 'at least 1', value)
  if args.temperature == 0 and (args.samples or 1) > 1:
    raise errors.expected('--samples', '1 with --temperature=0: greedy samples '
                          'are all the same', args.samples)


def _check_suites(suite: str) -> None:
  """Raises ConfigError for a name that is no suite."""
  flags.experiments_folder()  # becomes importable
  suites = importlib.import_module('experiments.suites')
  for name in suite.split(',') if suite not in _TOGETHER else ():
    suites.find(name)


def _check_folder(tests, folder: str | None, rest: list[str]) -> None:
  """Raises ConfigError if the folder with the files of suites is not there.

  `rest` may name another file of a suite: --config.tests.gsm8k.data.task=...
  """
  of_files = [
      name for name, test in tests.items()
      if _in_folder(test.data.task, '') != test.data.task and not any(
          arg.startswith(f'--config.tests.{name}.data.task') for arg in rest)]
  if of_files and not os.path.isdir(folder or _default_folder()):
    raise errors.expected(
        '--data', f'a folder with the files of {", ".join(of_files)} '
        '(experiments/README.md has their names)', folder)


def how_asked(model: str):
  """How a model was asked in its training: prompting.Prompting."""
  command.import_jax()
  model_source, prompting = (
      importlib.import_module(f'r1jax.stages.{name}')
      for name in ('model_source', 'prompting'))
  source = model_source.find(model, '--model')
  return prompting.of(source, source.model_config().vocab)


def _in_folder(task: str, folder: str) -> str:
  """A task whose files are in the folder that experiments/evaluate.py names."""
  return task.replace(
      f':{_default_folder()}/', f':{folder.rstrip("/")}/')


def _default_folder() -> str:
  return importlib.import_module('experiments.evaluate').FOLDER


def default_workdir(model: str, suite: str) -> str:
  """Beside the model, or in the current directory for one of a name."""
  place = re.sub(r'\.(gguf|npz)$', '', model.rstrip('/'))
  return f'{place}-{re.sub(r"[^a-zA-Z0-9_.-]+", "-", suite)}'


if __name__ == '__main__':
  with command.reported():
    sys.argv = arguments(sys.argv)
  app.run(main_lib.main, flags_parser=main_lib.parse)
