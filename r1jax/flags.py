"""The command line: `--config=FILE:ARG --config.a.b=VALUE`, checked by name.

ml-collections answers a mistyped field with a traceback and a wrong type
without saying which was right, so the overrides are looked at here first;
then `config_flags` parses them as ever. Only `config.data.options`, which
belong to a data source, may be given names that the config does not hold.
"""

import ast
import importlib.util
import os
import re
import sys
from typing import NoReturn

from absl import flags as absl_flags
from absl import logging
import ml_collections

from r1jax import config as config_lib
from r1jax import errors

ConfigError = errors.ConfigError

_OVERRIDE = re.compile(r'--?(no)?config\.([^=]+)(?:=(.*))?', re.DOTALL)
_OPTIONS = 'data.options.'
_PARSERS = {
    int: absl_flags.IntegerParser(),
    float: absl_flags.FloatParser(),
    bool: absl_flags.BooleanParser(),
}


def parse(argv: list[str]) -> list[str]:
  """Parses all flags; a wrong one ends the program with one line, status 2.

  Unless told by --verbosity, absl would log everything orbax does.
  """
  try:
    options = check_overrides(argv)
    # config_flags looks for overrides in sys.argv, and refuses new fields.
    sys.argv = [arg for arg in argv if arg not in options]
    rest = absl_flags.FLAGS(sys.argv)
    sys.argv = argv
    for arg in options:
      _add_option(absl_flags.FLAGS.config.data.options, arg)
  except (ConfigError, absl_flags.Error) as problem:
    fail(problem)
  if absl_flags.FLAGS['verbosity'].using_default_value:
    absl_flags.FLAGS.verbosity = logging.WARNING
  return rest


def fail(problem: Exception, status: int = 2) -> NoReturn:
  """Ends the program with the problem on one line of stderr."""
  print('error:', str(problem).replace('\n', ' '), file=sys.stderr)
  sys.exit(status)


def check_overrides(argv: list[str]) -> list[str]:
  """Raises `ConfigError` for an override of `argv` that its config refuses.

  Returns the overrides that add an option to `config.data.options`.
  """
  spec, options = _value_of('config', argv), []
  if spec is None:
    return options
  config = load_config(spec)
  fields = config_lib.flatten(config)
  rest = iter(argv[1:])
  for arg in rest:
    if arg == '--':
      break
    override = _OVERRIDE.fullmatch(arg)
    if override is None:
      continue
    negated, field, text = override.groups()
    if field not in fields:
      if field.startswith(_OPTIONS) and 'options' in config.get('data', {}):
        if text is None or not all(field.split('.')):
          raise ConfigError(f'{arg}: expected --config.{_OPTIONS}NAME=VALUE')
        options.append(arg)
        continue
      raise ConfigError(f'config.{field}: {_unknown(field, fields)}')
    kind = _kind(config, field)
    if text is None and not negated and kind is not bool:
      text = next(rest, None)
    if text is not None:
      _check_type(field, kind, text)
  return options


def _add_option(options: ml_collections.ConfigDict, arg: str) -> None:
  """Adds what `--config.data.options.a.b=VALUE` says, b being a field of a.

  VALUE is a number, a tuple or what else Python can read, else a string.
  """
  name, _, text = arg.partition('=')
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    value = text
  for part in reversed(name.partition(_OPTIONS)[2].split('.')):
    value = {part: value}
  try:
    with options.unlocked():
      options.update(value)
  except TypeError as problem:
    raise ConfigError(f'{arg}: {problem}') from problem


def load_config(spec: str) -> ml_collections.ConfigDict:
  """Runs `get_config` of `FILE` or `FILE:ARG`."""
  path, *arg = spec.split(':', 1)
  if not os.path.isfile(path):
    folder = os.path.dirname(path) or '.'
    files = ([os.path.join(folder, name) for name in sorted(os.listdir(folder))
              if name.endswith('.py')] if os.path.isdir(folder) else [])
    hint = errors.nearest(path, files) if files else ''
    raise ConfigError(f'--config={spec}: no such file{hint}')
  module_spec = importlib.util.spec_from_file_location('_experiment', path)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  return module.get_config(*arg)


def _value_of(flag: str, argv: list[str]) -> str | None:
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
  section = field.rpartition('.')[0]
  siblings = [name for name in fields if name.rpartition('.')[0] == section]
  by_leaf = [name for name in fields
             if name.rpartition('.')[2] == field.rpartition('.')[2]]
  return 'no such field' + errors.nearest(
      field, by_leaf or siblings or fields, 'config.')


def _kind(config: ml_collections.ConfigDict, field: str) -> type:
  *sections, leaf = field.split('.')
  for section in sections:
    config = config[section]
  return config.get_type(leaf)


def _check_type(field: str, kind: type, text: str) -> None:
  if kind is type(None):
    raise ConfigError(f'config.{field}: has no type (None) and cannot be set '
                      'here; set it in the config file')
  parser = _PARSERS.get(kind)
  try:
    if parser is not None:
      parser.parse(text)
  except (TypeError, ValueError):
    raise errors.expected(field, kind.__name__, text) from None
