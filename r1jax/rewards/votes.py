"""Votes: which answers to a problem are the same, and what most of them say.

cons@k of DeepSeek-R1 (arXiv 2501.12948, 3) is the accuracy of the majority of k
answers. A class of answers has one vote for each sample that gives one of
them: 0.5 and 1/2 are a class where the problem's verifier says so. A sample
without an answer has no vote. Where classes tie, the figure is the expected
value over a draw among them, so that the order of samples decides nothing.
"""

from collections.abc import Mapping, Sequence
import itertools

import numpy as np

from r1jax.rewards import accuracy
from r1jax.rewards import choices
from r1jax.rewards import workers

# Verifiers of whole texts, of which hardly two are the same: no vote is taken.
WITHOUT = ('code', 'instructions')


def classes(records: Sequence[Mapping],
            answers: Sequence[Sequence[str | None]], pool: workers.Pool
            ) -> tuple[list[list[int | None]], dict[str, int]]:
  """The class of each answer, numbered within its problem from 0.

  Two answers are the same if the record's verifier takes one for the other as
  its reference, or by a chain of such; where it compares no two answers, as a
  judge does not, if their texts are. What the verifier cannot decide is not
  the same, and counted; what it does not take for itself, as a text without the
  letter of a choice, has no vote. 64 different formulas make 2,080 pairs.

  Args:
    records: B problems.
    answers: B times k, None where a response gives none.
    pool: runs the verifiers that need a worker.

  Returns:
    B times k numbers, None for no answer; the counters of accuracy.py.
  """
  answers = [[None if answer is None else _text(record, answer)
              for answer in part]
             for record, part in zip(records, answers, strict=True)]
  texts = [sorted(set(part) - {None}) for part in answers]
  pairs, asked = [], []
  for problem, (record, found) in enumerate(zip(records, texts)):
    if _compares(record):
      for one, other in itertools.combinations_with_replacement(found, 2):
        pairs.append((problem, one, other))
        asked.append({**record, 'answer': one, 'alternatives': ()})
  checked = accuracy.check_answers(
      asked, [other for _, _, other in pairs], pool)
  same = [set() for _ in records]
  for (problem, *pair), right in zip(pairs, checked.right):
    if right == 1.:
      same[problem].add(tuple(pair))
  numbers = [joined([text for text in found if not _compares(record)
                     or (text, text) in equal], equal)
             for record, found, equal in zip(records, texts, same)]
  return ([[number.get(answer) for answer in part]
           for part, number in zip(answers, numbers)], checked.counters)


def _compares(record: Mapping) -> bool:
  return accuracy.VERIFIERS[record['verifier']].compares


def _text(record: Mapping, answer: str) -> str:
  """An answer without what surely makes no difference."""
  if record['verifier'] == 'choice':
    return choices.letter(answer, record['options']) or ''
  text = answer.strip()
  return text if _compares(record) else text.casefold()


def joined(texts: Sequence[str], same: set[tuple[str, str]]) -> dict[str, int]:
  """The number of each text's class, where the pairs in `same` are joined."""
  number = {text: n for n, text in enumerate(texts)}
  for pair in sorted(same):
    if number.keys() >= set(pair):
      low, high = sorted(number[text] for text in pair)
      if low < high:
        number = {text: low if n == high else n for text, n in number.items()}
  names = {n: i for i, n in enumerate(sorted(set(number.values())))}
  return {text: names[n] for text, n in number.items()}


def majority(votes: Sequence[int | None], right: Sequence[float]) -> float:
  """The accuracy of the answer with most votes; expected, where several tie.

  Votes [0, 0, 1, 1, 2] of which only class 0 is right: 1/2. Without any vote
  it is 0.

  Args:
    votes: k, the class of each sample's answer, None for no answer.
    right: k, the accuracy of each; of a class it is their mean.
  """
  by_class = {}
  for vote, value in zip(votes, right, strict=True):
    if vote is not None:
      by_class.setdefault(vote, []).append(value)
  most = max(map(len, by_class.values()), default=0)
  tied = [np.mean(values) for values in by_class.values()
          if len(values) == most]
  return float(np.mean(tied)) if tied else 0.
