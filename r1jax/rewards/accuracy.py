"""The accuracy reward: is the response's answer right, by the record's rule?

Where a verifier's plain comparison gives a result, it is used; else the answer
goes to a worker process. One that could run code or is too long is refused: it
scores 0 and is counted.
"""

import collections
from typing import Mapping, NamedTuple, Sequence

import numpy as np

from r1jax.mini import gold
from r1jax.rewards import verifiers
from r1jax.rewards import workers

# Every verifier: those of the field, and the miniature world's.
VERIFIERS = verifiers.VERIFIERS | {
    name: verifiers.Verifier(at_once=rule) for name, rule in gold.RULES.items()}
COUNTERS = ('errors', 'timeouts', 'refused')


class Accuracy(NamedTuple):
  """The accuracy of a batch of N answers."""
  right: np.ndarray  # f32[N], 1 or 0; in between by a rule that grades
  counters: dict[str, int]  # each of COUNTERS
  errors: list[str]  # one line for each answer counted, in order


def check_answers(records: Sequence[Mapping], answers: Sequence[str | None],
                  pool: workers.Pool) -> Accuracy:
  """Checks each answer by its record's verifier; a missing answer is wrong.

  Any of the record's `alternatives` is as right as its `answer`; decimals may
  differ from it by its `tolerance`, relative (default 0), and the words of its
  `prompt` may be units (42 clips). Equal answers to one record are verified
  once.

  Args:
    records: N, each with 'verifier', 'task' and what its verifier compares
      with.
    answers: N, None where the response gives none.
    pool: runs the verifiers that need a worker.

  Raises:
    ValueError: a record's verifier is unknown, or lacks its reference.
  """
  right = np.zeros(len(records), np.float32)
  counters = dict.fromkeys(COUNTERS, 0)
  errors = []
  rows = collections.defaultdict(list)  # {job: rows of the answers it checks}
  jobs = {}
  for row, (record, answer) in enumerate(zip(records, answers, strict=True)):
    references = _references(record)
    if answer is None:
      continue
    kind, task = record['verifier'], record['task']
    results = [VERIFIERS[kind].at_once(answer, r) for r in references]
    if None not in results or True in results:
      right[row] = max(value for value in results if value is not None)
      continue
    reason = verifiers.refuse_unsafe(kind, task, answer)
    if reason:
      counters['refused'] += 1
      errors.append(f'{task}: refused, {reason}')
      continue
    for number, reference in enumerate(references):
      if results[number] is None:
        key = (id(record), number, answer)
        jobs[key] = workers.Job(kind, task, answer, reference)
        rows[key].append(row)
  for key, outcome in zip(jobs, pool.run(list(jobs.values())), strict=True):
    right[rows[key]] = np.maximum(right[rows[key]], outcome.value)
    if outcome.status != 'ok':
      counters[outcome.status] += len(rows[key])
      errors.append(f'{jobs[key].task}: {outcome.detail}')
  return Accuracy(right, counters, errors)


def _references(record: Mapping) -> list:
  """The right answers that the record's verifier compares with."""
  kind = record.get('verifier')
  if kind not in VERIFIERS:
    raise ValueError(
        f"record['verifier'] must be one of {tuple(VERIFIERS)}, got {kind!r} "
        f"in task {record.get('task')!r}")
  field = VERIFIERS[kind].reference
  if record.get(field) is None:
    raise ValueError(
        f'verifier {kind!r} needs record[{field!r}], which task '
        f"{record.get('task')!r} does not give")
  others = record.get('alternatives', ()) if field == 'answer' else ()
  return [VERIFIERS[kind].terms(record, reference)
          for reference in (record[field], *others)]
