"""The commands of LaTeX that are values, each read from the tokens behind it.

To add one: a function of the reader, and its line in `_READ`.
"""

import re
from typing import Any

from r1jax.rewards.mathematics import syntax

Node = syntax.Node
NotMathematics = syntax.NotMathematics
Reader = Any  # grammar.Reader; grammar imports this module

_INVERSE = ('sin', 'cos', 'tan', 'cot', 'sec', 'csc')
_FUNCTIONS = {rf'\{name}': name for name in (
    *_INVERSE, 'sinh', 'cosh', 'tanh', 'coth', 'arcsin', 'arccos', 'arctan',
    'arccot', 'arcsec', 'arccsc', 'log', 'ln', 'lg', 'exp', 'max', 'min',
    'gcd', 'lcm', 'abs', 'floor', 'ceil', 'cbrt', 'binomial', 'factorial')}
GREEK = frozenset(rf'\{name}' for name in (
    'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota '
    'kappa lambda mu nu xi rho varrho sigma varsigma tau upsilon phi varphi '
    'chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega '
    'ell hbar').split())
_SAME = {r'\varepsilon': r'\epsilon', r'\varphi': r'\phi',
         r'\vartheta': r'\theta', r'\varrho': r'\rho',
         r'\varsigma': r'\sigma'}
_ACCENTS = frozenset(rf'\{name}' for name in (
    'dot ddot hat bar vec overline underline tilde widehat mathbf boldsymbol '
    'bm mathcal mathbb mathfrak mathscr overrightarrow').split())
_BOLD = (r'\mathbf', r'\boldsymbol', r'\bm', r'\underline')
_NAMED = ('R', 'Z', 'N', 'Q', 'C')
_D_OVER = re.compile(r'(d|\\partial)(\^\d)?(.*)')
_D_UNDER = re.compile(r'(d|\\partial)([A-Za-z]|\\[a-z]+)(\^\d)?')


def starts_value(command: str) -> bool:
  return command in _READ and command != r'\dots'


def read(reader: Reader) -> Node:
  """The value that starts with the command at the reader's place."""
  command = reader.take()
  if command not in _READ:
    raise NotMathematics(f'the command {command}')
  return _READ[command](reader, command)


def plain_derivative(reader: Reader) -> Node | None:
  """dy/dx, typed plainly, which is no quotient of products."""
  over, sign, under = reader.texts(3)
  if sign == '/' and all(
      re.fullmatch('d[A-Za-z]', name) for name in (over, under)):
    reader.place += 3
    return Node('symbol', (f'd{over[1]}/d{under[1]}',))
  return None


def _fraction(reader: Reader, command: str) -> Node:
  del command
  place = reader.place
  if reader.at('{'):
    over = _D_OVER.fullmatch(reader.raw())
    under = reader.at('{') and _D_UNDER.fullmatch(reader.raw())
    if over and under:
      if not over[3]:
        raise NotMathematics('a derivative of nothing')
      return Node('symbol', ('/'.join(
          ''.join(filter(None, match.groups())) for match in (over, under)),))
  reader.place = place
  return Node('div', (reader.argument(), reader.argument()))


def _root(reader: Reader, command: str) -> Node:
  del command
  index = Node('number', (2,))
  if reader.at('['):
    reader.take()
    index = reader.enclosed(']')
  token = reader.peek()
  if token.kind == 'number' and len(token.text) > 1:
    raise NotMathematics(f'\\sqrt{token.text} is the root of one digit')
  return Node('root', (index, reader.argument()))


