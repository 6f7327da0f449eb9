"""Users' functions, named by a config.

A place is 'my_rewards.py:function', in a file (from the current directory; it
may import the files beside it), or 'package.module:function'.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import functools
import importlib
import importlib.util
import inspect
import itertools
import pathlib
import sys
import types
from typing import Any

from r1jax import errors
from r1jax.data import columns
from r1jax.data import splits


def is_place(text: str) -> bool:
  """Whether a text names a function of a file or of a dotted module."""
  place, mark, name = text.rpartition(':')
  return bool(mark) and name.isidentifier() and (
      place.endswith('.py')
      or '.' in place and all(map(str.isidentifier, place.split('.'))))


def check(place: str, field: str) -> None:
  """Refuses a place of another form, or a file that does not exist.

  Raises:
    ConfigError: names `config.<field>`.
  """
  module, mark, name = str(place).rpartition(':')
  if not (mark and module and name.isidentifier()):
    raise errors.expected(
        field, "'FILE.py:FUNCTION' or 'PACKAGE.MODULE:FUNCTION'", place)
  path = pathlib.Path(module).expanduser()
  if module.endswith('.py') and not path.is_file():
    files = [str(other) for other in sorted(path.parent.glob('*.py'))]
    raise errors.ConfigError(
        field, f'no such file: {module} (in {pathlib.Path.cwd()})'
        + (errors.nearest(module, files) if files else ''))


def load(place: str, field: str) -> Callable[..., Any]:
  """The function at a place; its file is run once per process.

  Raises:
    ConfigError: there is no such file, module or function, or it would end the
      program; names `config.<field>`. What else the user's code raises is not
      caught.
  """
  check(place, field)
  path, _, name = place.rpartition(':')
  with errors.no_exit(field, place):
    if path.endswith('.py'):
      module = _run_file(str(pathlib.Path(path).expanduser().resolve()))
    else:
      module = _import(path, field)
  function = getattr(module, name, None)
  if callable(function):
    return function
  known = [other for other, value in vars(module).items()
           if callable(value) and not other.startswith('_')]
  raise errors.ConfigError(
      field, f'{path} has no function {name!r}'
      + (errors.nearest(name, known) if known else ''))


@functools.lru_cache(maxsize=None)
def _run_file(path: str) -> types.ModuleType:
  folder, stem = str(pathlib.Path(path).parent), pathlib.Path(path).stem
  if folder not in sys.path:
    sys.path.append(folder)
  spec = importlib.util.spec_from_file_location(f'_user_{stem}', path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[module.__name__] = module  # as dataclasses expects it
  spec.loader.exec_module(module)
  return module


def _import(name: str, field: str) -> types.ModuleType:
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as problem:
    if not problem.name or not f'{name}.'.startswith(f'{problem.name}.'):
      raise  # the module exists, and imports one that does not
    raise errors.ConfigError(
        field, f'no module named {name!r}; a file is given as '
        "'FILE.py:FUNCTION'") from problem


def rows(place: str, split: str, seed: int | None, count: int | None,
         options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
  """(place, dict) of what a user's function yields, at most `count`.

  Raises:
    ConfigError: there is no such function, it does not take an option, it
      yields something else, or it would end the program.
  """
  function = load(place, 'data.task')
  parameters = inspect.signature(function).parameters.values()
  names = [parameter.name for parameter in parameters]
  known = dict(split=split, seed=seed, count=count)
  if not any(p.kind is p.VAR_KEYWORD for p in parameters):
    for name in options:
      errors.check_choice(
          'data.options', name, [n for n in names if n not in known])
  known = {name: value for name, value in known.items() if name in names}
  try:
    inspect.signature(function).bind(**known, **options)
  except TypeError as problem:
    raise errors.ConfigError(
        'data.options', f'{place}: {problem}') from problem
  with errors.no_exit('data.task', place):
    found = _dicts(function(**known, **options), place)
    if 'split' not in known:
      found = ((at, row) for at, row in found if splits.in_split(
          str(next((row[name] for name in
                    (*columns.QUESTIONS, 'messages', 'text') if name in row),
                   row)), split))
    return list(itertools.islice(found, count))


def _dicts(rows: Iterable, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
  if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping):
    raise errors.ConfigError('data.task', f'{place}: expected dicts, received '
                             f'{columns.shown(rows)}')
  for number, row in enumerate(rows):
    if isinstance(row, str):
      row = {'text': row}
    if not isinstance(row, Mapping):
      raise errors.ConfigError('data.task', f'{place}[{number}]: expected '
                               f'dicts, received {columns.shown(row)}')
    yield f'{place}[{number}]', dict(row)
