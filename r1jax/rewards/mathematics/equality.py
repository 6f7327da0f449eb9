"""Is an answer the reference? By mathematics, where both are mathematics."""

import fractions
import functools
import itertools
import re

from r1jax.rewards.mathematics import sets
from r1jax.rewards.mathematics import statements
from r1jax.rewards.mathematics import syntax
from r1jax.rewards.mathematics import text
from r1jax.rewards.mathematics import trees
from r1jax.rewards.mathematics import units
from r1jax.rewards.mathematics import values

Node = syntax.Node
_WORDS = ('no', 'up', 'on', 'in', 'to', 'at', 'by', 'if', 'or', 'so', 'go')


def equal(answer: str, reference: str, tolerance: float = 0.,
          question: str = '') -> bool:
  """Whether the answer means the reference.

  Both may have a frame ("The answer is 42."), marks ($42$, **42**) and a unit;
  units that both have must agree. A list without brackets, and a set, has no
  order; what is in round brackets has one. Anything else that is said, or that
  the grammar does not know, makes the answer wrong, unless it is the same text
  as the reference.

  Args:
    answer: as it was extracted from a response.
    reference: a right answer, as a data set gives it.
    tolerance: relative, of decimals; 0: the digits that are given.
    question: its words may be units: 42 clips.

  Raises:
    ValueError: the reference is blank.
  """
  given, wanted = text.clean(answer), text.clean(reference)
  if not wanted:
    raise ValueError(f'the reference {reference!r} is not mathematics')
  if text.compact(given) == text.compact(wanted):
    return True
  nouns = units.question_words(question)
  readings = _readings(wanted, nouns)
  letters = frozenset().union(*map(statements.variables, readings))
  texts = [given] if readings else []
  if readings and readings[0].op in trees.LISTS and ',' in given:
    texts.append(given.replace(',', ', '))  # 200,100 may be two numbers
  for each in texts:
    for tree in _parsed(each, letters, nouns):
      if any(_same(wants, tree, tolerance) for wants in readings
             if wants is readings[0] or tree.op == 'unit'):
        return True
  if not readings or text.is_choice(text.compact(wanted)):
    said = text.words(wanted)
    return said is not None and said in (
        text.words(given), re.sub(r'\\cdot|[\s*]', '', given))  # a b c
  return False


@functools.lru_cache(maxsize=4096)
def _readings(reference: str, nouns: frozenset[str]) -> tuple[Node, ...]:
  """The trees of a reference; (): it is words.

  The m of '6 m' is a variable, and a unit only beside an answer with a unit.
  """
  unit = statements.with_unit(reference)
  if unit is not None and sum(map(str.isalpha, reference)) > 1:
    return (unit,)
  if re.fullmatch('[^\\W\\d_]{3,}', reference) or reference.lower() in _WORDS:
    return ()  # 'east' is no product
  try:
    tree = statements.parse(reference, nouns=nouns)
  except syntax.NotMathematics:
    return ()
  return (tree,) if unit is None else (tree, unit)


def _parsed(answer: str, letters: frozenset[str], nouns: frozenset[str]
            ) -> list[Node]:
  """The trees of an answer: with letters as variables, and as units."""
  found = []
  try:
    found.append(statements.parse(answer, letters, nouns=nouns))
  except syntax.NotMathematics:
    pass  # it is words, or a value with a unit
  unit = statements.with_unit(answer)
  return found if unit is None else [*found, unit]


def _same(x: Node, y: Node, tolerance: float) -> bool:
  """Whether the reference x and the answer y are the same statement."""
  if Node('set') in (trees.named(x)[1], trees.named(y)[1]):
    return trees.named(x)[1] == trees.named(y)[1]
  if _same_sets(x, y, tolerance) or _same_equation(x, y):
    return True
  if y.op == 'any' and len(trees.items_of(x)) == 1 and len(y.args) < 4:
    return all(_same(x, each, tolerance) for each in y.args)  # 26/5 or 5.2
  if trees.mixes_relations(x) or trees.mixes_relations(y):
    return x == y
  if {x.op, y.op} == {'any', 'all'} and 'chain' in {n.op for n in x.args}:
    return False  # x < 2 or x > 3 is not x < 2 and x > 3
  items_x, items_y = trees.items_of(x), trees.items_of(y)
  ordered = trees.has_names(items_x) and not any(name for name, _ in items_y)
  if ordered and len(items_y) == 1:
    items_x = trees.by_name(x, items_x)
    items_y = trees.entries_of(items_y)
  elif trees.has_names(items_y) and len(items_x) == 1:
    items_x, ordered = trees.entries_of(items_x), True
    items_y = trees.by_name(y, items_y)
  if len(items_x) != len(items_y) or len(items_x) > trees.MAX_ITEMS:
    return False
  same = functools.partial(_same_named, tolerance=tolerance)
  if ordered or Node('dots') in [item for _, item in items_x]:
    return all(map(same, items_x, items_y))
  rest = list(items_y)
  for wanted in items_x:
    found = next((n for n, item in enumerate(rest) if same(wanted, item)), None)
    if found is None:
      return False
    del rest[found]
  return True


def _same_named(x: tuple[Node | None, Node], y: tuple[Node | None, Node],
                tolerance: float) -> bool:
  """Whether two values are the same, and their names, if both have one."""
  (name_x, x), (name_y, y) = x, y
  if name_x is None and name_y in trees.symbols(y):
    return False  # x = x^2 + 1 is an equation
  if name_x is not None and name_y is None and y.op == 'chain' and (
      trees.is_quantity(y.args[1][0])):
    return False  # |x| = 5 is not x = 5
  named = name_x and name_y and (name_x.op == 'words') == (
      name_y.op == 'words')
  if named and name_x != name_y:
    if not trees.is_same_function(name_x, name_y):
      return False
    if trees.symbols(y) & set(name_x.args[1:]):
      return False  # f(z) = 2x
    y = trees.renamed(y, dict(zip(name_y.args[1:], name_x.args[1:])))
  return _same_item(x, y, tolerance)


