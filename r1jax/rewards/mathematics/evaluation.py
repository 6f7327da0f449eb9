"""The value of an expression at a point.

Rational numbers are computed exactly, the others by mpmath, to as many digits
as the caller has set there. What would take minutes is not computed.
"""

from fractions import Fraction
import hashlib
import math
from typing import Mapping

import mpmath

from r1jax.rewards.mathematics import syntax

Node = syntax.Node
_MAX_BITS = 120_000  # of an exact number
_MAX_MAGNITUDE = 1 << 40  # bits of the largest number, exponent included
_MAX_FACTORIAL = 8_000
_MAX_GAMMA_DIGITS = 300  # more take mpmath minutes
MAX_DEGREE = 16  # of the roots in an expression, together

Number = Fraction | mpmath.mpf | mpmath.mpc


class Undefined(ArithmeticError):
  """There is no such value: 1/0, or one that nothing here can compute."""


class Undecided(ArithmeticError):
  """It would take more digits than are worth it."""


class Imprecise(ArithmeticError):
  """Whether a number is below an integer cannot be told with these digits."""


class Exhausted(ArithmeticError):
  """A comparison has taken more work than is worth it."""


class Budget:
  """The work of one comparison, in products of 50 digits, some microseconds."""

  def __init__(self, work: int = 60_000):
    self._left = work

  def spend(self, work: float) -> None:
    self._left -= work
    if self._left < 0:
      raise Exhausted


_FUNCTIONS = {
    'sin': mpmath.sin, 'cos': mpmath.cos, 'tan': mpmath.tan,
    'cot': mpmath.cot, 'sec': mpmath.sec, 'csc': mpmath.csc,
    'sinh': mpmath.sinh, 'cosh': mpmath.cosh, 'tanh': mpmath.tanh,
    'coth': mpmath.coth, 'arcsin': mpmath.asin, 'arccos': mpmath.acos,
    'arctan': mpmath.atan, 'arccot': mpmath.acot, 'arcsec': mpmath.asec,
    'arccsc': mpmath.acsc, 'exp': mpmath.exp, 'ln': mpmath.ln}


_COSTLY = ('pow', 'root', 'log', 'lg', 'factorial', 'binomial')
_GROWING = ('exp', 'sinh', 'cosh', 'tanh', 'coth')


