"""The tokens of an answer, and the nodes of an expression tree."""

from collections.abc import Callable, Iterator
from fractions import Fraction
import re
from typing import Any, NamedTuple

from r1jax.rewards.mathematics import units


class NotMathematics(ValueError):
  """A text that the grammar does not consume to its last sign."""


class Node(NamedTuple):
  """An expression: an operation and its arguments.

      number   (Fraction)       decimal  (Fraction, places behind the point)
      based    (digits, base)   constant ('pi' | 'e' | 'i' | 'oo')
      symbol   (name)           apply    (name, *arguments), unknown function
      add, mul (*terms)         div, pow (x, y)        neg, pm, mp (x)
      ordered (x, sign, y), a product of vectors or matrices
      root     (n, x)           call     (name, *arguments)
      degree   (x)              named    ('R'), a set of numbers
      list     (*items)         set      (*items)      tuple (brackets, *items)
      matrix   (kind, rows)     dots     ()
      cup, cap, minus (x, y)    unit     (x, units.Unit)     words (text)
      chain    (relations, sides), such as x = 1 or 1 < x <= 2
  """
  op: str
  args: tuple[Any, ...] = ()


class Token(NamedTuple):
  """A number ('number', 'repeating', 'dotted', 'based'), 'letters', 'words' (in
  \\text), a 'command', a 'sign', or the 'end'."""
  kind: str
  text: str
  spaced: bool = False  # white space stands before it


_TEXT = re.compile(
    r'\\(?:text|textrm|textnormal|textit|textbf|textsf|texttt|mbox|hbox|mathrm|'
    r'mathit|mathsf|operatorname\*?|bf|rm)(?![A-Za-z])\s*')
_MAX_NUMBER = 2000  # signs
_NUMBER = r'(?:\d+(?:\.\d+)?|\.\d+)'
_TOKEN = re.compile('|'.join([
    r'(?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot)\s*\{?\d+\}?|\(\d+\)))',
    r'(?P<dotted>\d*\.\d+)\s*(?:\.\.\.|\\l?dots)',
    r'(?<![\w^}])(?P<based>\d+(?=\s*_)|\d[\dA-F]*(?=\s*_\s*\{\s*1[1-6]\s*\}))'
    r'\s*_\s*'
    r'(?:\{\s*(?P<base>\d+)\s*\}|(?P<base1>\d))',
    rf'(?P<number>{_NUMBER}(?:[eE][+-]?\d+)?|\d+\.(?!\.))',
    r'(?P<command>\\(?:[A-Za-z]+|.))',
    r'(?P<letters>[A-Za-z]+)',
    r'(?P<sign>\*\*|\.\.\.|[<>]=|(?<![\d)])!=|\S)']), re.ASCII | re.DOTALL)
_THOUSANDS = re.compile(
    r'(?<![\d.,^_])\d{1,3}(?:,\d{3})+(?![\d,])|'
    r'(?<![\d.,] )(?<![\d.,^_])\d{1,3}(?: \d{3})+(?![\d,.]|\s\d)', re.ASCII)

_VECTOR = re.compile(
    r'\\(?:vec|mathbf|bm|boldsymbol|overrightarrow)\(|\\hat\([ijknrxyz]\)')

# Words and signs that are one of the commands.
_COMMANDS = {name: '\\' + name for name in (
    'sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'sinh', 'cosh', 'tanh', 'arcsin',
    'arccos', 'arctan', 'log', 'ln', 'exp', 'sqrt', 'pi', 'max', 'min', 'gcd',
    'lcm', 'theta', 'alpha', 'beta', 'gamma', 'lambda', 'mu', 'sigma',
    'omega', 'rho', 'tau', 'phi', 'infty')} | {
        'asin': r'\arcsin', 'acos': r'\arccos', 'atan': r'\arctan',
        'inf': r'\infty', 'infinity': r'\infty', 'oo': r'\infty',
        'abs': r'\abs', 'Abs': r'\abs', 'floor': r'\floor', 'ceil': r'\ceil',
        'cbrt': r'\cbrt', 'union': r'\cup', 'lg': r'\lg',
        'binom': r'\binomial', 'binomial': r'\binomial',
        'factorial': r'\factorial'}
