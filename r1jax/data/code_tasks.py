"""Problems of programming, in their published files, with their tests.

    humaneval:PATH      HumanEval.jsonl.gz (arXiv 2107.03374)
    mbpp:PATH           mbpp.jsonl or sanitized-mbpp.json (arXiv 2108.07732)
    livecodebench:PATH  test*.jsonl of code_generation_lite (arXiv 2403.07974)
    codeforces:PATH     open-r1/codeforces, parquet or JSON Lines
    code:PATH           one's own: a row has `prompt` and `tests`, and perhaps
                        a solution in `code`

The record of a problem has `tests`, in one of the forms of
rewards/code/unit_tests.py; its verifier is 'code'. A row whose tests cannot be
read is refused, with its place. Codeforces problems that are interactive, use
files, or have several right outputs (a checker) are left out: only exact
outputs are compared.
"""

import base64
import io
import json
import pickle
from typing import Any, Callable, Iterator, Mapping
import zlib

from absl import logging

from r1jax import errors
from r1jax.data import columns
from r1jax.data import json_lines
from r1jax.rewards.code import unit_tests

Record = dict[str, Any]

_BLOCK = 'Put your solution in one block of Python: ```python ... ```'
_COMPLETE = ('Complete this Python function. Write all of it, with what it '
             f'imports.\n{_BLOCK}\n\n```python\n{{}}```')
_FUNCTION = f'{{}}\n{_BLOCK} It must pass these tests:\n\n```python\n{{}}\n```'
_STARTED = ('{}\n\nBegin with this code and complete it.\n'
            f'{_BLOCK}\n\n```python\n{{}}\n```')
_PROGRAM = ('{}\n\nWrite a Python program that reads the input from standard '
            f'input and prints the answer to standard output.\n{_BLOCK}')
_NAMES = ('task_id', 'question_id', 'id')  # of a problem
_LARGEST = 1 << 28  # bytes of a problem's tests, unpacked
_INTERPRETER_MIB = 64  # address space of Python itself, added to a limit

# What LiveCodeBench puts before a program, in its order: where two modules have
# a name, the later one's counts.
_MODULES = ('string', 're', 'datetime', 'collections', 'heapq', 'bisect',
            'copy', 'math', 'random', 'statistics', 'itertools', 'functools',
            'operator', 'io', 'sys', 'json')
_PRELUDE = '\n'.join((
    *(f'from {name} import *' for name in (*_MODULES, 'builtins', 'typing')),
    f'import {", ".join(_MODULES)}', 'sys.setrecursionlimit(50000)'))


def _column(name: str, kind: columns.Type = columns.filled) -> columns.Column:
  return columns.Column(kind, (name,))


class Records(list[Record]):
  """The records of a file, and how many of its problems are left out."""
  left_out = 0


def warn(left_out: int, task: Any) -> None:
  """Says how many problems of a task are left out."""
  logging.warning('%d problems of %s are left out: no tests, or more than '
                  'exact outputs to compare', left_out, task)


def _records(argument: str, split: str, make: Callable[..., Record | None],
             task: str | None = None) -> Records:
  """The records that `make` gives for each row and its place; None: left out.

  `task` is their name; None: the file's.
  """
  task, records = json_lines.title(argument, split, task), Records()
  for place, row in json_lines.read_rows(argument, split):
    record = make(row, place)
    if record is None:
      records.left_out += 1
      continue
    try:
      unit_tests.read(record['tests'])
    except unit_tests.SuiteError as problem:
      raise errors.ConfigError('data.task', f'{place}: {problem}') from problem
    name = next((row[name] for name in _NAMES if row.get(name) is not None), '')
    records.append(dict(answer='', task=task, verifier='code') | record
                   | ({'source': str(name)} if name != '' else {}))
  if records.left_out:
    warn(records.left_out, argument)
  return records


