"""The tests of a problem: what is asked of a program, in three forms.

    script  cases [(standard input, what is to be printed), ...]
    calls   name, and cases [(arguments, value), ...] of the function, plain
            values: see inside.py
    tests   names of the functions under test, and source that asserts what they
            give, after `setup`, which is the suite's own; a list, dict or set
            that a function changes in place is changed there, too

A record's 'tests' is a dict of one of these, with `kind`. `prelude` is run
before the program, in its namespace; `seconds` and `memory_mib`, where there,
take the place of the config's.
"""

import ast
import builtins
import sys
from typing import Any, Mapping, NamedTuple

KINDS = ('script', 'calls', 'tests')
_CASES = {'script': 'an input and an output, two texts',
          'calls': 'a list of arguments, and a value', 'tests': 'none'}
_LIST, _NOTHING = (list, tuple), type(None)
_TYPES = dict(
    cases=_LIST, name=str, names=_LIST, setup=str, source=str, prelude=str,
    seconds=(int, float, _NOTHING), memory_mib=(int, _NOTHING))
_LARGEST = 1 << 30  # of a limit


class SuiteError(ValueError):
  """Tests that cannot be read, or that did not run: the suite's fault."""


class Tests(NamedTuple):
  """The tests of one problem; see above."""
  kind: str
  cases: tuple[tuple[Any, Any], ...] = ()  # of scripts and calls
  name: str = ''  # of the function that is called
  names: tuple[str, ...] = ()  # of the functions under test
  setup: str = ''
  source: str = ''
  prelude: str = ''
  seconds: float | None = None
  memory_mib: int | None = None


def read(given: Mapping[str, Any]) -> Tests:
  """Tests as a record has them; raises SuiteError unless they can run."""
  unknown = sorted(set(given).difference(Tests._fields))
  if unknown or given.get('kind') not in KINDS:
    raise SuiteError(
        f'tests need a kind of {KINDS} and may have {Tests._fields[1:]}; '
        f'received {sorted(given)} of kind {given.get("kind")!r}')
  tests = Tests(**given)
  for field, types in _TYPES.items():
    if not isinstance(getattr(tests, field), types):
      raise SuiteError(f'{field} of the tests is a '
                       f'{type(getattr(tests, field)).__name__}')
  for limit in (tests.seconds, tests.memory_mib):
    if limit is not None and not 0 < limit < _LARGEST:
      raise SuiteError(f'a limit of the tests is {limit}')
  for field in ('setup', 'source', 'prelude'):
    try:
      ast.parse(getattr(tests, field))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
      raise SuiteError(f'{field} of the tests is not Python: {problem}'
                       ) from problem
  if tests.kind == 'tests' and not tests.source.strip():
    raise SuiteError('the tests have no source')
  if tests.kind != 'tests' and not tests.cases:
    raise SuiteError('the tests have no cases')
  if tests.kind == 'calls' and not tests.name:
    raise SuiteError('the tests do not name the function')
  for number, case in enumerate(tests.cases):
    if not _is_case(tests.kind, case):
      raise SuiteError(f'case {number} of the tests is {case!r:.80}; expected '
                       f'{_CASES[tests.kind]}')
  return tests


def _is_case(kind: str, case: Any) -> bool:
  if not isinstance(case, _LIST) or len(case) != 2:
    return False
  given, wanted = case
  if kind == 'calls':
    return isinstance(given, _LIST)
  return isinstance(given, str) and isinstance(wanted, str)


def imported(source: str) -> list[str]:
  """The modules of the standard library that code imports at its top."""
  names = set()
  for node in ast.parse(source).body:
    if isinstance(node, ast.Import):
      names.update(each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names.add(node.module)
  return sorted(names.intersection(sys.stdlib_module_names))


def open_names(source: str) -> tuple[list[str], list[str]]:
  """What test code reads and binds nowhere: names, and which are modules.

  The names are those of functions under test, unless the suite's setup defines
  them. A module is one of the standard library whose attributes are read, as in
  math.isclose.
  """
  names, bound, modules = set(), set(vars(builtins)), set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Name):
      (names if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef,
                           ast.ClassDef, ast.ExceptHandler)):
      bound.add(node.name)
    elif isinstance(node, ast.arg):
      bound.add(node.arg)
    elif isinstance(node, ast.alias):
      bound.add((node.asname or node.name).partition('.')[0])
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
      modules.add(node.value.id)
  return (sorted(names - bound),
          sorted(modules.intersection(sys.stdlib_module_names)))
