"""The rules that check an answer, and the answers they must never see.

To add one: a function, and its line in `VERIFIERS`. `refuse_unsafe` looks at
text only and runs in the trainer's process. `load_verifier` gives a function
that runs third-party code on a response's text: it is called in worker
processes only (sandbox).

What evaluates text in the current packages:
  * Nine reasoning_gym scorers call `eval` or sympy's `parse_expr`, which is
    `eval`, on the answer. They are listed below, and are given only text in
    which nothing can be called but mathematical functions. A test watches
    every scorer of the installed package and fails if the list is incomplete.
  * `mathematics` evaluates nothing; it goes to a worker for its time alone.
"""

import functools
import re
from typing import Any, Callable, Mapping, NamedTuple

from r1jax.rewards import answers
from r1jax.rewards import choices
from r1jax.rewards import instructions

# Scorers that call `eval`, meant for a Python list of numbers or strings.
LITERAL_TASKS = frozenset(
    {'binary_matrix', 'n_queens', 'spiral_matrix', 'string_insertion'})
# Scorers that call sympy's `parse_expr`, meant for a formula.
FORMULA_TASKS = frozenset(
    {'countdown', 'intermediate_integration', 'polynomial_multiplication',
     'puzzle24', 'simple_integration'})

# No parenthesis, no dot, no operator but the sign: nothing can be called.
_LITERAL = re.compile(r"[\w\s,'\"\[\]-]*", re.ASCII)
_FORMULA_TOKEN = re.compile(
    r'\d+\.?\d*|\.\d+|[-+*/^(),\s]|(?<![A-Za-z])(?:[A-Za-z]|'
    r'a?(?:sin|cos|tan|sec|csc|cot)h?|exp|log|ln|sqrt|Abs|pi)(?![A-Za-z])',
    re.ASCII)

# 15 digits: beyond any answer, and far from where a float would matter.
_INTEGER = re.compile(
    r'-?(?:0|[1-9]\d{0,14}|[1-9]\d{0,2}(?:,\d{3}){1,4})', re.ASCII)

Verify = Callable[[str, Any], float]  # (answer, reference) -> how right, 0 to 1


def _undecided(answer: str, reference: Any) -> None:
  del answer, reference


class Verifier(NamedTuple):
  """A rule that checks an answer, and what it takes to run.

  A plain comparison has `at_once`. What may take long, or is third-party code,
  has `load`; `is_safe` and `max_chars` keep from it what it must never see.
  """
  # In the trainer's process; returns None if a worker process must decide.
  at_once: Callable[[str, Any], float | None] = _undecided
  load: Callable[[str], Verify] | None = None  # of a task, in a worker process
  is_safe: Callable[[str, str], bool] = lambda task, answer: True  # no code
  max_chars: int = 0  # of an answer that goes to a worker
  reference: str = 'answer'  # the field of a record that it compares with
  # The answer is the response's program, which workers of its own judge (code).
  program: bool = False
  # Whether it also says that two responses give the same answer (votes.py).
  compares: bool = False
  # (record, reference) -> what `at_once` and the loaded verifier compare with.
  terms: Callable[[Mapping, Any], Any] = lambda record, reference: reference


def refuse_unsafe(kind: str, task: str, answer: str) -> str | None:
  """Why this answer is not given to a worker, or None if it may be."""
  verifier = VERIFIERS[kind]
  if len(answer) > verifier.max_chars:
    return f'{len(answer)} characters, more than {verifier.max_chars}'
  if verifier.is_safe(task, answer):
    return None
  return f'{answer[:80]!r} could run code'


@functools.lru_cache(maxsize=None)
def load_verifier(kind: str, task: str) -> Verify:
  """The function (answer, reference) -> how right, its packages imported."""
  known = [name for name, verifier in VERIFIERS.items() if verifier.load]
  if kind not in known:
    raise ValueError(f'no verifier {kind!r}; expected one of {known}')
  return VERIFIERS[kind].load(task)


def _same_text(answer: str, reference: str) -> bool:
  return answer.strip().casefold() == reference.strip().casefold()


def _same_summary(answer: str, reference: str) -> bool:
  """Whether it is the answer that the reference, a draft, gives at its end."""
  return _same_text(answer, answers.extract_answer(reference, 'summary') or '')


def _wrong(answer: str, reference: str) -> float:
  """No rule can check it: it is wrong until a model decides (judge)."""
  del answer, reference
  return 0.


# A reference alone, or with its tolerance and question.
_Terms = str | tuple[str, float, str]


def _math_terms(record: Mapping, reference: str) -> _Terms:
  return reference, record.get('tolerance', 0.), record.get('prompt', '')


def _math(equal: Callable[..., bool], answer: str, terms: _Terms) -> bool:
  """What `mathematics.equal` says of an answer."""
  return equal(answer, *([terms] if isinstance(terms, str) else terms))


def _plainly_equal(answer: str, terms: _Terms) -> bool | None:
  """What `mathematics` says of two plain integers, or of the same text twice.

  None for anything else.
  """
  wanted = terms if isinstance(terms, str) else terms[0]
  if answer.strip() == wanted.strip() != '':
    return True
  numbers = _integer(answer), _integer(wanted)
  return None if None in numbers else numbers[0] == numbers[1]


def _integer(text: str) -> int | None:
  text = text.strip()
  return int(text.replace(',', '')) if _INTEGER.fullmatch(text) else None


def _is_safe_entry(task: str, answer: str) -> bool:
  if task in LITERAL_TASKS:
    return bool(_LITERAL.fullmatch(answer))
  return task not in FORMULA_TASKS or not _FORMULA_TOKEN.sub('', answer)


def _load_math(task: str) -> Verify:
  del task
  from r1jax.rewards import mathematics  # pylint: disable=g-import-not-at-top
  return functools.partial(_math, mathematics.equal)


def _load_reasoning_gym(task: str) -> Verify:
  import reasoning_gym  # pylint: disable=g-import-not-at-top
  return functools.partial(
      _reasoning_gym, reasoning_gym.get_score_answer_fn(task))


def _reasoning_gym(score_answer, answer: str, entry: dict) -> bool:
  """Whether the dataset's own scorer gives full marks.

  Partial credit does not count: most scorers give some to any text that
  contains the reference, so that 129 would score 0.67 where 12 is right.
  """
  return float(score_answer(answer, entry)) >= 1.0


def _with_options(record: Mapping, reference: str) -> tuple[str, tuple]:
  return reference, record.get('options', ())


VERIFIERS = {
    'math': Verifier(
        _plainly_equal, _load_math, max_chars=1_000, terms=_math_terms,
        compares=True),
    'reasoning_gym': Verifier(
        load=_load_reasoning_gym, is_safe=_is_safe_entry, max_chars=10_000,
        reference='entry'),
    'choice': Verifier(
        choices.same_choice, terms=_with_options, compares=True),
    'instructions': Verifier(
        instructions.followed, reference='instructions'),
    'code': Verifier(max_chars=100_000, reference='tests', program=True),
    'exact': Verifier(_same_text, compares=True),
    'same': Verifier(_same_summary),
    'judge': Verifier(_wrong),
}
