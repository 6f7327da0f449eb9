"""What a tree says: the values of a list, their names, a vector's entries."""

import fractions

from r1jax.rewards.mathematics import syntax
from r1jax.rewards.mathematics import units
from r1jax.rewards.mathematics import values

Node = syntax.Node
Items = list[tuple[Node | None, Node]]  # names and values
MAX_ITEMS = 200
LISTS = ('list', 'any', 'all', 'set')
NAMES = ('symbol', 'words', 'apply')
_SETS = ('set', 'tuple', 'named', 'cup', 'cap', 'minus')
ROUND = ('()', r'\langle\rangle')


def items_of(node: Node) -> Items:
  """The values of a list or a set, or the one value, each with its name.

  x = 1, 2 are two values of x; 1 \\pm 2 are two values.
  """
  name, node = named(node)
  if name is not None and name.op == node.op == 'tuple' and (
      len(name.args) == len(node.args)):
    return list(zip(name.args[1:], node.args[1:]))
  parts = node.args if node.op in LISTS and node.args else (node,)
  found = []
  for part in _with_dots(parts):
    own, value = named(part)
    found += [(own or name, each) for each in _both_signs(value)]
  return found


def mixes_relations(node: Node) -> bool:
  """Whether it is a list such as x != 1, 2, of which 2 may be either."""
  if node.op not in LISTS:
    return False
  is_equation = lambda part: part.op != 'chain' or set(part.args[0]) == {'='}
  return len(set(map(is_equation, node.args))) > 1


def has_names(items: Items) -> bool:
  """Whether they are values of different things, as in x = 1, y = 2."""
  return len({name for name, _ in items}) > 1 and all(
      name is not None for name, _ in items)


def by_name(node: Node, items: Items) -> Items:
  """The values of y = 2, x = 1 in the order x, y; of a tuple in its own."""
  if node.op not in LISTS:
    return items
  return sorted(items, key=lambda item: repr(item[0]))


def entries_of(items: Items) -> Items:
  """(1, 2) as two items."""
  (_, node), = items
  if node.op != 'tuple' or node.args[0] not in ROUND:
    return items
  return [(None, entry) for entry in node.args[1:]]


def symbols(node: Node) -> set[Node]:
  return {Node('symbol', (name,)) for name in values.names(node)}


def is_same_function(x: Node, y: Node) -> bool:
  """Whether they are f(x) and f(n)."""
  return x.op == y.op == 'apply' and x.args[0] == y.args[0] and (
      len(x.args) == len(y.args)) and all(
          node.op == 'symbol' and node.args[0].islower()
          for node in (*x.args[1:], *y.args[1:]))


def renamed(node: Node, names: dict[Node, Node]) -> Node:
  """The tree with other variables."""
  return names.get(node) or syntax.replaced(node, lambda x: renamed(x, names))


def _with_dots(parts: tuple[Node, ...]) -> tuple[Node, ...]:
  """1, 3, ..., 9 as 1, 3, 5, 7, 9, where the steps are the same."""
  if Node('dots') not in parts:
    return parts
  place = parts.index(Node('dots'))
  around = parts[:place] + parts[place + 1:]
  if place < 2 or place == len(parts) - 1 or any(
      x.op != 'number' for x in around):
    return parts
  first, second, *_ = numbers = [x.args[0] for x in around]
  step = second - first
  count = (numbers[-1] - first) / step + 1 if step else 0
  if count.denominator != 1 or not len(numbers) <= count <= MAX_ITEMS:
    return parts
  whole = [first + n * step for n in range(int(count))]
  if whole[:place] + whole[place - len(numbers):] != numbers:
    return parts
  return tuple(Node('number', (value,)) for value in whole)


def named(node: Node) -> tuple[Node | None, Node]:
  """(x, 42) of x = 42 and of 42 = x; (None, the node) without a name."""
  if node.op != 'chain' or node.args[0][0] not in ('=', r'\in'):
    return None, node
  relations, sides = node.args
  if is_name(sides[0]) and len(sides) == 2 and (
      relations == ('=',) or sides[1].op in _SETS):
    return sides
  if set(relations) == {'='}:
    if is_name(sides[0]):
      return sides[0], Node('chain', (relations[1:], sides[1:]))
    if len(sides) == 2 and is_name(sides[1]):
      return sides[1], sides[0]
  return None, node


def is_name(node: Node) -> bool:
  """Whether it names what stands behind '=': x, f(x), (x, y), Area."""
  return node.op in NAMES or node == Node('constant', ('i',)) or (
      node.op == 'tuple' and all(x.op == 'symbol' for x in node.args[1:]))


def _both_signs(node: Node) -> list[Node]:
  """1 + x and 1 - x of 1 \\pm x."""
  if not (values.has(node, 'pm') or values.has(node, 'mp')):
    return [node]
  return [_signed(node, True), _signed(node, False)]


def _signed(node: Node, upper: bool) -> Node:
  node = syntax.replaced(node, lambda x: _signed(x, upper))
  if node.op not in ('pm', 'mp'):
    return node
  return node.args[0] if (node.op == 'pm') == upper else Node('neg', node.args)


def distributed(node: Node) -> Node:
  """A vector or matrix times a number, with the number in each entry."""
  if node.op not in ('neg', 'mul', 'div'):
    return node
  args = [distributed(x) for x in node.args]
  whole = [n for n, x in enumerate(args) if x.op in ('tuple', 'matrix')]
  if len(whole) != 1 or node.op == 'div' and whole != [0]:
    return node
  place, = whole
  scale = lambda entry: Node(
      node.op, (*args[:place], entry, *args[place + 1:]))
  kind, *entries = args[place].args
  if args[place].op == 'tuple':
    return Node('tuple', (kind, *map(scale, entries)))
  return Node('matrix', (kind, tuple(
      tuple(map(scale, row)) for row in entries[0])))


def column(node: Node) -> Node:
  """A column as the tuple of its entries."""
  if node.op != 'matrix' or node.args[0] != 'p' or len(node.args[1][0]) > 1:
    return node
  return Node('tuple', ('()', *(row[0] for row in node.args[1])))


def is_quantity(node: Node) -> bool:
  """Whether it is letters alone, such as m + n, |S| or sin A: a name of 42."""
  letters = [x.args[0] for x in syntax.walk(node) if x.op == 'symbol']
  is_logarithm = node.op == 'call' and node.args[0] in ('ln', 'log', 'exp')
  return bool(letters) and len(set(letters)) == len(letters) and not (
      is_logarithm) and not any(values.has(node, op) for op in (
          'number', 'decimal', 'constant', 'pow', 'neg', 'dots'))


def degrees_of(node: Node) -> Node:
  """-90^\\circ as degrees of -90."""
  if node.op == 'neg' and node.args[0].op == 'degree':
    return Node('degree', (Node('neg', node.args[0].args),))
  return node


def unit_and_value(node: Node) -> tuple[units.Unit | None, Node]:
  """(unit, value) of a quantity; a value alone has the unit None."""
  if node.op == 'degree':
    return units.DEGREE, node.args[0]
  if node.op == 'unit':
    value, unit = node.args
    return unit, value
  return None, node


def scaled(node: Node, factor: fractions.Fraction) -> Node:
  return Node('mul', (node, Node('number', (factor,))))
