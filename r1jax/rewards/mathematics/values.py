"""Whether two expressions have the same value.

Numbers that are not rational are computed to so many digits that two different
ones would show it: an algebraic number that is not 0 is at least about 10^-S,
S the digits of all numbers on the way times the degree of its roots (Burnikel,
Funke, Mehlhorn, Schirra, Schmitt, "A separation bound for real algebraic
expressions", 2001). Expressions with variables are equal if they are so at
random rational points. What would need more than `_MAX_DIGITS` is equal only if
it is written the same.
"""

from fractions import Fraction
import math
from typing import Mapping

import mpmath

from r1jax.rewards.mathematics import evaluation
from r1jax.rewards.mathematics import syntax

Node = syntax.Node
_MAX_DIGITS, _MAX_DIGITS_AT_POINT = 6_000, 1_500
_ENOUGH = 4  # points at which both have a value
_MAX_VARIABLES = 12  # that are tried as negative
# First letters of variables that are integers in floors and as exponents of
# negative numbers, and of those that are real even in factorials.
_INTEGERS, _REAL = frozenset('ijklmnpqNMK'), frozenset('xyztuvw')


def equal(x: Node, y: Node, tolerance: float = 0.) -> bool:
  """Whether two expressions have the same value wherever they have one.

  Args:
    x: of the reference.
    y: of the answer.
    tolerance: relative, where one of them has decimals.
  """
  if normal(x) == normal(y):
    return True
  if not (has(x, 'decimal') or has(y, 'decimal')):
    tolerance = 0.
  try:
    return _agree(x, y, tolerance, evaluation.Budget())
  except evaluation.Exhausted:
    return folded(x) == folded(y)


def _agree(x: Node, y: Node, tolerance: float, budget: evaluation.Budget
           ) -> bool:
  """Whether they have the same value at every point that is tried."""
  known = sorted(names(x) | names(y))
  if not known:
    try:
      return bool(_equal_at(x, y, {}, False, tolerance, budget))
    except evaluation.Undecided:
      return folded(x) == folded(y)
  if x == Node('number', (0,)):  # x - x is 0, and so is 'a 0'
    return False
  integers = _integer_variables(x) | _integer_variables(y)
  scale = max(1000, _largest(x), _largest(y))
  real = not (has(x, 'i') or has(y, 'i'))
  agreed = 0
  for n in range(8 * min(max(len(known), 3), _MAX_VARIABLES)):
    point = _point(known, integers, n, scale)
    try:
      verdict = _equal_at(x, y, point, real, tolerance, budget)
    except evaluation.Undecided:
      verdict = None
    if verdict is False:
      return False
    agreed += bool(verdict)
  return agreed >= _ENOUGH


def proportional(x: Node, y: Node) -> bool:
  """Whether y is a multiple of x: x = 0 and y = 0 are the same equation."""
  point = {name: Node('number', (value,)) for name, value in _point(
      sorted(names(x) | names(y)), set(), 0, 1).items()}
  at_x, at_y = _at(x, point), _at(y, point)
  zero = Node('number', (Fraction(0),))
  return not equal(at_x, zero) and not equal(at_y, zero) and equal(
      Node('mul', (x, at_y)), Node('mul', (y, at_x)))


def _at(node: Node, point: Mapping[str, Node]) -> Node:
  """The tree with its variables replaced."""
  if node.op == 'symbol':
    return point[node.args[0]]
  return syntax.replaced(node, lambda x: _at(x, point))


def order(x: Node, y: Node) -> int | None:
  """-1 or 1 as x is less or more than y, which differ; None: no real order."""
  try:
    budget = evaluation.Budget()
    a, b = (_estimate(node, {}, True, budget)[0] for node in (x, y))
  except (ArithmeticError, KeyError):
    return None
  a, b = _mp(a), _mp(b)
  if mpmath.mpc in (type(a), type(b)):
    return None
  return 1 if a > b else -1