def _function(reader: Reader, command: str) -> Node:
  """\\sin^2 2t, \\log_{10} 250, max(1, 2): a function and its argument."""
  name, base, power = _FUNCTIONS[command], (), None
  while reader.at('_', '^'):
    if reader.take() == '_':
      base = (reader.argument(),)
    else:
      power = reader.exponent()
  if base and name != 'log':
    raise NotMathematics(f'{command} with an index')
  if power == Node('neg', (Node('number', (1,)),)):
    if name not in _INVERSE:
      raise NotMathematics(f'the inverse of {command}')
    name, power = f'arc{name}', None
  if reader.at('(', '[', '{', '|', r'\{'):
    inner = reader.atom()
    given = inner.args[1:] if inner.op == 'tuple' else (
        inner.args if inner.op == 'set' else (inner,))
  else:
    given = (_bare_argument(reader),)
  call = Node('call', (name, *given, *base))
  return call if power is None else Node('pow', (call, power))


def _bare_argument(reader: Reader) -> Node:
  """2t of \\sin 2t; what may be part of it or not is refused."""
  argument = reader.factor()
  ends = _FUNCTIONS.keys() | _ACCENTS
  while reader.peek().text not in ends and reader.follows(argument):
    if reader.at('(', '[', '{', '|'):
      raise NotMathematics('a bracket behind an argument without brackets')
    argument = syntax.times(argument, reader.power())
  if reader.at('/') and reader.peek(1).text not in _FUNCTIONS:
    raise NotMathematics('a quotient behind an argument without brackets')
  return argument


def _binomial(reader: Reader, command: str) -> Node:
  del command
  return Node('call', ('binomial', reader.argument(), reader.argument()))


def _rounded(reader: Reader, command: str) -> Node:
  name, end = {r'\lfloor': ('floor', r'\rfloor'),
               r'\lceil': ('ceil', r'\rceil')}[command]
  return Node('call', (name, reader.enclosed(end)))


def _matrix(reader: Reader, command: str) -> Node:
  del command
  kind = reader.raw()
  if kind not in ('pmatrix', 'bmatrix', 'vmatrix', 'matrix', 'array'):
    raise NotMathematics(f'the environment {kind}')
  if kind == 'array':
    reader.raw()
  rows, row = [], []
  while True:
    row.append(reader.expression())
    sign = reader.take('&', r'\\', r'\end')
    if sign == '&':
      continue
    rows.append(tuple(row))
    row = []
    if sign == r'\\' and reader.at(r'\end'):
      sign = reader.take()
    if sign == r'\end':
      break
  if reader.raw() != kind or len({len(row) for row in rows}) > 1:
    raise NotMathematics('rows of one matrix differ')
  return Node('matrix', ('v' if kind == 'vmatrix' else 'p', tuple(rows)))


def _symbol(reader: Reader, command: str) -> Node:
  return reader.symbol(_SAME.get(command, command))


def _accented(reader: Reader, command: str) -> Node:
  token = reader.peek()
  if token.text == '{':
    inner = reader.raw()
  else:
    inner = reader.take()
  if command == r'\mathbb' and inner in _NAMED:
    return Node('named', (inner,))
  if command in _BOLD and inner.isascii() and inner.isdigit():
    return Node('number', (int(inner),))
  return reader.symbol(f'{command}({inner})')


def _angle(reader: Reader, command: str) -> Node:
  """\\angle ABC: one symbol."""
  name = command
  while reader.peek().kind == 'letters':
    name += reader.take() + reader.index()
  return Node('symbol', (name,))


def _infinity(reader: Reader, command: str) -> Node:
  del reader, command
  return Node('constant', ('oo',))


def _empty(reader: Reader, command: str) -> Node:
  del reader, command
  return Node('set')


def _dots(reader: Reader, command: str) -> Node:
  del reader, command
  return Node('dots')


_READ = {
    r'\frac': _fraction, r'\sqrt': _root, r'\binom': _binomial,
    r'\lfloor': _rounded, r'\lceil': _rounded, r'\begin': _matrix,
    r'\infty': _infinity, r'\emptyset': _empty, r'\dots': _dots,
    r'\angle': _angle, r'\triangle': _angle,
    **dict.fromkeys([r'\pi', *GREEK], _symbol),
    **dict.fromkeys(_ACCENTS, _accented),
    **dict.fromkeys(_FUNCTIONS, _function),
}
