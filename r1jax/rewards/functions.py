"""Users' reward functions, named in a config; r1jax itself is not changed.

    --config.rewards.functions.brief=my_rewards.py:brief
    --config.rewards.weights.brief=0.5

    def brief(response: str, record: dict) -> float:
      return -len(response) / 1000

`response` is the text. `record` holds every field of the data row, and
    prompt, answer, task, verifier    see data/sources.py
    row         the row as it was read, where it comes from a file or function
    step        of training, from 0; None in an evaluation
    tokens      the response's length, its end token included
    finished    whether it ended by itself rather than at the token limit
A function returns a number, or a number and a dict of columns, which are logged
beside it as NAME/COLUMN (names.py says what NAME may be). It may be `async`:
all calls of a batch then run at once.

Functions run in worker processes; their imports and side effects do not reach
the trainer. A call that raises, hangs for `rewards.timeout_seconds`, crashes or
returns something else scores 0 and is counted; the run continues.
"""

from collections.abc import Iterable, Mapping, Sequence
import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from r1jax import errors
from r1jax.data import user_code
from r1jax.rewards import names
from r1jax.rewards import workers as workers_lib


class FunctionScores(NamedTuple):
  """The values of F functions for N responses."""
  values: dict[str, np.ndarray]  # F, f32[N] each
  columns: list[dict[str, Any]]  # N, {'<function>/<column>': value}
  counters: dict[str, int]  # <function>_errors and <function>_timeouts
  errors: list[str]  # one line for each call counted, '<function>: ...'


class Functions:
  """The user's functions, in worker processes of their own."""

  def __init__(self, functions: Mapping[str, str], workers: int,
               timeout_seconds: float, reserved: Iterable[str] = ()):
    """Loads each function once, in a worker, so that its errors show now.

    Args:
      functions: {name: 'FILE.py:FUNCTION' or 'PACKAGE.MODULE:FUNCTION'}.
      workers: processes.
      timeout_seconds: of a call.
      reserved: names that a function cannot have, besides those of names.py.

    Raises:
      ConfigError: names the field of config.rewards.functions.
    """
    self._functions = dict(functions)
    names.check('rewards.functions', self._functions, reserved)
    self._pool = workers_lib.Pool(
        workers, timeout_seconds, serve='r1jax.rewards.function_worker')
    self._is_async = {}
    for name, place in self._functions.items():
      field = f'rewards.functions.{name}'
      user_code.check(place, field)
      try:
        outcome, = self._pool.run([workers_lib.Job(place, field, None, None)])
      except workers_lib.LoadError as problem:
        self.close()
        _, ours, detail = problem.detail.partition(
            f'ConfigError: config.{field}: ')
        raise errors.ConfigError(
            field, detail if ours else
            f'{place} cannot be loaded: {problem.detail}') from problem
      self._is_async[name] = bool(outcome.value)

  def score(self, records: Sequence[Mapping], responses: Sequence[Any]
            ) -> FunctionScores:
    """The values of N responses to N records; see Scorer.score."""
    scored = FunctionScores({}, [{} for _ in records], {}, [])
    rows = [_fields(record, response)
            for record, response in zip(records, responses, strict=True)]
    for name, place in self._functions.items():
      outcomes = self._pool.run(
          [workers_lib.Job(place, f'rewards.functions.{name}', response.text,
                           row) for response, row in zip(responses, rows)],
          together=self._is_async[name])
      scored.values[name] = np.array([o.value for o in outcomes], np.float32)
      for status in ('errors', 'timeouts'):
        scored.counters[f'{name}_{status}'] = sum(
            outcome.status == status for outcome in outcomes)
      for columns, outcome in zip(scored.columns, outcomes):
        columns.update({f'{name}/{column}': value
                        for column, value in outcome.columns.items()})
        if outcome.status != 'ok':
          scored.errors.append(f'{name}: {outcome.detail}')
    return scored

  @property
  def restarts(self) -> int:
    """See workers.Pool."""
    return self._pool.restarts

  def close(self):
    self._pool.close()


def _fields(record: Mapping, response: Any) -> dict[str, Any]:
  """The record as a function sees it."""
  return {**record.get('row', {}), 'step': None, **record,
          'tokens': response.tokens, 'finished': response.finished}


def column_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """{'<function>/<column>': mean} of the numbers among logged columns.

  A row without the column does not count; text is not averaged.
  """
  numbers_of = {}
  for row in rows:
    for name, value in row.items():
      if '/' in name and isinstance(value, numbers.Real) and (
          math.isfinite(value)):
        numbers_of.setdefault(name, []).append(float(value))
  return {name: sum(values) / len(values)
          for name, values in numbers_of.items()}