def _point(known: list[str], integers: set[str], n: int, scale: int
           ) -> dict[str, Fraction]:
  """The values of the variables at the n-th point.

  Up to 0.1, 3, 60 or 3 `scale`. All are positive, or all but one, so that
  sqrt(a) sqrt(b) is taken for sqrt(a b). A name with an index is of a physical
  quantity, and positive.
  """
  scales = Fraction(1, 30), 1, 20, scale
  point = {name: evaluation.random_value(f'{name} {n}') * scales[n // 2 % 4]
           for name in known}
  for name in integers:
    point[name] = Fraction(int(point[name] * 3) + 1)
  if n % 2:
    name = known[n // 8 % len(known)]
    if name not in integers and '_' not in name and name != r'\hbar':
      point[name] *= -1
  return point


def _largest(node: Node) -> int:
  """The largest number in a tree, at most 10^9."""
  return max((min(abs(int(x.args[0])), 10**9) for x in syntax.walk(node)
              if x.op in ('number', 'decimal')), default=0)


def _equal_at(x: Node, y: Node, point: Mapping[str, Fraction], real: bool,
              tolerance: float, budget: evaluation.Budget) -> bool | None:
  """Whether they are equal at a point; None where one has no value there.

  With `real`, a complex number is none. Raises evaluation.Undecided.
  """
  found = []
  for node in (x, y):
    try:
      found.append(_estimate(node, point, real, budget))
    except evaluation.Undefined:
      found.append(None)
  if found[0] is None and point or found == [None, None]:
    return None
  if found[1] is None:  # the reference has a value here
    is_factorial = has(x, 'factorial') or has(y, 'factorial')
    return None if point and is_factorial else False
  if found[0] is None:
    return False
  (a, at_a), (b, at_b) = found
  if isinstance(a, Fraction) and isinstance(b, Fraction):
    return a == b or bool(tolerance) and (
        abs(a - b) <= Fraction(tolerance) * abs(a))
  if any(not isinstance(v, Fraction) and mpmath.isinf(v) for v in (a, b)):
    return a == b
  for value, at in found:
    at.bits += evaluation.bits(value) if isinstance(value, Fraction) else 0
  size = _digits(at_a, at_b)
  a, b = _mp(a), _mp(b)
  if tolerance and abs(a - b) <= tolerance * abs(a):
    return True
  if abs(a - b) > mpmath.ldexp(1, max(at_a.largest, at_b.largest, 0) - 20):
    return False
  if 2 * size > (_MAX_DIGITS_AT_POINT if point else _MAX_DIGITS):
    raise evaluation.Undecided
  with mpmath.workdps(int(2 * size) + 30):
    at = evaluation.Evaluation(point, budget)
    try:
      a, b = _mp(at(x)), _mp(at(y))
    except (evaluation.Undefined, evaluation.Imprecise) as problem:
      raise evaluation.Undecided from problem
    scale = max(abs(a), abs(b), 1 if at_a.has_sums or at_b.has_sums else 0)
    return abs(a - b) <= mpmath.mpf(10) ** -int(size) * scale


def _digits(*found: evaluation.Evaluation) -> float:
  """How many digits it takes to tell two values apart."""
  size = sum(at.size for at in found)
  if any(at.has_sums for at in found):
    size += sum(at.spread for at in found)
  if not any(at.point for at in found):
    # At random points nothing is nearly equal, and no bound is needed.
    size += sum(at.bits for at in found) * 0.302
    size *= min(math.prod(at.degree for at in found), evaluation.MAX_DEGREE)
  return size + 30


def _estimate(node: Node, point: Mapping[str, Fraction], real: bool,
              budget: evaluation.Budget
              ) -> tuple[evaluation.Number, evaluation.Evaluation]:
  """The value to 15 digits or more, and what was noted on the way."""
  for digits in (15, 60, 200, 1000):
    try:
      with mpmath.workdps(digits):
        at = evaluation.Evaluation(point, budget)
        value = at(node)
      break
    except evaluation.Imprecise:  # of a floor
      continue
  else:
    raise evaluation.Undecided
  if real and isinstance(value, mpmath.mpc):
    raise evaluation.Undefined('not real')
  return value, at


def _mp(value: evaluation.Number) -> evaluation.Number:
  return (mpmath.mpf(value.numerator) / value.denominator
          if isinstance(value, Fraction) else value)


def normal(node: Node) -> Node:
  """The tree with the terms and factors of each sum and product in order."""
  node = syntax.replaced(node, normal)
  if node.op not in ('add', 'mul'):
    return node
  flat = []
  for x in node.args:
    flat += x.args if x.op == node.op else [x]
  return Node(node.op, tuple(sorted(flat, key=hash)))


def folded(node: Node) -> Node:
  """The normal tree, exact parts of which are computed: 10^{10^2}, 10^{100}."""
  try:
    value = evaluation.Evaluation({}, evaluation.Budget(1000))(node)
    if isinstance(value, Fraction):
      return Node('number', (value,))
  except (ArithmeticError, KeyError):
    pass  # a part may have a value
  return normal(syntax.replaced(node, folded))


def names(node: Node) -> set[str]:
  """The variables of a tree."""
  return {x.args[0] for x in syntax.walk(node) if x.op == 'symbol'}


def has(node: Node, what: str) -> bool:
  """Whether a tree has a node of this kind, this constant or this function."""
  return any(x.op == what or x.args[:1] == (what,) and (
      x.op in ('constant', 'call')) for x in syntax.walk(node))


def _integer_variables(node: Node) -> set[str]:
  """The variables taken for integers: in floor and ceil, factorial, binomial,
  gcd and lcm, and in exponents of a negative base.
  """
  whole = set()
  for x in syntax.walk(node):
    name = x.args[0] if x.op == 'call' else ''
    if name in ('factorial', 'binomial', 'gcd', 'lcm'):
      whole |= {n for n in names(x) if n[0] not in _REAL}
    elif name in ('floor', 'ceil') or x.op == 'pow' and x.args[0].op == 'neg':
      inside = names(x.args[1])
      whole |= {n for n in inside if n[0] in _INTEGERS}
  return whole
