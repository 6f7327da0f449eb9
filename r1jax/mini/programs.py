"""Small programs: functions of a number, told in steps, and answers to them.

    Write f(n): add 3, then multiply by 4, then subtract 2.

A response is a program in a block, with or without thinking. Those that a model
is fine-tuned on are right or wrong in the ways of beginners: brackets
forgotten, a number or an operator mistaken, a line that is no Python, no block
at all. GRPO has to find out from the tests alone which of them count.
"""

from collections.abc import Iterator
import random
from typing import Any

from r1jax.data import thinking

_OPERATORS = {'add': '+', 'subtract': '-', 'multiply by': '*'}
_INPUTS = (-3, 0, 1, 2, 5, 10)  # that the tests call f with
_STEPS = 3

# Of responses, and their shares. Most forget the brackets, so that greedy
# decoding after fine-tuning does, too.
KINDS = {
    'right': .18,
    'flat': .56,  # no brackets: another value
    'slip': .10,  # a number or an operator is another
    'broken': .08,  # not Python
    'bare': .08,  # the expression without a block
}
WORKED = .5  # share of responses that think first

Step = tuple[str, int]  # a key of _OPERATORS, and a number


def problems(rng: random.Random) -> Iterator[tuple[str, list[Step]]]:
  """Yields (prompt, steps), endlessly: programs that need brackets."""
  while True:
    steps = [(rng.choice(list(_OPERATORS)), rng.randint(2, 9))
             for _ in range(_STEPS)]
    if any('(' in line for line in lines(steps)):
      words = ', then '.join(f'{word} {number}' for word, number in steps)
      yield f'Write f(n): {words}.', steps


def lines(steps: list[Step], brackets: bool = True) -> list[str]:
  """The expression after each step: n+3, (n+3)*4, (n+3)*4-2."""
  text, found, is_sum = 'n', [], False
  for word, number in steps:
    if word == 'multiply by' and is_sum and brackets:
      text = f'({text})'
    text += f'{_OPERATORS[word]}{number}'
    is_sum = word != 'multiply by'
    found.append(text)
  return found


def record(prompt: str, steps: list[Step]) -> dict[str, Any]:
  """A problem with its tests; see data/sources.py."""
  def value(n):
    for word, number in steps:
      n = {'+': n + number, '-': n - number, '*': n * number}[_OPERATORS[word]]
    return n
  return dict(
      prompt=prompt, answer=lines(steps)[-1], task='mini_code', verifier='code',
      tests=dict(kind='calls', name='f',
                 cases=tuple(([n], value(n)) for n in _INPUTS)))


def respond(rng: random.Random, steps: list[Step], kind: str = '') -> str:
  """Draws a response to a problem, of `kind` or of any of KINDS."""
  kind = kind or rng.choices(list(KINDS), KINDS.values())[0]
  written = lines(_slipped(rng, steps) if kind == 'slip' else steps,
                  brackets=kind != 'flat')
  line = f'return {written[-1]}'
  if kind == 'broken':
    line = rng.choice([f'{written[-1]} return', f'return {written[-1]})',
                       f'return ({written[-1]}'])
  program = (f'f(n)={written[-1]}' if kind == 'bare' else
             f'```python\ndef f(n):\n  {line}\n```')
  if rng.random() < WORKED:
    return f'{thinking.THOUGHT.format(", then ".join(written))}\n{program}'
  return program


def _slipped(rng: random.Random, steps: list[Step]) -> list[Step]:
  """The steps with one number or operator changed."""
  place = rng.randrange(len(steps))
  word, number = steps[place]
  if rng.random() < .5:
    word = rng.choice([other for other in _OPERATORS if other != word])
  else:
    number = rng.choice([other for other in range(2, 10) if other != number])
  return [*steps[:place], (word, number), *steps[place + 1:]]