_UNITS_TOO = ('min', 'max', 'sec')  # functions only before a parenthesis
_SIGNS = {
    r'\cdot': '*', r'\times': '×', r'\ast': '*', r'\div': '/', '**': '^',
    r'\leq': r'\le', r'\leqslant': r'\le', r'\geq': r'\ge',
    r'\geqslant': r'\ge', '<=': r'\le', '>=': r'\ge', '!=': r'\ne',
    r'\neq': r'\ne', r'\lt': '<', r'\gt': '>', r'\lvert': '|', r'\rvert': '|',
    r'\vert': '|', r'\lbrack': '[', r'\rbrack': ']', r'\lbrace': r'\{',
    r'\rbrace': r'\}', r'\varnothing': r'\emptyset', r'\ldots': r'\dots',
    r'\cdots': r'\dots', '...': r'\dots', r'\dbinom': r'\binom',
    r'\tbinom': r'\binom', r'\bigcup': r'\cup', r'\backslash': r'\setminus',
    r'\colon': ':', r'\prime': "'",
    r'\simeq': r'\approx', r'\lparen': '(',
    r'\rparen': ')', r'\land': r'\wedge', r'\lor': r'\vee', r'\ni': r'\in'}


def times(x: Node, y: Node, sign: str = '*') -> Node:
  """Their product; that of vectors or matrices has an order and a sign."""
  if _has_order(y) and _has_order(x):
    return Node('ordered', (x, sign, y))
  return Node('mul', (*(x.args if x.op == 'mul' else (x,)), y))


def _has_order(node: Node) -> bool:
  """Whether there is a vector or a matrix in it."""
  return any(each.op in ('matrix', 'tuple') or (
      each.op == 'symbol' and _VECTOR.match(each.args[0]))
             for each in walk(node))


def walk(tree: Any) -> Iterator[Node]:
  """Every node of a tree, those in the rows of a matrix and in chains, too."""
  if isinstance(tree, Node):
    yield tree
    tree = tree.args
  if type(tree) is tuple:
    for arg in tree:
      yield from walk(arg)


def replaced(node: Node, change: Callable[[Node], Node]) -> Node:
  """The node with `change` of each node directly within it."""
  def of(arg: Any) -> Any:
    if isinstance(arg, Node):
      return change(arg)
    return tuple(map(of, arg)) if type(arg) is tuple else arg
  return Node(node.op, of(node.args))


def tokenize(text: str) -> list[Token]:
  """The tokens of a text from `text.clean`.

  Raises:
    NotMathematics: a \\text without its end.
  """
  text = _THOUSANDS.sub(_joined, text)
  tokens, place = [], 0
  while place < len(text):
    spaced = text[place].isspace()
    if spaced:
      place += 1
      while place < len(text) and text[place].isspace():
        place += 1
      if place == len(text):
        break
    words = _TEXT.match(text, place)
    if words:
      content, place = _group(text, words.end())
      tokens += _text_tokens(words[0].strip(), content, tokens, spaced)
      continue
    match = _TOKEN.match(text, place)
    place = match.end()
    tokens.append(_token(match, spaced))
  return tokens


def _joined(match: re.Match) -> str:
  """'1,234' -> '1234', but in brackets, where commas separate, as it is."""
  before = match.string[:match.start()]
  closed = re.sub(r'\\?[(\[][^()\[\]]*\\?[)\]]', '', before)
  within = re.search(r'[(\[]|\\\{', closed)
  return match[0] if within else re.sub('[, ]', '', match[0])


def _group(text: str, place: int) -> tuple[str, int]:
  """The content of the braces at `place`, or one sign; the place behind."""
  if text[place:place + 1] != '{':
    if place >= len(text):
      raise NotMathematics('a text has no content')
    return text[place], place + 1
  depth = 0
  for end in range(place, len(text)):
    depth += {'{': 1, '}': -1}.get(text[end], 0)
    if not depth:
      return text[place + 1:end], end + 1
  raise NotMathematics('a text has no end')


