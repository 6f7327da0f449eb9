"""The accuracy reward: is the response's answer right, by the record's rule?

The answer is cut out of the response here. Where plain comparison provably
gives the verifier's own result it is judged here too; else it goes to the
worker processes, unless it could run code or is too long (refused: scores 0
and is counted).
"""

import collections
import re
from typing import Mapping, NamedTuple, Sequence

import numpy as np

from r1jax.data import thinking
from r1jax.mini import gold
from r1jax.rewards import verifiers
from r1jax.rewards import workers

ANSWERS = ('tags', 'boxed', 'any', 'number', 'summary', 'whole')
VERIFIERS = ('math', 'reasoning_gym', 'exact', 'same', 'taste', 'refusal',
             'judge')
COUNTERS = ('verifier_errors', 'verifier_timeouts', 'verifier_refused')

# 15 digits: beyond any answer, and far from where a float would matter.
_INTEGER = re.compile(
    r'-?(?:0|[1-9]\d{0,14}|[1-9]\d{0,2}(?:,\d{3}){1,4})', re.ASCII)
# A minus behind a number or bracket takes away, it is no sign.
_NUMBER = re.compile(
    r'(?:(?<![\w.)])-)?\d+(?:,\d{3})*(?:\.\d+)?', re.ASCII)
_BLOCK = re.compile(
    rf'{thinking.ANSWER}(.*){thinking.END_OF_ANSWER}\s*\Z', re.DOTALL)
_BRACE = re.compile(r'\\.|[{}]', re.DOTALL)  # an escaped brace is no brace


class Accuracy(NamedTuple):
  """What judging a batch of answers gave."""
  right: np.ndarray  # f32[N], 1 or 0; between them where tastes are judged
  counters: dict[str, int]  # each of COUNTERS
  errors: list[str]  # one line for each answer counted, in order


def extract_answer(text: str, answer: str, finished: bool = True) -> str | None:
  """The answer in a response, stripped, or None if it gives none.

  'tags': the content of the only <answer> block, which must end the response.
  'boxed': the content of the last \\boxed{...}. 'any': tags, else boxed.
  'number': the last number, for models that were taught no other form.
  'summary': what is boxed or else tagged behind the thinking, or all that
  stands there, unless it is not `finished`: then it was cut at the limit.
  'whole': all of it, where nothing marks an answer.
  """
  if answer == 'summary':
    text = thinking.summary(text)
    found = _boxed(text)
    if found is None:
      found = _tagged(text) or (text if finished else '')
    return found.strip() or None
  if answer == 'number':
    return (_NUMBER.findall(text) or [None])[-1]
  found = text if answer == 'whole' else None
  if answer in ('tags', 'any'):
    found = _tagged(text)
  if found is None and answer in ('boxed', 'any'):
    found = _boxed(text)
  return found.strip() or None if found is not None else None


def _tagged(text: str) -> str | None:
  if any(text.count(tag) != 1
         for tag in (thinking.ANSWER, thinking.END_OF_ANSWER)):
    return None
  match = _BLOCK.search(text)
  return match.group(1) if match else None


def _boxed(text: str) -> str | None:
  start = text.rfind('\\boxed{')
  if start < 0:
    return None
  start += len('\\boxed{')
  depth = 1
  for brace in _BRACE.finditer(text, start):
    depth += {'{': 1, '}': -1}.get(brace.group(), 0)
    if depth == 0:
      return text[start:brace.start()]
  return None


def check_answers(records: Sequence[Mapping], answers: Sequence[str | None],
          pool: workers.Pool) -> Accuracy:
  """Judges each answer by its record's verifier; no answer is a wrong one.

  Any of the record's `alternatives` is as right as its `answer`. Equal answers
  to one record are verified once. What no rule can tell, a 'judge' settles
  (rewards/judge.py); here it is wrong. A record whose verifier is unknown, or
  that lacks what its verifier needs, is a ValueError.
  """
  right = np.zeros(len(records), np.float32)
  counters = dict.fromkeys(COUNTERS, 0)
  errors = []
  rows = collections.defaultdict(list)  # of each job, whom it judges
  jobs = {}
  for row, (record, answer) in enumerate(zip(records, answers, strict=True)):
    references = _references(record)
    if answer is None or record['verifier'] == 'judge':
      continue
    kind, task = record['verifier'], record['task']
    verdicts = [_at_once(kind, answer, r) for r in references]
    if None not in verdicts or True in verdicts:
      right[row] = max(v for v in verdicts if v is not None)
      continue
    refusal = verifiers.refuse_unsafe(kind, task, answer)
    if refusal:
      counters['verifier_refused'] += 1
      errors.append(f'{task}: refused, {refusal}')
      continue
    for number, reference in enumerate(references):
      if verdicts[number] is None:
        key = (id(record), number, answer)
        jobs[key] = workers.Job(kind, task, answer, reference)
        rows[key].append(row)
  for key, outcome in zip(jobs, pool.run(list(jobs.values())), strict=True):
    right[rows[key]] = np.maximum(right[rows[key]], outcome.value)
    if outcome.status != 'ok':
      counters[f'verifier_{outcome.status}'] += len(rows[key])
      errors.append(f'{jobs[key].task}: {outcome.detail}')
  return Accuracy(right, counters, errors)


def _references(record: Mapping) -> list:
  """What the record's verifier compares with, each a right answer."""
  kind = record.get('verifier')
  if kind not in VERIFIERS:
    raise ValueError(
        f"record['verifier'] must be one of {VERIFIERS}, got {kind!r} in task "
        f"{record.get('task')!r}")
  field = 'entry' if kind == 'reasoning_gym' else 'answer'
  if record.get(field) is None:
    raise ValueError(
        f'verifier {kind!r} needs record[{field!r}], which task '
        f"{record.get('task')!r} does not give")
  more = () if kind == 'reasoning_gym' else record.get('alternatives', ())
  return [record[field], *more]


def _at_once(kind: str, answer: str, reference) -> float | None:
  """The verifier's result where it needs no verifier, else None."""
  if kind == 'taste':
    return gold.taste(answer, reference)
  if kind == 'refusal':
    return gold.refusal(answer, reference)
  if kind == 'same':
    reference = extract_answer(reference, 'summary') or ''
  if kind in ('exact', 'same'):
    return answer.strip().casefold() == reference.strip().casefold()
  if kind == 'math':
    given, wanted = _integer(answer), _integer(reference)
    if given is not None and wanted is not None:
      return given == wanted
  return None


def _integer(text: str) -> int | None:
  text = text.strip()
  return int(text.replace(',', '')) if _INTEGER.fullmatch(text) else None
