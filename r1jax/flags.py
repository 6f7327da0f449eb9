"""The command line: `--config=FILE:ARG --config.a.b=VALUE`, checked by name.

ml-collections answers a mistyped field with a traceback, and a wrong type
without naming the right one, so the overrides are checked here before
`config_flags` parses them. Three sections accept new names: `data.options`,
those of a data source; `rewards.functions`, the user's own; and
`rewards.weights`, of these functions. A field that may be unset is set back by
the value None, one of text also by an empty one.

FILE is searched for from the current directory; `experiments/NAME.py` then
among the installed experiments. `from experiments import ...` works in a file
anywhere.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
import importlib.util
import itertools
import os
import pathlib
import re
import sys
from typing import NoReturn

from absl import flags as absl_flags
from absl import logging
import ml_collections

from r1jax import config as config_lib
from r1jax import errors
from r1jax import explain
from r1jax import terminal

ConfigError = errors.ConfigError

_OVERRIDE = re.compile(r'--?(no)?config\.([^=]+)(?:=(.*))?', re.DOTALL)
_OPEN = re.compile(
    r'((?:stages\.[^.]+\.)?(data\.options|rewards\.functions|rewards\.weights))'
    r'\.(.+)')
_EXPERIMENTS = 'experiments'
# data/sources.py's FILES: not sources of names, nor users' functions.
_OF_FILE = re.compile(r'(?<![.\w])((?!reasoning_|tfds|mini_|drafts)\w+:).*')
_PARSERS = {
    int: absl_flags.IntegerParser(),
    float: absl_flags.FloatParser(),
    bool: absl_flags.BooleanParser(),
}


def parse(argv: list[str]) -> list[str]:
  """Parses all flags; a wrong one ends the program with one line, status 2.

  --help prints (explain.py) and ends it, status 0. Without --verbosity, absl
  would log everything that orbax does.
  """
  flags = argv[:argv.index('--')] if '--' in argv else argv
  asked = [arg for arg in flags if arg in ('--help', '-help', '-h')]
  try:
    experiment = _experiment(argv)
    given = _joined(argv, experiment)
    ours = check_overrides(given, experiment)
    # config_flags looks for overrides in sys.argv, and knows neither new fields
    # nor how to unset one.
    kept = [arg for arg in given if arg not in (*ours, *asked)]
    sys.argv = _with_found_file(kept)
    rest = absl_flags.FLAGS(sys.argv)
    sys.argv = argv
    last = {match[2]: match[0] for match in map(_OVERRIDE.fullmatch, given)
            if match}
    for arg, make in ours.items():
      if make is _add or arg in last.values():
        make(absl_flags.FLAGS.config, arg)
    _drop_options(absl_flags.FLAGS.config, argv, experiment)
    if asked:
      terminal.say(_help(argv))
      sys.exit(0)
    if absl_flags.FLAGS.config is None:
      raise ConfigError('--config', 'expected an experiment, such as --config='
                        'experiments/r1_zero.py:mini; --help lists them')
  except absl_flags.UnrecognizedFlagError as problem:
    fail(ConfigError('', _unknown_flag(problem, argv)))
  except (ConfigError, absl_flags.Error) as problem:
    fail(problem)
  if absl_flags.FLAGS['verbosity'].using_default_value:
    absl_flags.FLAGS.verbosity = logging.WARNING
  return rest


def _experiment(argv: list[str]) -> ml_collections.ConfigDict:
  """The config of --config, without overrides; empty if there is none."""
  spec = value_of('config', argv)
  return load_config(spec) if spec is not None else ml_collections.ConfigDict()


def _joined(argv: list[str], config: ml_collections.ConfigDict) -> list[str]:
  """The arguments, with '--config.FIELD VALUE' as one."""
  joined, rest = [], iter(argv)
  fields = config_lib.flatten(config)
  for arg in rest:
    override = _OVERRIDE.fullmatch(arg)
    if arg == '--':
      return [*joined, arg, *rest]
    negated, field, text = override.groups() if override else (None,) * 3
    if field in fields and text is None and not negated and (
        _kind(config, field) is not bool):
      arg = '='.join([arg, *itertools.islice(rest, 1)])
    joined.append(arg)
  return joined


def _help(argv: list[str]) -> str:
  """The fields of the experiment; without one, what there is to be run."""
  chosen = absl_flags.FLAGS.config
  if chosen is not None:
    return explain.config(value_of('config', argv), chosen)
  folder = experiments_folder()
  return '\n'.join([sys.modules['__main__'].__doc__,
                    *([explain.experiments(folder)] if folder else [])])


def _unknown_flag(problem: absl_flags.UnrecognizedFlagError, argv: list[str]
                 ) -> str:
  """What absl says of an unknown flag; and the field, if it is one's name."""
  name, fields = problem.flagname, config_lib.flatten(_experiment(argv))
  _, _, rest = name.partition('.')
  known = ([field for field in fields if field in (name, rest)]
           or [field for field in fields
               if field.rpartition('.')[2] == name.rpartition('.')[2]])
  if not known:
    return str(problem)
  return (f'Unknown command line flag {name!r}; did you mean '
          f'--config.{min(known, key=len)}?')


