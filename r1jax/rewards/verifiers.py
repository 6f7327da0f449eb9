"""The rules that judge an answer, and the answers they must never see.

`refusal` looks at text only and runs in the trainer's process. `load` gives a
function that runs third-party code on a response's text: it is called in
worker processes only (sandbox).

What evaluates text, in the packages of today:
  * Nine reasoning_gym scorers call `eval` or sympy's `parse_expr`, which is
    `eval`, on the answer. They are listed below, and are given only text in
    which nothing can be called but mathematical functions. A test watches
    every scorer of the installed package and fails if the list is incomplete.
  * math-verify gives `parse_expr` digits and operators alone, and the number
    tokens of its LaTeX grammar: never a name. Text that looks like Python is
    refused all the same.
"""

import functools
import re
from typing import Any, Callable

# Scorers that call `eval`, meant for a Python list of numbers or strings.
LITERAL_TASKS = frozenset(
    {'binary_matrix', 'n_queens', 'spiral_matrix', 'string_insertion'})
# Scorers that call sympy's `parse_expr`, meant for a formula.
FORMULA_TASKS = frozenset(
    {'countdown', 'intermediate_integration', 'polynomial_multiplication',
     'puzzle24', 'simple_integration'})

MAX_CHARS = {'math': 1_000, 'reasoning_gym': 10_000}

# No parenthesis, no dot, no operator but the sign: nothing can be called.
_LITERAL = re.compile(r"[\w\s,'\"\[\]-]*", re.ASCII)
_FORMULA_TOKEN = re.compile(
    r'\d+\.?\d*|\.\d+|[-+*/^(),\s]|(?<![A-Za-z])(?:[A-Za-z]|'
    r'a?(?:sin|cos|tan|sec|csc|cot)h?|exp|log|ln|sqrt|Abs|pi)(?![A-Za-z])',
    re.ASCII)
# A dunder, a string, a method: LaTeX needs none of them.
_PYTHON = re.compile(r"__|[\"`]|\(\s*'|[A-Za-z]\.[A-Za-z_]\w*\s*\(")

_DELIMITED = re.compile(r'\$.*\$|\\\(|\\\[|\\boxed', re.DOTALL)
_WORD = re.compile(r'\b[A-Za-z]{2,}(?=[\s.,:%]|$)')
_NUMBER = re.compile(r'[\s:$€£]*-?[\d,]*\.?\d+[\s.,:%]*', re.ASCII)

Verify = Callable[[str, Any], bool]


def refuse_unsafe(kind: str, task: str, answer: str) -> str | None:
  """Why this answer is not given to its verifier, or None if it may be."""
  limit = MAX_CHARS[kind]
  if len(answer) > limit:
    return f'{len(answer)} characters, more than {limit}'
  if kind == 'math':
    harmless = not _PYTHON.search(answer)
  elif task in LITERAL_TASKS:
    harmless = _LITERAL.fullmatch(answer)
  elif task in FORMULA_TASKS:
    harmless = not _FORMULA_TOKEN.sub('', answer)
  else:
    harmless = True
  return None if harmless else f'{answer[:80]!r} could run code'


@functools.lru_cache(maxsize=None)
def load_verifier(kind: str, task: str) -> Verify:
  """The function (answer, reference) -> is it right, its packages imported."""
  if kind == 'math':
    import math_verify  # pylint: disable=g-import-not-at-top
    verify = functools.partial(_math, math_verify)
    verify(r'\frac{1}{2}', '0.5')  # the first parse builds the grammar
    return verify
  if kind == 'reasoning_gym':
    import reasoning_gym  # pylint: disable=g-import-not-at-top
    return functools.partial(
        _reasoning_gym, reasoning_gym.get_score_answer_fn(task))
  raise ValueError(f'no verifier {kind!r}; expected one of {tuple(MAX_CHARS)}')


def _reasoning_gym(score_answer, answer: str, entry: dict) -> bool:
  """Whether the dataset's own scorer gives full marks.

  Less is not right: most scorers pay part of a mark for any text that holds
  the reference, so that 129 would earn 0.67 where 12 is asked for.
  """
  return float(score_answer(answer, entry)) >= 1.0


def _math(math_verify, answer: str, reference: str) -> bool:
  """Whether math-verify finds the answer equal to the reference."""
  # The worker is killed when its time is up; no second clock is needed.
  gold = math_verify.parse(
      delimit_math(reference), parsing_timeout=None, raise_on_error=True)
  if not gold:
    raise ValueError(f'the reference {reference!r} is not mathematics')
  target = math_verify.parse(
      delimit_math(answer), parsing_timeout=None, raise_on_error=True)
  return math_verify.verify(
      gold, target, timeout_seconds=None, raise_on_error=True)


def delimit_math(text: str) -> str:
  """`text` with its mathematics between dollars, as math-verify expects it.

  Without them it takes the first number it meets: 2x+3 and 2x+7 would both be
  2. A number among words ("72 dollars") needs none.
  """
  if _DELIMITED.search(text) or _NUMBER.fullmatch(_WORD.sub('', text)):
    return text
  return '$' + text.replace('\\$', '').replace('$', '') + '$'
