"""Sets of real numbers: intervals, their unions, and inequalities as such."""

import functools
from typing import Callable, NamedTuple

from r1jax.rewards.mathematics import syntax
from r1jax.rewards.mathematics import values

Node = syntax.Node
_INFINITY = Node('constant', ('oo',))
_MINUS_INFINITY = Node('neg', (_INFINITY,))
_REAL_LINE = Node('named', ('R',))
_TURNED = {'<': '>', '>': '<', r'\le': r'\ge', r'\ge': r'\le'}
_BRACKETS = {'()': (False, False), '(]': (False, True), '[)': (True, False),
             '[]': (True, True)}
_MAX_PIECES = 12


class Piece(NamedTuple):
  """An interval, or with equal ends a point."""
  low: Node
  high: Node
  has_low: bool
  has_high: bool


Pieces = list[Piece]  # apart from each other, in order


class _Unordered(ArithmeticError):
  """No interval: of its ends neither is known to be the larger."""


def pieces(node: Node) -> Pieces | None:
  """The intervals of a set of reals; None if it is none that is known.

  Two values in round or square brackets are taken for an interval.
  """
  try:
    return _pieces(node)
  except _Unordered:
    return None


def _pieces(node: Node) -> Pieces | None:
  if node == _REAL_LINE:
    return [Piece(_MINUS_INFINITY, _INFINITY, False, False)]
  if node.op == 'tuple' and len(node.args) == 3 and node.args[0] in _BRACKETS:
    return _interval(node)
  if node.op == 'set' and len(node.args) <= _MAX_PIECES:
    return _joined([Piece(x, x, True, True) for x in node.args])
  if node.op == 'chain':
    found = of_inequality(node)
    return found and found[1]
  if node.op in ('cup', 'cap', 'minus', 'any', 'all') and (
      len(node.args) <= _MAX_PIECES):
    parts = [_pieces(x) for x in node.args]
    if None in parts or len({variable(x) for x in node.args}) > 1:
      return None
    combine = {'cup': _union, 'any': _union, 'minus': _difference}.get(
        node.op, _intersection)
    return functools.reduce(combine, parts)
  return None


def of_inequality(node: Node) -> tuple[Node, Pieces] | None:
  """(x, the set of its values) of x < 1, 1 < x <= 2, x != 3 or x in a set."""
  relations, sides = node.args
  if len(relations) == 1:
    (relation,), (left, right) = relations, sides
    if relation == r'\in':
      found = _pieces(right)
      return None if left.op != 'symbol' or found is None else (left, found)
    if right.op == 'symbol' and relation in _TURNED:
      left, right, relation = right, left, _TURNED[relation]
    if left.op != 'symbol' or right.op == 'symbol':
      return None
    if relation == r'\ne':
      return left, [Piece(_MINUS_INFINITY, right, False, False),
                    Piece(right, _INFINITY, False, False)]
    if relation in ('<', r'\le'):
      return left, [Piece(_MINUS_INFINITY, right, False, relation != '<')]
    if relation in ('>', r'\ge'):
      return left, [Piece(right, _INFINITY, relation != '>', False)]
    return None
  if len(relations) != 2 or sides[1].op != 'symbol':
    return None
  if all(relation in ('>', r'\ge') for relation in relations):
    relations = [_TURNED[relation] for relation in reversed(relations)]
    sides = sides[::-1]
  if any(relation not in ('<', r'\le') for relation in relations):
    return None
  low, name, high = sides
  return name, [Piece(low, high, relations[0] != '<', relations[1] != '<')]


def same(x: Pieces, y: Pieces, equal: Callable[[Node, Node], bool]) -> bool:
  return len(x) == len(y) and all(
      (a.has_low, a.has_high) == (b.has_low, b.has_high)
      and equal(a.low, b.low) and equal(a.high, b.high) for a, b in zip(x, y))


def variable(node: Node) -> Node | None:
  """The variable of an inequality."""
  found = of_inequality(node) if node.op == 'chain' else None
  return found and found[0]


def _interval(node: Node) -> Pieces:
  brackets, low, high = node.args
  _order(low, high)  # raises where they cannot be compared
  return [Piece(low, high, *_BRACKETS[brackets])]


def _order(x: Node, y: Node) -> int:
  """-1, 0 or 1 as x is less than, equal to or greater than y."""
  order = 0 if values.equal(x, y) else values.order(x, y)
  if order is None:
    raise _Unordered
  return order


def _joined(found: Pieces) -> Pieces:
  """Pieces in order, those that meet made one."""
  if len(found) > _MAX_PIECES:
    raise _Unordered
  joined = []
  for piece in sorted(found, key=functools.cmp_to_key(_by_low)):
    if joined and _meet(joined[-1], piece):
      joined[-1] = _hull(joined[-1], piece)
    else:
      joined.append(piece)
  return joined


def _by_low(x: Piece, y: Piece) -> int:
  return _order(x.low, y.low) or y.has_low - x.has_low


def _meet(x: Piece, y: Piece) -> bool:
  order = _order(y.low, x.high)
  return order < 0 or order == 0 and (y.has_low or x.has_high)


def _hull(x: Piece, y: Piece) -> Piece:
  order = _order(x.high, y.high)
  has_low = x.has_low or (_order(x.low, y.low) == 0 and y.has_low)
  if order == 0:
    return x._replace(has_low=has_low, has_high=x.has_high or y.has_high)
  longer = x if order > 0 else y
  return Piece(x.low, longer.high, has_low, longer.has_high)


def _union(x: Pieces, y: Pieces) -> Pieces:
  return _joined([*x, *y])


def _intersection(x: Pieces, y: Pieces) -> Pieces:
  found = []
  for a in x:
    for b in y:
      low, has_low = _end(a.low, a.has_low, b.low, b.has_low, 1)
      high, has_high = _end(a.high, a.has_high, b.high, b.has_high, -1)
      order = _order(low, high)
      if order < 0 or order == 0 and has_low and has_high:
        found.append(Piece(low, high, has_low, has_high))
  return _joined(found)


def _end(x: Node, has_x: bool, y: Node, has_y: bool, sign: int
         ) -> tuple[Node, bool]:
  """The inner one of two ends: the larger (sign 1) or the smaller (-1)."""
  order = _order(x, y) * sign
  if order == 0:
    return x, has_x and has_y
  return (x, has_x) if order > 0 else (y, has_y)


def _difference(x: Pieces, y: Pieces) -> Pieces:
  for piece in y:
    rest = [Piece(_MINUS_INFINITY, piece.low, False, not piece.has_low),
            Piece(piece.high, _INFINITY, not piece.has_high, False)]
    x = _intersection(x, rest)
  return x