class Evaluation:
  """Computes values, and notes how many digits it takes to tell them apart."""

  def __init__(self, point: Mapping[str, Fraction], budget: Budget):
    """`point` gives the values of the variables."""
    self.point = point
    self._budget = budget
    self.bits = 0  # of the exact numbers that inexact values are made of
    self.size = 0  # digits that functions take
    self.spread = 0  # digits of those values' magnitudes
    self.largest = 0  # bits of the largest of them
    self.degree = 1  # of its roots together
    self.has_sums = False  # of inexact values, which may cancel

  def __call__(self, node: Node) -> Number:
    if node.op in ('number', 'decimal'):
      return Fraction(node.args[0])
    if node.op == 'constant':
      return self._constant(node.args[0])
    if node.op == 'symbol':
      return self.point[node.args[0]]
    if node.op == 'apply':
      return _unknown(node.args[0], [self(x) for x in node.args[1:]])
    name, args = node.op, node.args
    if name == 'call':
      name, *args = args
    rule = getattr(self, f'_{name}', None) or _FUNCTIONS.get(name)
    if rule is None:
      raise Undefined(f'a {name} is no number')
    values = [self(x) for x in args]
    inexact = any(not isinstance(value, Fraction) for value in values)
    costly = name in _FUNCTIONS or name in _COSTLY
    self._budget.spend((10 if costly else 1) * (
        1 + mpmath.mp.dps / 50 * (inexact or costly)))
    if name in _FUNCTIONS:
      values = [self._inexact(value, True) for value in values]
      # 1 - tanh x is about e^-2x, and 1 - cos x about x^2.
      self.size += sum(2 * abs(int(mpmath.mag(value))) + (
          float(abs(value)) if name in _GROWING else 0.)
                       for value in values if value)
    try:
      return self._noted(rule(*values))
    except (ZeroDivisionError, OverflowError, TypeError, ValueError) as error:
      raise Undefined(f'{name}: {error}') from error

  def _constant(self, name: str) -> Number:
    if name == 'oo':
      return mpmath.inf
    return {'pi': +mpmath.pi, 'e': +mpmath.e, 'i': mpmath.mpc(0, 1)}[name]

  def _noted(self, value: Number) -> Number:
    if isinstance(value, Fraction):
      if bits(value) > _MAX_BITS:
        raise Undecided('too long')
      return value
    if mpmath.isnan(value):
      raise Undefined('not a number')
    if isinstance(value, mpmath.mpc) and not value.imag:
      value = value.real
    if value and not mpmath.isinf(value):
      magnitude = abs(int(mpmath.mag(value)))
      self.spread += magnitude * 0.302
      self.largest = max(self.largest, int(mpmath.mag(value)))
    return value

  def _inexact(self, value: Number, argument: bool = False) -> Number:
    """As a number of mpmath; an `argument` must not be astronomic."""
    if not isinstance(value, Fraction) and mpmath.isinf(value):
      raise Undefined('arithmetic with infinity')
    if isinstance(value, Fraction):
      self.bits += bits(value)
      value = mpmath.mpf(value.numerator) / value.denominator
    if argument and value and mpmath.mag(value) > 40:
      raise Undecided('an argument beyond 2^40')
    return value

  def _both(self, x: Number, y: Number) -> tuple[Number, Number]:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
      return x, y
    return self._inexact(x), self._inexact(y)

  def _add(self, *terms: Number) -> Number:
    total = terms[0]
    for term in terms[1:]:
      x, y = self._both(total, term)
      self.has_sums |= not isinstance(x, Fraction)
      total = self._noted(x + y)
    return total

  def _mul(self, *factors: Number) -> Number:
    result = factors[0]
    for factor in factors[1:]:
      x, y = self._both(result, factor)
      result = self._noted(x * y)
    return result

  def _div(self, x: Number, y: Number) -> Number:
    x, y = self._both(x, y)
    return x / y

  def _neg(self, x: Number) -> Number:
    return -x

  def _degree(self, x: Number) -> Number:
    return self._inexact(x) * mpmath.pi / 180

  def _pow(self, x: Number, y: Number) -> Number:
    if isinstance(y, Fraction) and y.denominator == 1:
      return self._integer_power(x, int(y))
    if isinstance(y, Fraction) and 1 < y.denominator <= 64:
      return self._integer_power(
          self._root(Fraction(y.denominator), x), y.numerator)
    if not x:
      raise Undefined('a power of 0')
    x, y = self._inexact(x), self._inexact(y, True)
    if mpmath.mag(y) + max(abs(mpmath.mag(x)), 1).bit_length() > 40:
      raise Undecided('too large')
    return mpmath.power(x, y)

  def _integer_power(self, x: Number, n: int) -> Number:
    if not x and n <= 0:
      raise Undefined('0 to the power of 0 or less')
    if isinstance(x, Fraction):
      if abs(x) == 1 or bits(x) * abs(n) <= _MAX_BITS:
        return x ** n
    x = self._inexact(x)
    if x and max(abs(int(mpmath.mag(x))), 1) * abs(n) > _MAX_MAGNITUDE:
      raise Undecided('too large')
    return mpmath.power(x, n)

  def _root(self, n: Number, x: Number) -> Number:
    if n == 1:
      return x
    if not isinstance(n, Fraction) or n.denominator != 1 or not 1 < n <= 1000:
      return self._pow(x, self._div(Fraction(1), n))
    self.degree = min(self.degree * int(n), MAX_DEGREE)
    if not x:
      return Fraction(0)
    value = self._inexact(x)
    if n % 2 and not isinstance(value, mpmath.mpc) and value < 0:
      return -mpmath.root(-value, int(n))
    return mpmath.root(value, int(n))

  def _log(self, x: Number, base: Number | None = None) -> Number:
    if not x:
      raise Undefined('the logarithm of 0')
    value = mpmath.ln(self._inexact(x))
    return value if base is None else value / mpmath.ln(self._inexact(base))

  def _ln(self, x: Number) -> Number:
    return self._log(x)

  def _lg(self, x: Number) -> Number:
    return self._log(x, Fraction(10))

  def _abs(self, x: Number) -> Number:
    return abs(x)

  def _cbrt(self, x: Number) -> Number:
    return self._root(Fraction(3), x)

  def _floor(self, x: Number) -> Number:
    if isinstance(x, Fraction):
      return Fraction(math.floor(x))
    if isinstance(x, mpmath.mpc):
      raise Undefined('no real number that can be rounded')
    nearest = mpmath.nint(x)
    error = mpmath.ldexp(max(abs(x), 1), 10 - mpmath.mp.prec)
    if abs(x - nearest) > error:
      return Fraction(int(mpmath.floor(x)))
    if error > 1e-40:
      raise Imprecise
    return Fraction(int(nearest))

  def _ceil(self, x: Number) -> Number:
    return -self._floor(-x)

  def _factorial(self, n: Number) -> Number:
    if isinstance(n, Fraction) and n.denominator == 1:
      if n < 0:
        raise Undefined('the factorial of a negative integer')
      if n <= _MAX_FACTORIAL:
        return Fraction(math.factorial(int(n)))
    _check_gamma()
    return mpmath.gamma(self._inexact(n, True) + 1)

  def _binomial(self, n: Number, k: Number) -> Number:
    whole = all(isinstance(x, Fraction) and x.denominator == 1 for x in (n, k))
    if whole and 0 <= k <= n <= _MAX_FACTORIAL:
      return Fraction(math.comb(int(n), int(k)))
    _check_gamma()
    return mpmath.binomial(self._inexact(n, True), self._inexact(k, True))

  def _max(self, *values: Number) -> Number:
    return max(values, key=self._inexact)

  def _min(self, *values: Number) -> Number:
    return min(values, key=self._inexact)

  def _gcd(self, *values: Number) -> Number:
    return Fraction(math.gcd(*map(_integer, values)))

  def _lcm(self, *values: Number) -> Number:
    return Fraction(math.lcm(*map(_integer, values)))


def _check_gamma() -> None:
  if mpmath.mp.dps > _MAX_GAMMA_DIGITS:
    raise Undecided('too many digits of a gamma function')


def _integer(value: Number) -> int:
  if not isinstance(value, Fraction) or value.denominator != 1:
    raise Undefined('no integer')
  return int(value)


def bits(value: Fraction) -> int:
  return value.numerator.bit_length() + value.denominator.bit_length()


def _unknown(name: str, values: list[Number]) -> Fraction:
  """A value of an unknown function: the same for the same arguments."""
  return random_value(name + ', '.join(
      f'{value.numerator:x}/{value.denominator:x}'
      if isinstance(value, Fraction) else mpmath.nstr(value, 12)
      for value in values))


def random_value(key: str) -> Fraction:
  """A rational number from 0.001 to 3, a function of the key."""
  digest = hashlib.blake2b(key.encode(), digest_size=2).digest()
  return Fraction(1 + int.from_bytes(digest, 'big') % 2999, 1009)