def _text_tokens(command: str, content: str, before: list[Token],
                 spaced: bool) -> list[Token]:
  r"""\mathrm{e} is a letter, \mathrm{2x} what it holds, \text{cm} a word."""
  plain, spaced = content.strip(), spaced or content[:1].isspace()
  if plain in _COMMANDS and plain not in _UNITS_TOO:
    return [Token('command', _COMMANDS[plain], spaced)]
  if re.fullmatch('[A-Za-z]', plain):
    is_unit = before and (before[-1].text[-1:] in '0123456789})'
                          or before[-1].text == r'\pi') and (
        command != r'\mathrm' or plain not in 'dei')
    return [Token('words' if is_unit else 'letters', plain, spaced)]
  is_formula = command in (r'\mathrm', r'\mathit') and (
      not re.fullmatch('[A-Za-z ]*', plain) and units.parse(plain) is None)
  if is_formula or re.fullmatch(_NUMBER, plain, re.ASCII):
    return [Token('sign', '{'), *tokenize(plain), Token('sign', '}')]
  return [Token('words', plain, spaced)]


def _token(match: re.Match, spaced: bool) -> Token:
  kind, text = match.lastgroup, match[0]
  if kind in ('base', 'base1'):
    return Token('based', f'{match["based"]}_{match["base"] or match["base1"]}',
                 spaced)
  if kind == 'dotted':
    return Token('dotted', match['dotted'], spaced)
  if kind == 'letters' and text in _COMMANDS and (
      text not in _UNITS_TOO or match.string[match.end():].startswith('(')):
    return Token('command', _COMMANDS[text], spaced)
  if kind == 'command' and text in (r'\{', r'\}'):
    return Token('sign', text, spaced)
  text = _SIGNS.get(text, text)
  if kind in ('command', 'sign'):
    kind = 'command' if re.match(r'\\[A-Za-z]', text) else 'sign'
  return Token(kind, text, spaced)


def number(text: str) -> Node:
  """'1.5e3' -> Node('decimal', (1500, -2)); '42' -> Node('number', (42,)).

  Raises:
    NotMathematics: it is longer than every number in use.
  """
  if len(text) > _MAX_NUMBER:
    raise NotMathematics(f'a number of {len(text)} signs')
  mantissa, _, exponent = text.lower().partition('e')
  if len(exponent) > 5:  # its sign included
    raise NotMathematics(f'an exponent of {len(exponent)} digits')
  value = Fraction(mantissa.rstrip('.')) * Fraction(10) ** int(exponent or 0)
  places = len(mantissa.rstrip('.').partition('.')[2]) - int(exponent or 0)
  given = '.' in mantissa.rstrip('.') or exponent
  return Node('decimal', (value, places)) if given else Node('number', (value,))


def repeating(text: str) -> Node:
  r"""'0.1\overline{6}' and '0.1(6)' -> 1/6."""
  whole, _, rest = text.partition('.')
  digits, period = re.fullmatch(r'(\d*)\D+(\d+)\D*', rest).groups()
  value = Fraction(int(whole + digits or 0), 10 ** len(digits))
  nines = (10 ** len(period) - 1) * 10 ** len(digits)
  return Node('number', (value + Fraction(int(period), nines),))


def dotted(text: str) -> Node:
  r"""'0.333\dots' -> 1/3.

  Raises:
    NotMathematics: its digits have no period that can be seen.
  """
  whole, _, digits = text.partition('.')
  match = re.fullmatch(r'(\d*?)(\d{1,6}?)\2+', digits, re.ASCII)
  if not match:
    raise NotMathematics('digits that go on')
  first, period = match.groups()
  if len(digits) - len(first) < 3:  # 0.33... may as well be 0.3349
    raise NotMathematics('digits that go on')
  return repeating(f'{whole}.{first}({period})')


def based(text: str) -> Node:
  """'21_4' -> Node('based', ('21', 4)), and '21_{10}' -> 21.

  Raises:
    NotMathematics: a digit is not one of the base.
  """
  digits, _, base = text.partition('_')
  try:
    value = int(digits, int(base))
  except ValueError as error:
    raise NotMathematics(f'{text} is no number') from error
  if int(base) == 10:
    return Node('number', (Fraction(value),))
  return Node('based', (digits.lstrip('0'), int(base)))


LITERALS = {'number': number, 'repeating': repeating, 'dotted': dotted,
            'based': based}