def humaneval(argument: str, split: str, seed: int, count: int | None
              ) -> list[Record]:
  """HumanEval: a function to complete; its tests are a function `check`."""
  del seed, count
  def make(row, place):
    prompt, name, test, answer = (
        _column(field).read(row, place) for field in (
            'prompt', 'entry_point', 'test', 'canonical_solution'))
    stub = f'{prompt}    pass\n'  # its imports and helpers, in both places
    return dict(
        prompt=_COMPLETE.format(prompt), question=prompt,
        answer=prompt + answer, tests=dict(
            kind='tests', names=(name,), setup=stub, prelude=stub,
            source=f'{test}\n\ncheck({name})\n'))
  return _records(argument, split, make, 'humaneval')


def own(argument: str, split: str, seed: int, count: int | None
        ) -> list[Record]:
  """Problems with tests in the form of unit_tests.py, and perhaps a solution.
  """
  del seed, count
  tests, code = _column('tests', _table), _column('code', columns.optional)
  return _records(argument, split, lambda row, place: dict(
      prompt=_column('prompt').read(row, place),
      tests=tests.read(row, place),
      answer=code.read(row, place) if code.name(row) else ''))


def _table(value: Any) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise columns.Wrong('tests: an object with a kind', value)
  return value


def mbpp(argument: str, split: str, seed: int, count: int | None
         ) -> list[Record]:
  """MBPP: a function in words, with the asserts that it must pass."""
  del seed, count
  prompt = columns.Column(columns.filled, ('text', 'prompt'))
  setup = _column('test_setup_code', columns.optional)
  def make(row, place):
    asserts = _column('test_list', columns.texts).read(row, place)
    tests = dict(kind='tests', source='\n'.join(asserts))
    if setup.name(row):
      tests['setup'] = setup.read(row, place)
    if row.get('test_imports'):
      tests['setup'] = '\n'.join(
          _column('test_imports', columns.texts).read(row, place))
    question = prompt.read(row, place)
    return dict(
        prompt=_FUNCTION.format(question, '\n'.join(asserts)),
        question=question, answer=_column('code').read(row, place), tests=tests)
  return _records(argument, split, make, 'mbpp')


def livecodebench(argument: str, split: str, seed: int, count: int | None
                  ) -> list[Record]:
  """LiveCodeBench: programs, and methods of a class with starter code."""
  del seed, count
  def make(row, place):
    question = _column('question_content').read(row, place)
    starter = _column('starter_code', columns.optional).read(row, place)
    cases = []
    for field, unpack in (('public_test_cases', _plain_cases),
                          ('private_test_cases', _packed_cases)):
      column = _column(field)
      if field == 'private_test_cases' and not row.get(field):
        continue
      try:
        cases += [(column, *_case(each))
                  for each in unpack(column.read(row, place))]
      except _UNREADABLE as problem:
        raise column.refused(
            place, f'test cases ({problem})', row[field]) from problem
    kinds = {kind for _, kind, _, _ in cases}
    if kinds == {'stdin'}:
      return dict(
          prompt=_PROGRAM.format(question), question=question, tests=dict(
              kind='script', prelude=_PRELUDE,
              cases=tuple((i, o) for _, _, i, o in cases)))
    if kinds != {'functional'}:
      raise _column('public_test_cases').refused(
          place, "test cases, all of testtype 'stdin' or 'functional'",
          sorted(kinds))
    return dict(
        prompt=_STARTED.format(question, starter), question=question,
        tests=dict(
            kind='calls', name=_function_name(row, place), prelude=_PRELUDE,
            cases=_functional(cases, place)))
  return _records(argument, split, make, 'livecodebench')


_UNREADABLE = (ValueError, KeyError, TypeError, EOFError, pickle.PicklingError,
               pickle.UnpicklingError, zlib.error, IndexError, AttributeError)


def _plain_cases(text: str) -> list[Mapping]:
  return json.loads(text)


def _packed_cases(text: str) -> list[Mapping]:
  """Private tests: JSON, or base64 of zlib of a pickled text of JSON."""
  if text.lstrip().startswith('['):
    return _plain_cases(text)
  unpacker = zlib.decompressobj()
  packed = base64.b64decode(text, validate=True)
  content = unpacker.decompress(packed, _LARGEST)
  if unpacker.unconsumed_tail:
    raise ValueError(f'more than {_LARGEST} bytes')
  return json.loads(_Text(io.BytesIO(content)).load())


