"""The grammar of an answer: values, their units, relations, and lists of them.

A run of letters such as 'mn' is a product only where each of them is known as
a variable (those of the reference); 'not' is a word. Words are read only as a
unit behind a value, as the name before '=', and as 'and' and 'or'.
"""

from collections.abc import Collection
import re

from r1jax.rewards.mathematics import grammar
from r1jax.rewards.mathematics import syntax
from r1jax.rewards.mathematics import units

Node = syntax.Node
NotMathematics = syntax.NotMathematics

RELATIONS = ('=', '<', '>', r'\le', r'\ge', r'\ne', r'\in', r'\approx')
_CURRENCIES = (r'\$', '€', '£', '¥')
_JOINTS = {'and': 'all', 'or': 'any', r'\wedge': 'all', r'\vee': 'any'}
_UNIT_SIGNS = ('/', '*', '%', '.', r'\$', "'")
_LETTERS = re.compile(r'\\[A-Za-z]+|[A-Za-z]+')
_NAME = re.compile(r"[A-Za-z][A-Za-z' ]*")
_PLAIN_UNIT = re.compile(
    r'(.*?(?:[\d})]|\\pi))\s+([A-Za-z][A-Za-z /^*{}\d-]*)', re.ASCII)
_UNIT_STYLE = re.compile(r'\s*\\(?:mathrm|text)\s*\{\s*([^{}]*)\}')
_UNIT_FRACTION = re.compile(
    r'\\frac\{([A-Za-z ]+(?:\^\d)?)\}\{([A-Za-z ]+(?:\^\d)?)\}')
_MAX_PRODUCT = 5  # letters in a row


def parse(text: str, letters: Collection[str] | None = None, *,
          nouns: Collection[str] = ()) -> Node:
  """The tree of a `clean` text, read to its last sign.

  Args:
    text: an answer.
    letters: the variables that may stand side by side; None: any, of a
      reference.
    nouns: words that are units, too.

  Raises:
    NotMathematics: it is something else.
  """
  def is_product(run: str) -> bool:
    if run in _JOINTS:
      return False
    if letters is None:
      return len(run) <= _MAX_PRODUCT
    return all(letter in letters or letter in 'ei' for letter in run)

  try:
    return _parse(text, grammar.Reading(is_product, True, nouns))
  except NotMathematics:
    return _parse(text, grammar.Reading(is_product, False, nouns))


def with_unit(text: str) -> Node | None:
  """'5 m/s' as a value and its unit, where letters could be variables."""
  text = _UNIT_STYLE.sub(r' \1', text.replace('\\Omega', 'ohm'))
  text = re.sub(r'\\mu\s*(?=[mgsLFC]\b)', 'u', text.replace('\\cdot', ' '))
  match = _PLAIN_UNIT.fullmatch(_UNIT_FRACTION.sub(r'\1/\2', text))
  if not match:
    return None
  unit = units.parse(match[2])
  if unit is None:
    return None
  try:
    value = parse(match[1], ())
  except NotMathematics:
    return None
  return None if variables(value) else Node('unit', (value, unit))


def variables(node: Node) -> set[str]:
  """The letters of the symbols and functions in a tree."""
  found = {x.args[0] for x in syntax.walk(node) if x.op in ('symbol', 'apply')}
  return found.union(*map(_LETTERS.findall, found))


def _parse(text: str, reading: grammar.Reading) -> Node:
  reader = grammar.Reader(syntax.tokenize(text), reading, _item)
  result = _list(reader)
  if reader.peek().kind != 'end':
    raise NotMathematics(f'{reader.peek().text!r} is left over')
  return result


def _list(reader: grammar.Reader) -> Node:
  """Items between commas, semicolons, 'and' and 'or'."""
  items, joints = [_chain(reader)], set()
  while True:
    joint = 'list' if reader.at(',', ';') else _JOINTS.get(
        reader.peek().text.lower())
    if joint is None:
      break
    reader.take()
    if joint == 'list' and reader.peek().text.lower() in _JOINTS:
      joint = _JOINTS[reader.take().lower()]
    joints.add(joint)
    items.append(_chain(reader))
  if len(items) == 1:
    return items[0]
  words = joints - {'list'}
  if len(words) > 1:
    raise NotMathematics("'and' beside 'or'")
  return Node(words.pop() if words else 'list', tuple(items))


def _chain(reader: grammar.Reader) -> Node:
  """x = 1, 1 < x <= 2; or one value."""
  sides, relations = [_side(reader)], []
  while reader.at(*RELATIONS):
    relations.append(reader.take())
    sides.append(_item(reader))
  if relations:
    return Node('chain', (tuple(relations), tuple(sides)))
  if sides[0].op == 'words':
    raise NotMathematics(f'the words {sides[0].args[0]!r}')
  return sides[0]


def _side(reader: grammar.Reader) -> Node:
  """The left side of a relation: a value, or the name of one in words."""
  place, names = reader.place, []
  while reader.peek().kind in ('words', 'letters'):
    names.append(reader.take())
  name = ' '.join(names)
  if reader.at('=', ':', r'\approx') and len(name) > 1 and (
      _NAME.fullmatch(name)) and units.is_name(name):
    is_product = reader.reading.is_product
    if reader.at(':'):
      reader.tokens[reader.place] = syntax.Token('sign', '=')
      return Node('words', (name,))
    if reader.tokens[place].kind == 'words' or not all(map(is_product, names)):
      return Node('words', (name,))
  reader.place = place
  return _item(reader)


def _item(reader: grammar.Reader) -> Node:
  """An expression and its unit."""
  negative = reader.texts(1) == ['-'] and reader.peek(1).text in _CURRENCIES
  if negative:
    reader.take()
  found = set()
  if reader.peek().text in _CURRENCIES:
    found.add(units.parse(reader.take()))
  value = reader.expression()
  if negative:
    value = Node('neg', (value,))
  number, text = units.number_word(_unit(reader))
  if number != 1:
    value = Node('mul', (value, Node('number', (number,))))
  if text:
    unit = units.parse(text, reader.reading.nouns)
    if found and unit and text.startswith(('/', 'per ')):  # $5 per hour
      unit = found.pop().times(unit, 1)
    found.add(unit)
  if not found:
    return value
  if len(found) > 1 or None in found:
    raise NotMathematics(f'{text!r} is no unit')
  return Node('unit', (value, found.pop()))


def _unit(reader: grammar.Reader) -> str:
  """The text of the unit at the reader's place, '' if there is none."""
  parts = []
  while True:
    token = reader.peek()
    if token.text.lower() in _JOINTS:
      break
    if token.kind in ('words', 'letters'):
      parts += [' ', reader.take()]
    elif units.is_chinese(token.text):
      parts.append(reader.take())
    elif token.text in _UNIT_SIGNS:
      parts.append(reader.take())
    elif token.text == '^' and parts or reader.texts(2) in (
        ['^', "'"], ['^', '{']) and not parts:
      reader.take()
      exponent = (reader.raw() if reader.at('{') else
                  (reader.take() if reader.at('-') else '') + reader.take())
      parts.append(exponent if "'" in exponent else f'^{exponent}')
    else:
      break
  return ''.join(parts).strip()
