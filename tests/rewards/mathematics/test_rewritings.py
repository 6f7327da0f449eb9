"""Random expressions: each rewriting is right, each small change is wrong."""

import random

import mpmath
import pytest

from r1jax.rewards import mathematics

# A tree is a number, a variable's name, or (operation, *trees).
_POINTS = ({'x': 1.37, 'y': 2.11}, {'x': 0.59, 'y': 3.73})
_SUMS, _PRODUCTS = ('+', '-'), ('*', '/')


def _tree(rng, depth, names):
  if not depth or rng.random() < 0.15:
    leaves = [rng.randint(2, 12)] * 3 + list(names) + ['pi'] * (not names)
    return rng.choice(leaves)
  op = rng.choice(['+', '-', '*', '/', '^', 'sqrt', '+', '*'])
  if op == '^':
    return '^', _tree(rng, depth - 1, names), rng.randint(2, 3)
  if op == 'sqrt':
    return 'sqrt', ('+', ('^', _tree(rng, depth - 1, names), 2),
                    rng.randint(1, 9))
  return op, _tree(rng, depth - 1, names), _tree(rng, depth - 1, names)


def _value(tree, point):
  """Its value, by mpmath: nothing of the code that is tested."""
  if isinstance(tree, str):
    return mpmath.pi if tree == 'pi' else mpmath.mpf(point[tree])
  if not isinstance(tree, tuple):
    return mpmath.mpf(tree)
  op, *args = tree
  x, *y = [_value(arg, point) for arg in args]
  if op == 'sqrt':
    return mpmath.sqrt(x)
  return {'+': lambda: x + y[0], '-': lambda: x - y[0], '*': lambda: x * y[0],
          '/': lambda: x / y[0], '^': lambda: x ** y[0],
          'neg': lambda: -x}[op]()


def _differ(a, b):
  """Whether two trees differ at a point; None if one is undefined there."""
  with mpmath.workdps(30):
    try:
      for point in _POINTS:
        u, v = _value(a, point), _value(b, point)
        if abs(u - v) > 1e-9 * max(abs(u), abs(v)):
          return True
    except ZeroDivisionError:
      return None
  return False


def _text(tree, rng, plain):
  """A tree as a model may write it."""
  if tree == 'pi':
    return rng.choice(['pi', '\u03c0']) if plain else r'\pi '
  if not isinstance(tree, tuple):
    return str(tree)
  op, *args = tree
  inner = [_text(arg, rng, plain) for arg in args]
  wrapped = [text if not isinstance(arg, tuple) else
             f'({text})' if plain or rng.random() < 0.5 else
             rf'\left({text}\right)' for arg, text in zip(args, inner)]
  if op == 'neg':
    return f'-{wrapped[0]}'
  if op == 'sqrt':
    return f'sqrt({inner[0]})' if plain else rf'\sqrt{{{inner[0]}}}'
  if op == '^':
    sign = rng.choice(['^', '**']) if plain else '^'
    return f'{wrapped[0]}{sign}{inner[1]}' if plain else (
        f'{wrapped[0]}^{{{inner[1]}}}')
  if op == '/':
    if plain:
      return f'{wrapped[0]}/{wrapped[1]}'
    return rf'\{rng.choice(["frac", "dfrac"])}{{{inner[0]}}}{{{inner[1]}}}'
  if op == '*':
    sign = rng.choice(['*', ' * ', '\u00b7'] if plain else
                      [r' \cdot ', r' \times '])
    return sign.join(wrapped)
  space = rng.choice(['', ' '])
  return f'{inner[0]}{space}{op}{space}{wrapped[1]}'


def _rewritten(tree, rng):
  """An equal tree: true identities, at random places."""
  if not isinstance(tree, tuple):
    if isinstance(tree, int) and rng.random() < 0.3:
      k = rng.randint(2, 9)
      return rng.choice([('/', tree * k, k), ('-', tree + k, k),
                         ('*', tree * k, ('/', 1, k))])
    return tree
  op, *args = tree
  exponent = args[1:] if op == '^' else []
  args = [_rewritten(arg, rng) for arg in args[:2 - len(exponent)]] + exponent
  if op in ('+', '*') and rng.random() < 0.5:
    args.reverse()
  if op == '-' and rng.random() < 0.4:
    return 'neg', ('-', args[1], args[0])
  if op == '/' and rng.random() < 0.4:
    k = rng.randint(2, 9)
    return '/', ('*', k, args[0]), ('*', args[1], k)
  if op == '^' and args[1] == 2 and rng.random() < 0.5:
    return '*', args[0], args[0]
  if op == '^' and rng.random() < 0.3:
    return '*', args[0], ('^', args[0], args[1] - 1)
  if op == '*' and isinstance(args[0], tuple) and args[0][0] in _SUMS:
    inner, a, b = args[0]
    return inner, ('*', a, args[1]), ('*', b, args[1])
  if op == 'sqrt' and rng.random() < 0.4:
    return '/', args[0], (op, args[0])
  return (op, *args)


def _changed(tree, rng):
  """A tree with one small change, which may by chance be equal."""
  if isinstance(tree, int):
    return tree + rng.choice([-1, 1, 10])
  if isinstance(tree, str):
    return {'x': 'y', 'y': 'x', 'pi': 3}[tree]
  op, *args = tree
  swaps = {'+': '-', '-': '+', '*': '/', '/': '*'}
  if op in swaps and rng.random() < 0.2:
    return (swaps[op], *args)
  place = rng.randrange(len(args))
  args[place] = _changed(args[place], rng)
  return (op, *args)


@pytest.mark.parametrize('seed', range(10))
def test_two_hundred_rewritings_and_changes(seed):
  """2,000 pairs in all, half of them right."""
  rng = random.Random(seed)
  right = wrong = 0
  while right < 100 or wrong < 100:
    tree = _tree(rng, 3, rng.choice([(), (), ('x',), ('x', 'y')]))
    if not isinstance(tree, tuple) or _differ(tree, tree) is None:
      continue
    reference = _text(tree, rng, rng.random() < 0.3)
    same, other = _rewritten(tree, rng), _changed(tree, rng)
    if right < 100 and _differ(tree, same) is False:
      answer = _text(same, rng, rng.random() < 0.5)
      assert mathematics.equal(answer, reference), (reference, answer)
      right += 1
    if wrong < 100 and _differ(tree, other):
      answer = _text(other, rng, rng.random() < 0.5)
      assert not mathematics.equal(answer, reference), (reference, answer)
      wrong += 1