class _Text(pickle.Unpickler):
  """Reads a pickled text; nothing that a pickle names is looked up or called.
  """

  def find_class(self, module, name):
    raise pickle.UnpicklingError(f'it names {module}.{name}')

  def persistent_load(self, pid):
    raise pickle.UnpicklingError(f'it names {pid}')

  def load(self) -> str:
    text = super().load()
    if not isinstance(text, str):
      raise pickle.UnpicklingError(f'it holds a {type(text).__name__}')
    return text


def _case(case: Mapping) -> tuple[str, str, str]:
  """(kind, input, output) of a test case."""
  found = case['testtype'], case['input'], case['output']
  for text in found:
    columns.text(text) if isinstance(text, str) else _no_text(text)
  return found


def _no_text(value: Any) -> None:
  raise ValueError(f'not a text: {columns.shown(value)}')


def _function_name(row: Mapping, place: str) -> str:
  column = _column('metadata')
  try:
    return columns.filled(json.loads(column.read(row, place))['func_name'])
  except (*_UNREADABLE, columns.Wrong) as problem:
    raise column.refused(
        place, 'JSON with func_name', row.get('metadata')) from problem


def _functional(cases: list[tuple[columns.Column, str, str, str]], place: str
                ) -> tuple[tuple[list, Any], ...]:
  """Arguments, one a line, and the value, all as JSON."""
  def read(column, text):
    try:
      return json.loads(text)
    except (ValueError, RecursionError) as problem:
      raise column.refused(
          place, 'arguments and values as JSON', text) from problem
  return tuple((
      [read(column, line) for line in given.split('\n') if line.strip()],
      read(column, wanted)) for column, _, given, wanted in cases)


def codeforces(argument: str, split: str, seed: int, count: int | None
               ) -> list[Record]:
  """Codeforces: programs whose output is compared exactly."""
  del seed, count
  def make(row, place):
    if row.get('generated_checker') or row.get('interaction_format') or (
        row.get('input_mode') not in (None, 'stdio')):
      return None
    cases = [case for field in ('examples', 'official_tests')
             for case in _examples(row, field, place)]
    if not cases:
      return None
    tests = dict(kind='script', cases=tuple(dict.fromkeys(cases)))
    for field, name, more in (('time_limit', 'seconds', 0),
                              ('memory_limit', 'memory_mib', _INTERPRETER_MIB)):
      if row.get(field) is not None:
        value = _column(field, columns.number).read(row, place)
        if not value > 0:
          raise _column(field).refused(place, 'a number above 0', value)
        tests[name] = int(value + more) if more else float(value)
    question = _statement(row, place)
    return dict(prompt=_PROGRAM.format(question), question=question,
                tests=tests)
  return _records(argument, split, make, 'codeforces')


def _examples(row: Mapping, field: str, place: str
              ) -> Iterator[tuple[str, str]]:
  """(input, output) of each of a column's test cases."""
  for case in row.get(field) or ():
    if not isinstance(case, Mapping):
      raise _column(field).refused(place, 'input and output', case)
    yield tuple(_column(name, columns.text).read(case, f'{place}, {field}')
                for name in ('input', 'output'))


def _statement(row: Mapping, place: str) -> str:
  """The statement of a problem, its parts under their titles."""
  parts = [_column('description').read(row, place)]
  for field, title in (('input_format', 'Input'), ('output_format', 'Output'),
                       ('note', 'Note')):
    if row.get(field):
      parts.append(f'{title}\n{_column(field).read(row, place)}')
  parts += [f'Example input\n{given}\nExample output\n{wanted}'
            for given, wanted in _examples(row, 'examples', place)]
  return '\n\n'.join(part.strip() for part in parts)


PROMPTS = {'code': own, 'humaneval': humaneval, 'mbpp': mbpp,
           'livecodebench': livecodebench, 'codeforces': codeforces}
