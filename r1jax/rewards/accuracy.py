"""The accuracy reward: is the response's answer right, by the record's rule?

Where a verifier's plain comparison gives a result, it is used; else the answer
goes to a worker process. One that could run code or is too long is refused: it
scores 0 and is counted. A program goes to workers that run it in a sandbox
(code), and why it did not pass is counted.
"""

import collections
from collections.abc import Iterable
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from r1jax.mini import gold
from r1jax.rewards import answers as answers_lib
from r1jax.rewards import verifiers
from r1jax.rewards import workers
from r1jax.rewards.code import judge
from r1jax.rewards.code import programs as programs_lib

# Every verifier: those of the field, and the miniature world's.
VERIFIERS = verifiers.VERIFIERS | {
    name: verifiers.Verifier(at_once=rule) for name, rule in gold.RULES.items()}
COUNTERS = ('errors', 'timeouts', 'refused')
VERDICT = 'verdict'  # the column of a program's


class Accuracy(NamedTuple):
  """The accuracy of a batch of N answers."""
  right: np.ndarray  # f32[N], 1 or 0; in between by a rule that grades
  counters: dict[str, int]  # each of COUNTERS; code_<verdict> of programs
  errors: list[str]  # one line for each answer counted, in order
  columns: list[dict[str, Any]]  # N, what to log: a program's verdict


def find_answer(record: Mapping, text: str, answer: str, finished: bool
                ) -> str | None:
  """The answer in a response: its program, or what `answer` marks.

  See programs.extract and answers.extract_answer.
  """
  if is_program(record):
    return programs_lib.extract(text, finished)
  return answers_lib.extract_answer(text, answer, finished)


def is_program(record: Mapping) -> bool:
  """Whether the answer to a record is a program."""
  kind = record.get('verifier')
  return kind in VERIFIERS and VERIFIERS[kind].program


def check_answers(records: Sequence[Mapping], answers: Sequence[str | None],
                  pool: workers.Pool,
                  programs: workers.Pool | None = None) -> Accuracy:
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
    programs: judges programs (code.worker); None: there are none.

  Raises:
    ValueError: a record's verifier is unknown, or lacks its reference.
  """
  right = np.zeros(len(records), np.float32)
  counters = dict.fromkeys(COUNTERS, 0)
  errors, columns = [], [{} for _ in records]
  rows = collections.defaultdict(list)  # {job: rows of the answers it checks}
  jobs = {}
  for row, (record, answer) in enumerate(zip(records, answers, strict=True)):
    references = _references(record)
    if answer is None:
      if is_program(record):
        columns[row] = {VERDICT: judge.MISSING}
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
  for key, outcome in _run(jobs, pool, programs):
    for row in rows[key]:
      columns[row] = dict(outcome.columns)
    right[rows[key]] = np.maximum(right[rows[key]], outcome.value)
    if outcome.status != 'ok':
      counters[outcome.status] += len(rows[key])
      errors.append(f'{jobs[key].task}: {outcome.detail}')
  return Accuracy(
      right, counters | _count_verdicts(records, columns), errors, columns)


def _run(jobs: Mapping[tuple, workers.Job], pool: workers.Pool,
         programs: workers.Pool | None
         ) -> Iterable[tuple[tuple, workers.Outcome]]:
  """Pairs (key, outcome) of all jobs, programs by the pool of their own."""
  of_programs = {key: job for key, job in jobs.items()
                 if VERIFIERS[job.kind].program}
  others = {key: job for key, job in jobs.items() if key not in of_programs}
  for mine, own in ((pool, others), (programs, of_programs)):
    if own:
      yield from zip(own, mine.run(list(own.values())), strict=True)


def _count_verdicts(records: Sequence[Mapping],
                    columns: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  """How often programs did not pass, by their verdict; {}: no programs."""
  if not any(map(is_program, records)):
    return {}
  found = collections.Counter(row.get(VERDICT) for row in columns)
  return {f'code_{name}': found[name]
          for name in judge.VERDICTS if name != judge.PASSED}


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
