"""The grammar of an expression: tokens in, a tree out.

It reads LaTeX as models and data sets write it, and what is typed plainly:
'\\frac{1}{2}', '1/2', '2**10', 'sqrt(2)'. What it does not know is refused,
never skipped. Precedence is the usual one: a product without a sign binds as
one with it, so that 1/2x is x/2.
"""

from collections.abc import Collection
from typing import Callable, NamedTuple

from r1jax.rewards.mathematics import commands
from r1jax.rewards.mathematics import syntax
from r1jax.rewards.mathematics import units
from r1jax.rewards.mathematics import values

Node = syntax.Node
NotMathematics = syntax.NotMathematics

_MAX_DEPTH = 50  # of brackets, commands, exponents, quotients within others
_LOOKAHEAD = 5  # tokens, more than any rule looks at
_END = syntax.Token('end', '')
_CALLED = ('f', 'u', r'\delta', r'\Gamma')  # f(a + 1) is no product,
_MAYBE_CALLED = ('g', 'h')  # nor is g(x + 1), but g(a + 1) is one
_ARGUMENTS = ('x', 'y', 'z', 't', 'n', 's')
_CLOSING = {'(': (')', ']'), '[': (']', ')'), r'\{': (r'\}',),
            r'\langle': (r'\rangle',)}
_SIGNS = {'+': None, '-': 'neg', r'\pm': 'pm', r'\mp': 'mp'}
_SETS = {r'\cup': 'cup', r'\cap': 'cap', r'\setminus': 'minus', 'U': 'cup'}


class Reading(NamedTuple):
  """How letters are read, which the text alone does not say."""
  is_product: Callable[[str], bool]  # whether a run, 'mn', is m times n
  units: bool  # a run behind a number and a space is a unit: 5 cm
  nouns: Collection[str] = ()  # words that are units, too


