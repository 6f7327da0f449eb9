"""Problems of the miniature world worked out, one operation a step.

A reasoning_gym entry enters; the steps of its solution leave, each on two
numbers that stand in the text before it, with or without a slip.
"""

import operator
import random
from typing import Any, Callable, NamedTuple

from r1jax.data import mini_general

_OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul}


class Step(NamedTuple):
  """`label: a op b = value`; the value is wrong where a slip was made."""
  label: str  # the animal counted, '' if none
  a: int
  op: str
  b: int
  value: int


def near_miss(rng: random.Random, value: int) -> int:
  """Returns a number that a slip might give in place of `value`."""
  offsets = [-20, -10, -2, -1, 1, 2, 10, 20]
  return value + rng.choice([d for d in offsets if value + d >= 0] or [1, 10])


def _chain_sum(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  words = metadata['expression'].split()
  total = int(words[0])
  for op, term in zip(words[1::2], words[2::2]):
    total = do(total, op, int(term))
  return str(total)


def _leg_counting(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  total, *rest = [
      do(count, '*', mini_general.legs(animal), animal)
      for animal, count in metadata['animals'].items()]
  for legs in rest:
    total = do(total, '+', legs)
  return str(total)


def _complex_product(metadata: dict[str, Any], do: Callable[..., int]) -> str:
  """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""
  a, b, c, d = map(int, (*metadata['num1'], *metadata['num2']))
  real = do(do(a, '*', c), '-', do(b, '*', d))
  imaginary = do(do(a, '*', d), '+', do(b, '*', c))
  return f'{real}{imaginary:+}i'


_METHODS = {
    'chain_sum': _chain_sum,
    'leg_counting': _leg_counting,
    'complex_arithmetic': _complex_product,
}


def solve(entry: dict[str, Any], rng: random.Random | None = None,
          slip_at: int | None = None) -> tuple[list[Step], str]:
  """Works an entry out: its steps and the answer they lead to.

  A near miss drawn from `rng` takes the place of the value of step `slip_at`,
  counted from the end where it is negative.
  """
  metadata = entry['metadata']
  method = _METHODS[metadata['source_dataset']]
  steps = []

  def do(a: int, op: str, b: int, label: str = '') -> int:
    value = _OPERATORS[op](a, b)
    if len(steps) == slip_at:
      value = near_miss(rng, value)
    steps.append(Step(label, a, op, b, value))
    return value

  answer = method(metadata, do)
  if slip_at is not None and slip_at < 0:
    return solve(entry, rng, len(steps) + slip_at)
  return steps, answer


def _parts(n: int) -> list[int]:
  """Splits a number into its decimal places: 308 is [300, 8]."""
  digits = str(n)
  parts = [int(d) * 10**(len(digits) - i - 1) for i, d in enumerate(digits)]
  return [p for p in parts if p] or [0]


def split(step: Step) -> list[Step]:
  """Does one step digit by digit; the last of them has the step's value.

  47*6 is 40*6=240, 7*6=42, 240+42=282; and 47+85 is 47+80=127, 127+5=132.
  """
  if step.op == '*':
    small = [Step('', part, '*', step.b, part * step.b)
             for part in _parts(step.a)]
    total, op, rest = small[0].value, '+', [s.value for s in small[1:]]
  else:
    small, total, op, rest = [], step.a, step.op, _parts(step.b)
  for part in rest:
    value = _OPERATORS[op](total, part)
    small.append(Step('', total, op, part, value))
    total = value
  small[-1] = small[-1]._replace(value=step.value)
  return small