def _same_sets(x: Node, y: Node, tolerance: float) -> bool:
  """Whether both are sets of reals, and the same one."""
  (name_x, set_x), (name_y, set_y) = map(trees.named, (x, y))
  found = [sets.pieces(node) for node in (set_x, set_y)]
  if None in found or {set_x.op, set_y.op} <= {'tuple', 'set'}:
    return False
  names = {name_x or sets.variable(set_x), name_y or sets.variable(set_y)}
  return len(names - {None}) < 2 and sets.same(
      *found, lambda a, b: values.equal(a, b, tolerance))


def _same_equation(x: Node, y: Node) -> bool:
  """Whether two equations in several variables are multiples."""
  if any(node.op != 'chain' or node.args[0] != ('=',) for node in (x, y)):
    return False
  if len(set().union(*map(values.names, x.args[1]))) < 2:
    return False
  return values.proportional(*(
      Node('add', (left, Node('neg', (right,))))
      for left, right in (x.args[1], y.args[1])))


def _same_item(x: Node, y: Node, tolerance: float) -> bool:
  """Whether two values are the same: numbers, quantities, tuples, ..."""
  same = functools.partial(_same_item, tolerance=tolerance)
  if x.op == 'chain' or y.op == 'chain':
    return _same_chain(x, y, tolerance)
  if {'unit', 'degree'} & {trees.degrees_of(x).op, trees.degrees_of(y).op}:
    return _same_quantity(trees.degrees_of(x), trees.degrees_of(y), tolerance)
  if values.has(x, 'based') or values.has(y, 'based'):
    return x == y  # 21_4 is not 9, where base 4 is asked for
  x, y = trees.distributed(x), trees.distributed(y)
  if 'matrix' in (x.op, y.op):
    x, y = trees.column(x), trees.column(y)
    if x.op == y.op == 'matrix':
      return x.args[0] == y.args[0] and list(map(len, x.args[1])) == list(
          map(len, y.args[1])) and all(map(
              same, itertools.chain(*x.args[1]), itertools.chain(*y.args[1])))
  if x.op == y.op == 'tuple':
    brackets = [node.args[0] for node in (x, y)]
    alike = brackets[0] == brackets[1] or set(brackets) <= set(trees.ROUND)
    return alike and (
        len(x.args) == len(y.args)) and all(map(same, x.args[1:], y.args[1:]))
  if {x.op, y.op} <= set(trees.LISTS):
    return x == y or bool(x.args and y.args) and _same(x, y, tolerance)
  return _same_sets(x, y, tolerance) or values.equal(x, y, tolerance)


def _same_chain(x: Node, y: Node, tolerance: float) -> bool:
  """a = b = c is the reference if each side is; a < b if it says the same."""
  if x.op == 'chain':
    return y.op == 'chain' and (_same_sets(x, y, tolerance) or (
        x.args[0] == y.args[0] and all(
            _same_item(*pair, tolerance)
            for pair in zip(x.args[1], y.args[1])))
        or _same_equation(x, y))
  relations, sides = y.args
  if not set(relations) <= {'=', r'\approx'}:
    return _same_sets(x, y, tolerance)
  if relations[-1] == r'\approx' and _is_rounded(*sides[-2:]):
    if x.op == 'decimal' and _same_item(x, sides[-1], tolerance):
      return True
    if trees.is_name(sides[-2]):  # x ~ 42 is not 42
      return False
    relations, sides = relations[:-1], sides[:-1]
  if relations and trees.is_quantity(sides[0]) and not values.names(x):
    relations, sides = relations[1:], sides[1:]
  return r'\approx' not in relations and all(
      _same_item(x, side, tolerance) for side in sides)


def _is_rounded(exact: Node, rounded: Node) -> bool:
  """Whether the second is a decimal, and the first rounded to its digits."""
  rounded = rounded.args[0] if rounded.op == 'unit' else rounded
  if exact.op in trees.NAMES:
    return True
  if rounded.op != 'decimal':
    return False
  _, places = rounded.args
  error = Node('call', ('abs', Node('add', (exact, Node('neg', (rounded,))))))
  half = Node('number', (fractions.Fraction(10) ** -places / 2,))
  return values.order(error, half) == -1


def _same_quantity(x: Node, y: Node, tolerance: float) -> bool:
  """Compares values with their units; one that has none has the other's."""
  same = functools.partial(_same_item, tolerance=tolerance)
  (unit_x, v), (unit_y, w) = trees.unit_and_value(x), trees.unit_and_value(y)
  if unit_x is not None and unit_y is not None:
    if unit_x.powers != unit_y.powers or unit_x == unit_y:
      return unit_x == unit_y and same(v, w)
    return values.equal(trees.scaled(v, unit_x.factor),
                        trees.scaled(w, unit_y.factor), tolerance)
  if unit_y in units.PRIMES:
    return False  # 5' is not 5
  if units.PERCENT in (unit_x, unit_y):
    percent = fractions.Fraction(1, 100)
    hundredth = [trees.scaled(value, percent) if unit else value
                 for value, unit in ((v, unit_x), (w, unit_y))]
    # 50% may be 50, of a question that asks for per cent; 0.5% is not 0.5.
    below_one = Node('number', (fractions.Fraction(99, 100),))
    return same(*hundredth) or same(v, w) and values.order(
        Node('call', ('abs', v)), below_one) == 1
  if same(v, w):
    return True
  return 'degree' in (x.op, y.op) and values.equal(x, y, tolerance)