class Reader:
  """Reads expressions at a place in a list of tokens.

  Every method but `at`, `peek` and `last` moves on behind what it returns, and
  raises NotMathematics where the text is something else.
  """

  def __init__(self, tokens: list[syntax.Token], reading: Reading,
               item: Callable[['Reader'], Node]):
    """`item` reads an item of a tuple or a set, which may have a unit."""
    self.tokens = tokens + [_END] * _LOOKAHEAD
    self.reading = reading
    self.place = 0
    self._item = item
    self._depth = 0
    self._bars = 0  # | that are open
    self._nested = 0  # quotients and unions, each within the next

  def peek(self, ahead: int = 0) -> syntax.Token:
    """The next token; at the end, one that is nothing."""
    return self.tokens[self.place + ahead]

  def texts(self, count: int) -> list[str]:
    """The next `count` tokens' texts."""
    return [self.peek(n).text for n in range(count)]

  def at(self, *texts: str) -> bool:
    """Whether the next token is one of these signs or commands."""
    token = self.peek()
    return token.kind in ('sign', 'command') and token.text in texts

  def last(self) -> str:
    return self.tokens[self.place - 1].text if self.place else ''

  def take(self, *texts: str) -> str:
    """The next token's text, one of `texts` if any are given."""
    token = self.peek()
    if texts and token.text not in texts or token.kind == 'end':
      raise NotMathematics(f'expected {texts}, found {token.text!r}')
    self.place += 1
    return token.text

  def expression(self) -> Node:
    """Unions, intersections and differences of sums; {1 \\over 2}."""
    left = self._sum()
    if self.at(r'\over', r'\choose'):
      is_quotient = self.take() == r'\over'
      below = self._sum()
      return Node('div', (left, below)) if is_quotient else Node(
          'call', ('binomial', left, below))
    while self.peek().text in _SETS and (
        self.peek().text != 'U' or self.last() in (')', ']', r'\}')):
      left = self._nest(_SETS[self.take()], left, self._sum())
    return left

  def _nest(self, op: str, left: Node, right: Node) -> Node:
    self._nested += 1
    if self._nested > _MAX_DEPTH:
      raise NotMathematics(f'more than {_MAX_DEPTH} quotients and unions')
    return Node(op, (left, right))

  def _sum(self) -> Node:
    terms = []
    while not terms or self.at(*_SIGNS):
      op = _SIGNS[self.take()] if self.at(*_SIGNS) else None
      term = self._product()
      terms.append(Node(op, (term,)) if op else term)
    return terms[0] if len(terms) == 1 else Node('add', tuple(terms))

  def _product(self) -> Node:
    result = self._operand()
    while True:
      if self.at('*', '×'):
        sign = self.take()
        result = syntax.times(result, self._operand(), sign)
      elif self.at('/'):
        self.take()
        result = self._nest('div', result, self._divisor())
      elif self.follows(result):
        factor = commands.plain_derivative(self) or self.power()
        if _is_zero(result) or _is_zero(factor):
          raise NotMathematics('nobody writes 0 as a factor without a sign')
        result = syntax.times(result, factor)
      else:
        return result

  def _operand(self) -> Node:
    """A factor; or a mixed number, 1\\frac{4}{5} or 1 4/5."""
    is_digits = self.peek().kind == 'number'
    whole = commands.plain_derivative(self) or self.factor()
    if self._is_plain_mixed(whole):
      part = Node('div', (self.atom(), self.take('/') and self.atom()))
      return Node('add', (whole, part))
    if is_digits and whole.op == 'number' and self.at(r'\frac'):
      part = self.power()
      return _mixed(whole, part) if _is_mixed(whole, part) else (
          syntax.times(whole, part))
    return whole

  def _divisor(self) -> Node:
    """A factor; of letters that stand close, all: t/RC is t/(RC)."""
    token = self.peek()
    count = len(token.text) if token.kind == 'letters' else 1
    result = self.factor()
    for _ in range(count - 1):
      result = syntax.times(result, self.power())
    return result

  def follows(self, before: Node) -> bool:
    """Whether a factor follows without a sign."""
    token = self.peek()
    if token.kind == 'letters':
      if len(token.text) == 1:
        is_celsius = before.op == 'degree' and token.text in 'CF'
        is_union = token.text == 'U' and self.last() in (')', ']', r'\}')
        return not is_celsius and not is_union
      is_unit = self.reading.units and token.spaced and (
          units.is_symbol(token.text) or len(token.text) > 2) and (
              not values.names(before))
      return self.reading.is_product(token.text) and not is_unit
    if token.kind in syntax.LITERALS:  # (n-2) 2^n, n2^n, i2; not 7 7 and x2
      return self.last() in (')', ']', 'i') or (
          self.peek(1).text == '^' and not self.last().isdigit())
    if token.text == '|':
      return not self._bars
    return token.text in ('(', '[', '{', r'\langle') or (
        commands.starts_value(token.text))

  def _is_plain_mixed(self, before: Node) -> bool:
    """Whether the 1/2 of '1 1/2' follows."""
    over, sign, under = self.texts(3)
    return (before.op == 'number' and self.peek().spaced and sign == '/'
            and all(text.isascii() and text.isdigit()
                    for text in (self.last(), over, under))
            and int(over) < int(under))

  def factor(self) -> Node:
    """A power with its sign."""
    return self._signed(self.factor) if self.at('-', '+') else self.power()

  def _signed(self, read: Callable[[], Node]) -> Node:
    negative = self.take() == '-'
    value = self._within((), read)[0]
    return Node('neg', (value,)) if negative else value

  def power(self) -> Node:
    base = self._postfix()
    if self.at('^') and not self._primes_follow():
      self.take()
      exponent = self.exponent()
      if base.op == 'symbol' and '_' not in base.args[0]:  # v^2_0
        base = Node('symbol', (base.args[0] + self.index(),))
      base = Node('pow', (base, exponent))
      if self.at('^') and not self._primes_follow():
        raise NotMathematics('two exponents')
    return base

  def exponent(self) -> Node:
    """What stands behind ^; a number whole, since x^10 is seldom x^1 0."""
    if self.at('-', '+'):
      return self._signed(self.exponent)
    if self.at('{'):
      return self.group()
    if self.peek().kind == 'letters':
      self._split()
    power = self._postfix()
    if self.at('^'):  # 2^3^4, typed plainly
      self.take()
      power = Node('pow', (power, self._within((), self.exponent)[0]))
    return power

  def _postfix(self) -> Node:
    """An atom with its factorials and degrees."""
    result = self.atom()
    while self.at('!', '^') and result.op != 'degree':
      if self.texts(2) == ['!', '!']:
        raise NotMathematics('a double factorial')
      if self.at('!'):
        self.take()
        result = Node('call', ('factorial', result))
      elif self.texts(2) == ['^', r'\circ']:
        self.place += 2
        result = Node('degree', (result,))
      elif self.texts(4) == ['^', '{', r'\circ', '}']:
        self.place += 4
        result = Node('degree', (result,))
      else:
        break
    return result

  def atom(self) -> Node:
    token = self.peek()
    if token.kind in syntax.LITERALS:
      return syntax.LITERALS[token.kind](self.take())
    if token.kind == 'letters':
      if len(token.text) > 1 and not self.reading.is_product(token.text):
        raise NotMathematics(f'the word {token.text!r}')
      self._split()
      return self.symbol(self.take())
    if token.text in _CLOSING:
      return self._bracketed()
    if token.text == '{':
      return self.group()
    if token.text == '|':
      self.take()
      self._bars += 1
      inner = self._within((), self.expression)[0]
      self.take('|')
      self._bars -= 1
      return Node('call', ('abs', inner))
    if token.kind == 'command':
      return self._within((), lambda: commands.read(self))[0]
    raise NotMathematics(f'{token.text!r} stands where a value should')

  def argument(self) -> Node:
    """What follows \\frac: braces, or one sign (\\frac12)."""
    if self.peek().kind in ('number', 'letters'):
      self._split()
    return self.atom()

  def _split(self) -> None:
    """Splits the next token behind its first letter or digit."""
    kind, text, spaced = self.peek()
    if len(text) > 1:
      if not text.isalnum() or not text.isdigit() and kind == 'number':
        raise NotMathematics(f'{text!r} without braces')
      self.tokens[self.place:self.place + 1] = [
          syntax.Token(kind, text[0], spaced), syntax.Token(kind, text[1:])]

  def _within(self, ends: tuple[str, ...], read: Callable[[], Node]
              ) -> tuple[Node, str]:
    """What `read` gives one level deeper, and the sign that ends it."""
    self._depth += 1
    if self._depth > _MAX_DEPTH:
      raise NotMathematics(f'more than {_MAX_DEPTH} brackets')
    bars, self._bars = self._bars, 0 if ends else self._bars
    result = read()
    end = self.take(*ends) if ends else ''
    self._bars = bars
    self._depth -= 1
    return result, end

  def group(self) -> Node:
    """Braces, which LaTeX does not show; with commas, the list {1, 2}."""
    self.take('{')
    found, _ = self._within(('}',), self._items)
    return found[0] if len(found) == 1 else Node('list', tuple(found))

  def enclosed(self, *ends: str) -> Node:
    """An expression up to its closing sign."""
    return self._within(ends, self.expression)[0]

  def _bracketed(self) -> Node:
    begin = self.take()
    if begin == r'\{' and self.at(r'\}'):
      self.take()
      return Node('set')
    found, end = self._within(_CLOSING[begin], self._items)
    if begin == r'\{':
      return Node('set', tuple(found))
    if len(found) == 1 and begin + end in ('()', '[]'):
      return found[0]
    if len(found) == 1:
      raise NotMathematics(f'{begin} and {end} around one value')
    return Node('tuple', (begin + end, *found))

  def _items(self) -> list[Node]:
    found = [self._item(self)]
    while self.at(',', ';'):
      self.take()
      found.append(self._item(self))
    return found

  def symbol(self, name: str) -> Node:
    """A variable or constant with its index, primes and arguments."""
    index = self.index()
    primes = self._primes()
    if not index and not primes and name in ('e', 'i', r'\pi'):
      return Node('constant', (name.lstrip('\\'),))
    name += index + primes
    if self.at('(') and (name in _CALLED or primes or self._calls(name)):
      self.take()
      found, _ = self._within((')',), self._items)
      return Node('apply', (name, *found))
    return Node('symbol', (name,))

  def index(self) -> str:
    """The index of a symbol as text: '_max', '_1'; '' if it has none."""
    if not self.at('_'):
      return ''
    self.take()
    if self.at('{'):
      return '_' + self.raw().replace('\\', '')
    if self.peek().kind in ('number', 'letters'):
      self._split()
    return '_' + self.take()

  def raw(self) -> str:
    """The text of a group, without braces."""
    self.take('{')
    depth, texts = 1, []
    while depth:
      texts.append(self.take())
      depth += {'{': 1, '}': -1}.get(texts[-1], 0)
    return ''.join(text for text in texts if text not in ('{', '}'))

  def _primes(self) -> str:
    primes = ''
    while self.at("'") or self._primes_follow():
      primes += "'" * (self.take() == "'")
      if self.last() == '{':
        while self.at("'"):
          primes += self.take()
        self.take('}')
    return primes

  def _primes_follow(self) -> bool:
    """Whether ^\\prime or ^{\\prime} follows, or the brace after its ^."""
    before = self.texts(3)
    return (before[:2] == ['^', "'"] or before == ['^', '{', "'"]
            or self.last() == '^' and before[:2] == ['{', "'"])

  def _calls(self, name: str) -> bool:
    """Whether '(t)', '(0)' follows: x(t) is a function, x(t+1) a product."""
    inner = []
    while (token := self.peek(1 + len(inner))).text not in (')', ''):
      inner.append(token.text)
    if len(inner) == 1:
      return self.peek(1).kind == 'number' or inner[0] in (
          *_ARGUMENTS, r'\theta', r'\omega')
    return name in _MAYBE_CALLED and any(x in _ARGUMENTS for x in inner)


def _is_zero(node: Node) -> bool:
  return node.op in ('number', 'decimal') and node.args[0] == 0


def _mixed(whole: Node, part: Node) -> Node:
  if part.op == 'degree':
    return Node('degree', (_mixed(whole, *part.args),))
  return Node('add', (whole, part))


def _is_mixed(whole: Node, part: Node) -> bool:
  """Whether they are 1 and \\frac{4}{5}: together 1 + 4/5, no product."""
  part = part.args[0] if part.op == 'degree' else part
  if whole.op != 'number' or part.op != 'div' or any(
      x.op != 'number' for x in part.args):
    return False
  over, under = (x.args[0] for x in part.args)
  return 0 < over < under and whole.args[0].denominator == 1