def fail(problem: Exception, status: int = 2) -> NoReturn:
  """Ends the program with the problem on one line of stderr."""
  terminal.say('error: ' + terminal.visible(
      str(problem).replace('\n', ' ')), sys.stderr)
  sys.exit(status)


def check_overrides(argv: list[str],
                    config: ml_collections.ConfigDict | None = None
                   ) -> dict[str, Callable[[ml_collections.ConfigDict, str],
                                           None]]:
  """Raises `ConfigError` for an override of `argv` that its config refuses.

  Returns those that absl cannot make, and what makes them of a config: they add
  a field to an open section, or unset one. By default `config` is loaded.
  """
  ours = {}
  if value_of('config', argv) is None:
    return ours
  config = _experiment(argv) if config is None else config
  fields = config_lib.flatten(config)
  functions = {name for text in (*argv, *fields) for name in re.findall(
      r'rewards\.functions\.([\w-]+)', text.partition('=')[0])}
  for arg in _joined(argv, config)[1:]:
    if arg == '--':
      break
    if not (override := _OVERRIDE.fullmatch(arg)):
      continue
    _, field, text = override.groups()
    if field not in fields:
      if _is_open(config, field, functions):
        _check_addition(arg, field, text)
        ours[arg] = _add
        continue
      raise ConfigError(field, _unknown(field, fields))
    if field.rpartition('.')[2] == 'stage' and text != fields[field]:
      raise errors.expected(field, f'{fields[field]!r}, which this experiment '
                            'has the fields of', text)
    if text is not None and _unsets(config, field, text):
      ours[arg] = _unset
    elif text is not None:
      _check_type(field, _kind(config, field), text)
  return ours


def _unset(config: ml_collections.ConfigDict, arg: str) -> None:
  """Does what `--config.FIELD=None` says."""
  config.update_from_flattened_dict({_OVERRIDE.fullmatch(arg)[2]: None})


def _unsets(config: ml_collections.ConfigDict, field: str, text: str) -> bool:
  """Whether `text` is no value of `field`, but says that it has none."""
  path, _, name = field.rpartition('.')
  declared = dict(config_lib.section(config, path).items(
      preserve_field_references=True))[name]
  optional = isinstance(declared, ml_collections.FieldReference) and (
      getattr(declared, 'may_be_unset', True))
  return optional and (
      text == 'None' or text == '' and declared.get_type() is str)


def _is_open(config: ml_collections.ConfigDict, field: str,
             functions: set[str]) -> bool:
  """Whether an override may add `field` to a config."""
  match = _OPEN.fullmatch(field)
  if not match:
    return False
  path, kind, name = match.groups()
  *outer, last = path.split('.')
  for section in outer:
    config = config.get(section, {})
  if kind == 'data.options':
    return last in config
  return bool(config) and (kind == 'rewards.functions' or name in functions)


def _check_addition(arg: str, field: str, text: str | None) -> None:
  path, kind, name = _OPEN.fullmatch(field).groups()
  nested = kind == 'data.options'
  if not text or not all(name.split('.')) or ('.' in name and not nested):
    raise ConfigError('', f'{arg}: expected --config.{path}.NAME='
                      + ('FILE.py:FUNCTION' if kind == 'rewards.functions'
                         else 'VALUE'))
  if kind == 'rewards.weights':
    _check_type(field, float, text)


def _add(config: ml_collections.ConfigDict, arg: str) -> None:
  """Adds what `--config.data.options.a.b=VALUE` says, b being a field of a.

  VALUE is a number, a tuple or what else Python can read, else a string.
  """
  name, _, text = arg.partition('=')
  path, kind, field = _OPEN.fullmatch(name.partition('config.')[2]).groups()
  try:
    value = text if kind == 'rewards.functions' else ast.literal_eval(text)
  except (SyntaxError, ValueError):
    value = text
  if kind == 'rewards.weights':
    value = float(text)
  for part in reversed((path + '.' + field).split('.')):
    value = {part: value}
  try:
    with config.unlocked():
      config.update(value)
  except TypeError as problem:
    raise ConfigError('', f'{arg}: {problem}') from problem


def _drop_options(config: ml_collections.ConfigDict | None, argv: list[str],
                  experiment: ml_collections.ConfigDict) -> None:
  """Removes options of the source of an experiment that is not read any more.

  They belong to its task: where the command line names another, as
  --config.data.task=jsonl:FILE does, they would be refused, though the user
  never gave them. Options of the command line stay, and so do those of a task
  that an experiment leaves to its user; another file is the same source.
  """
  if config is None:
    return
  given = [match[2] for match in map(_OVERRIDE.fullmatch, argv) if match]
  for path, section in _sources(experiment):
    if section.task is None:
      continue
    now = config_lib.section(config, path)
    before, after = _sources_by_place(section.task), _sources_by_place(now.task)
    dropped = [
        name for name in config_lib.flatten(section.options)
        if f'{path}.options.{name}' not in given
        and not any(after.get(place) == source and f'{name}.'.startswith(place)
                    for place, source in before.items())]
    with config.unlocked():
      for name in dropped:
        _remove(now.options, *name.split('.'))
    if dropped:
      terminal.say(
          f'config.{path}.task is another source than the experiment has: '
          f'its options are left out ({", ".join(dropped)})', sys.stderr)


