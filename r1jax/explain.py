"""What --help prints: an experiment's fields with values, bounds and meanings.

For a pipeline: its own fields and its stages; with --config.only=NAME, the
fields of that stage. Without --config: the experiments.
"""

from collections.abc import Iterator
import ast
import pathlib
import textwrap
from typing import Any

import ml_collections

from r1jax import errors
from r1jax import fields

_WIDTH = 100  # columns
_NAME, _VALUE, _MAY_BE = 24, 17, 14  # of them, each with a space at its end
_TYPES = {bool: 'True | False', int: 'int', float: 'float', tuple: 'tuple'}


def config(spec: str, chosen: ml_collections.ConfigDict) -> str:
  """The help for an experiment.

  Args:
    spec: FILE:ARG as --config has it.
    chosen: its config, with the values that the command line gives.

  Raises:
    ConfigError: config.only is not one of its stages.
  """
  stages, name = chosen.get('stages', {}), chosen.get('only')
  if name is not None:
    errors.check_choice('only', name, stages)
    prefix = f'config.stages.{name}'
    return '\n'.join([
        f'{spec}, stage {name}; set a field by --{prefix}.FIELD=VALUE', '',
        *_section(prefix, stages[name])])
  lines = [f'{spec}; set a field by --config.FIELD=VALUE, unset one that may '
           'be by =None', '',
           *_section('config', chosen, leave=('stages',))]
  if stages:
    width = max(map(len, stages)) + 2
    lines += ['stages, and their kinds'] + [
        f'  {name:<{width}}{stage.stage}' for name, stage in stages.items()]
    lines += ['', 'The fields of a stage are printed by',
              f'  --config={spec} --config.only=NAME --help', '']
  return '\n'.join(lines)


def experiments(folder: pathlib.Path) -> str:
  """A line for each experiment of a folder, and how to get its help."""
  found = []
  for path in sorted(folder.glob('*.py')):
    tree = ast.parse(path.read_text('utf-8'))
    if any(getattr(node, 'name', '') == 'get_config' for node in tree.body):
      first = (ast.get_docstring(tree) or '').partition('\n')[0]
      found.append((path.name, first))
  width = max((len(name) for name, _ in found), default=0) + 2
  return '\n'.join([
      f'The experiments in {folder}/, followed by :mini or another variant:',
      *(f'  {name:<{width}}{first}' for name, first in found), '',
      f'--config={folder}/FILE:ARG --help prints the fields of one, with their '
      'values', 'and meanings.'])


def _section(name: str, section: ml_collections.ConfigDict,
             leave: tuple[str, ...] = ()) -> Iterator[str]:
  """Lines of a section's own fields, then of the sections within."""
  yield name
  inner = []
  if not section:
    yield '  (empty; any option of the data source)' if name.endswith(
        '.options') else '  (empty)'
  for key, value in section.items(preserve_field_references=True):
    if key in leave:
      continue
    if isinstance(value, ml_collections.ConfigDict):
      inner.append((key, value))
    else:
      yield from _field(key, value)
  yield ''
  for key, value in inner:
    yield from _section(f'{name}.{key}', value)


def _field(name: str, field: Any) -> Iterator[str]:
  """'name  value  what it may be  meaning', on as many lines as needed."""
  value, may_be, said = field, '', ''
  if isinstance(field, fields.Field):
    value, said = field.get(), field.meaning
    may_be = ' | '.join(field.choices) or field.bound.replace(
        str(2**32), '2**32') or _TYPES.get(field.get_type(), '')
    if len(may_be) >= _MAY_BE:  # too long for its column
      may_be, said = '', f'{may_be}: {said}'
  shown = 'unset' if value is None else textwrap.shorten(
      repr(value) if value == '' or not isinstance(value, str) else value,
      _WIDTH // 2, placeholder='...')
  indent = _NAME + _VALUE + _MAY_BE
  line = f'  {name:<{_NAME - 3}} {shown:<{_VALUE - 1}} '
  if len(line) > _NAME + _VALUE:  # the value is long: the meaning goes below
    yield line.rstrip()
    line = ' ' * (_NAME + _VALUE)
  line += f'{may_be:<{_MAY_BE}}'
  for row in textwrap.wrap(said, _WIDTH - indent) or ['']:
    yield (line + row).rstrip()
    line = ' ' * indent
