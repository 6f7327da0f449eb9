"""Software engineering in miniature: repair a function that fails its test.

A problem is a function of three numbers, one of whose two operators is wrong,
and a test that it fails; no other change of one operator passes the test. An
answer is right if its function has the right values, whatever its form. It is
run, but not by Python: only sums, differences and products of the arguments and
of numbers are evaluated.
"""

import ast
from collections.abc import Iterator
import itertools
import operator
import random
import re
from typing import Any

from r1jax.data import splits
from r1jax.data import thinking

ASK = ('Repair this function.\ndef f(a,b,c): return {}\n'
       'assert f({},{},{})=={}')
_MOST = 64  # characters of an answer: deeper nesting is no repair
_HEAD = re.compile(r'\s*(?:def f\(a, ?b, ?c\):\s*)?(?:return\s)?\s*')
_DO = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_SIGNS = {'+': operator.add, '-': operator.sub, '*': operator.mul}
_INPUTS = tuple(itertools.product((2, 3, 7), repeat=3))  # hidden tests
_WORKED, _TAGGED = .7, .1  # shares of answers with a thought, and without one

Problem = tuple[str, str, str]  # the question, the right line, a thought


def problems(rng: random.Random, split: str) -> Iterator[Problem]:
  """Yields problems of a split, endlessly; some may repeat."""
  while True:
    right = rng.choice('+-*'), rng.choice('+-*')
    numbers = tuple(rng.randint(1, 9) for _ in range(3))
    wrong = rng.choice(_changed(right))
    value = _value(right, numbers)
    fixes = [ops for ops in _changed(wrong) if _value(ops, numbers) == value]
    asked = ASK.format(_written(wrong), *numbers, value)
    if (fixes == [right] and _value(wrong, numbers) != value
        and splits.in_split(asked, split)):
      yield asked, f'return {_written(right)}', _thought(
          wrong, right, numbers)


def records(split: str, count: int, seed: int) -> list[dict[str, Any]]:
  """Draws `count` distinct problems."""
  found = {}
  for asked, line, _ in problems(random.Random(f'repair/{split}/{seed}'),
                                 split):
    found[asked] = dict(
        prompt=asked, answer=line, task='repair', verifier='repair')
    if len(found) == count:
      return list(found.values())


def answered(rng: random.Random, problem: Problem) -> str:
  """An answer to a problem: at once, in the format, or worked out."""
  _, line, thought = problem
  drawn = rng.random()
  if drawn < _WORKED:
    return thinking.TAGGED.format(thought, line)
  if drawn < _WORKED + _TAGGED:
    return thinking.TAGGED.format('I know this one.', line)
  return line


def repaired(answer: str, wanted: str) -> float:
  """1 if an answer is a function with the values of the line `wanted`.

  Both are a line of Python, with or without its 'return' and its 'def'.
  """
  made = _function(answer)
  if made is None:
    return 0.
  right = _function(wanted)
  return float(all(_run(made, numbers) == _run(right, numbers)
                   for numbers in _INPUTS))


def _function(text: str) -> ast.expr | None:
  """The expression that a function returns; None if it is of another kind."""
  text = text.strip()
  if len(text) > _MOST:
    return None
  try:
    made = ast.parse(text[_HEAD.match(text).end():], mode='eval').body
  except (SyntaxError, ValueError):
    return None
  return made if _known(made) else None


def _known(node: ast.expr) -> bool:
  if isinstance(node, ast.BinOp):
    return type(node.op) in _DO and _known(node.left) and _known(node.right)
  if isinstance(node, ast.Constant):
    return type(node.value) is int
  if isinstance(node, ast.UnaryOp):
    return isinstance(node.op, ast.USub) and _known(node.operand)
  return isinstance(node, ast.Name) and node.id in ('a', 'b', 'c')


def _run(node: ast.expr, numbers: tuple[int, ...]) -> int:
  if isinstance(node, ast.BinOp):
    return _DO[type(node.op)](
        _run(node.left, numbers), _run(node.right, numbers))
  if isinstance(node, ast.Constant):
    return node.value
  if isinstance(node, ast.UnaryOp):
    return -_run(node.operand, numbers)
  return numbers['abc'.index(node.id)]


def _changed(ops: tuple[str, str]) -> list[tuple[str, str]]:
  """All pairs of operators that differ from a pair in one of them."""
  return [other for other in itertools.product('+-*', repeat=2)
          if sum(a != b for a, b in zip(ops, other)) == 1]


def _written(ops: tuple[str, str]) -> str:
  return f'a{ops[0]}b{ops[1]}c'


def _value(ops: tuple[str, str], numbers: tuple[int, ...]) -> int:
  return _worked(ops, numbers)[-1][-1]


def _worked(ops: tuple[str, str], numbers: tuple[int, ...]
           ) -> list[tuple[int, str, int, int]]:
  """The two operations (left, sign, right, value), products first."""
  (one, two), (a, b, c) = ops, numbers
  do = lambda left, sign, right: (left, sign, right, _SIGNS[sign](left, right))
  if two == '*' != one:
    first = do(b, two, c)
    return [first, do(a, one, first[-1])]
  first = do(a, one, b)
  return [first, do(first[-1], two, c)]


def _thought(wrong: tuple[str, str], right: tuple[str, str],
             numbers: tuple[int, ...]) -> str:
  """Tries the changes of one operator, in their order, up to the right one."""
  tried, wanted, lines = _changed(wrong), _value(right, numbers), []
  for ops in tried[:tried.index(right) + 1]:
    small = ', '.join(f'{a}{sign}{b}={value}'
                      for a, sign, b, value in _worked(ops, numbers))
    lines.append(f'{_written(ops)}: {small}, ' + (
        'yes.' if ops == right else f'not {wanted}.'))
  return ' '.join(lines)