def _remove(options: ml_collections.ConfigDict, name: str, *inside: str
           ) -> None:
  """Removes the option `name`, or one inside it, and what is empty then."""
  if inside:
    _remove(options[name], *inside)
  if not (inside and options[name]):
    del options[name]


def _sources(config: ml_collections.ConfigDict, prefix: str = ''
            ) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
  """Every section that names a task and its options, by its dotted name."""
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      if 'task' in value and 'options' in value:
        yield prefix + name, value
      yield from _sources(value, f'{prefix}{name}.')


def _sources_by_place(task: str | Sequence[tuple[str, float]]
                     ) -> dict[str, str]:
  """The sources of a task, by the prefix of their options: '', or '0.', ..."""
  source = lambda name: _OF_FILE.sub(r'\1', str(name))
  if isinstance(task, str):
    return {'': source(task)}
  return {f'{place}.': source(part[0]) for place, part in enumerate(task or ())
          if isinstance(part, (list, tuple)) and part}


def load_config(spec: str) -> ml_collections.ConfigDict:
  """Runs `get_config` of `FILE` or `FILE:ARG`.

  Raises:
    ConfigError: there is no such file, or it would end the program.
  """
  path, *arg = spec.split(':', 1)
  path = _find_file(path, spec)
  module_spec = importlib.util.spec_from_file_location('_experiment', path)
  module = importlib.util.module_from_spec(module_spec)
  with errors.no_exit('', f'--config={spec}'):
    module_spec.loader.exec_module(module)
    return module.get_config(*arg)


def _find_file(path: str, spec: str) -> str:
  """The path of an experiment's file, an installed one's too."""
  installed = experiments_folder()
  if os.path.isfile(path):
    return path
  folder = os.path.dirname(path) or '.'
  files = sorted(map(str, pathlib.Path(folder).glob('*.py')))
  if os.path.normpath(folder) == _EXPERIMENTS and installed:
    other = installed / os.path.basename(path)
    if other.is_file():
      return str(other)
    files = files or [f'{_EXPERIMENTS}/{found.name}'
                      for found in sorted(installed.glob('[!_]*.py'))]
  raise ConfigError(
      '', f'--config={spec}: no such file in {os.getcwd()}'
      + (errors.nearest(path, files) if files else ''))


def experiments_folder() -> pathlib.Path | None:
  """The folder of the installed experiments; makes them importable.

  They are beside the package, also in a clone that is not installed. A folder
  of this name in the current directory counts only if it is a package.
  """
  root = pathlib.Path(__file__).resolve().parents[1]
  if not (root / _EXPERIMENTS).is_dir():
    return None
  spec = importlib.util.find_spec(_EXPERIMENTS)
  if spec is None or spec.origin is None:
    sys.path.append(str(root))
    importlib.invalidate_caches()
  return root / _EXPERIMENTS


def _with_found_file(argv: list[str]) -> list[str]:
  """The arguments with the path of the experiment's file as it was found."""
  spec = value_of('config', argv)
  if spec is None:
    return argv
  path, colon, arg = spec.partition(':')
  found = _find_file(path, spec) + colon + arg
  first = next(i for i, text in enumerate(argv) if spec in text)
  return [*argv[:first], argv[first].replace(spec, found), *argv[first + 1:]]


def value_of(flag: str, argv: list[str]) -> str | None:
  """The text that `argv` gives for a flag; None without it."""
  for i, arg in enumerate(argv):
    name, equals, value = arg.partition('=')
    if name in (f'--{flag}', f'-{flag}'):
      return value if equals else ''.join(argv[i + 1:i + 2])
  return None


def _unknown(field: str, fields: dict) -> str:
  inside = [name for name in fields if name.startswith(field + '.')]
  if inside:
    return 'a section, set one of its fields' + errors.nearest(
        field, inside, 'config.')
  section, _, leaf = field.rpartition('.')
  siblings = [name for name in fields if name.rpartition('.')[0] == section]
  by_leaf = [name for name in fields if name.rpartition('.')[2] == leaf]
  return 'no such field' + errors.nearest(
      field, by_leaf or siblings or fields, 'config.')


def _kind(config: ml_collections.ConfigDict, field: str) -> type:
  path, _, leaf = field.rpartition('.')
  return config_lib.section(config, path).get_type(leaf)


def _check_type(field: str, kind: type, text: str) -> None:
  if kind is type(None):
    raise ConfigError(field, 'has no declared type and cannot be set '
                      'here; set it in the experiment file')
  parser = _PARSERS.get(kind)
  try:
    value = text if parser is None else parser.parse(text)
  except (TypeError, ValueError):
    raise errors.expected(field, kind.__name__, text) from None
  if value == 0 and re.search('[1-9]', text.lower().partition('e')[0]):
    raise errors.expected(field, 'a number that is not taken for 0', text)
