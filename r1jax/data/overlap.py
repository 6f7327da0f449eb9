"""What a benchmark and a training set have in common, word for word.

A text is the sequence of its words: letters and digits in lower case, without
punctuation, and every Chinese character alone. Two texts overlap if n words in
a row of one occur in the other: DeepSeek-R1 removed training texts with 10 in
common with a question or its reference solution (arXiv 2501.12948v2, D.1);
GPT-3 counted 13 (arXiv 2005.14165, C).
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
import unicodedata

from r1jax.rewards import text_rules

_SOLUTIONS = ('answer', 'solution', 'canonical_solution', 'code',
              'Explanation')

Texts = tuple[str, Sequence[str]]  # the place of a row, and the texts in it


class Problem(NamedTuple):
  """A problem of a benchmark."""
  question: str
  solution: str = ''  # the reference, '' if it is not given


class Match(NamedTuple):
  """What a problem has in common with a training set."""
  problem: int  # its number
  exact: bool  # one training text holds the whole question
  shared: int  # of the question's n-grams, those anywhere in the training set
  grams: int  # of the question
  solution: int  # of the solution's n-grams, the shared ones
  place: str  # the row that has most of them
  text: str  # of that row, the one with most of them
  words: str  # the first n words in common with it; '' if it is too short


class Overlap(NamedTuple):
  """What a benchmark has in common with a training set."""
  problems: int
  short: int  # questions of fewer than n words: found only as a whole text
  matches: list[Match]  # in the order of the problems
  rows: int  # of the training set
  words: int  # of it

  def counts(self) -> dict[str, int]:
    """Problems, and those found: exactly, by half of the question, by any n
    words of it, by n words of the solution."""
    return dict(
        problems=self.problems, short=self.short,
        exact=sum(match.exact for match in self.matches),
        half=sum(match.exact or 0 < match.grams <= 2 * match.shared
                 for match in self.matches),
        question=sum(match.shared > 0 for match in self.matches),
        solution=sum(match.solution > 0 for match in self.matches),
        any=len(self.matches))


def problem(record: Mapping[str, Any]) -> Problem:
  """The question of a record, and the solutions that its row has.

  A program, which is the answer of a record without a row, may begin with the
  question: that is no part of the solution.
  """
  question = record.get('question', record['prompt'])
  row = record.get('row', {})
  if not row and record.get('verifier') == 'code':
    row = {'answer': record['answer'].removeprefix(question)}
  return Problem(
      question,
      '\n'.join(row[name] for name in _SOLUTIONS
                if isinstance(row.get(name), str)))


def texts_within(value: Any) -> Iterator[str]:
  """All texts within a row, whatever its columns are called."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping):
    for inside in value.values():
      yield from texts_within(inside)
  elif isinstance(value, list | tuple):
    for inside in value:
      yield from texts_within(inside)


def words_of(text: str) -> list[str]:
  """The words of a text, as they are compared."""
  return text_rules.words(unicodedata.normalize('NFKC', text))


def overlaps(suites: Mapping[str, Sequence[Problem]], rows: Iterable[Texts],
             n: int) -> dict[str, Overlap]:
  """What each benchmark has in common with a training set, in one pass.

  Args:
    suites: the problems of each benchmark.
    rows: the training set.
    n: words in a row.
  """
  index = _Index(suites, n)
  count = number = 0
  for place, texts in rows:
    count += 1
    for text in texts:
      words = words_of(text)
      number += len(words)
      index.look_up(place, text, words)
  return {name: index.overlap(name, count, number) for name in suites}


class _Index:
  """The n-grams of all problems, and what is found of them."""

  def __init__(self, suites: Mapping[str, Sequence[Problem]], n: int):
    self._n = n
    self._sizes = {name: len(problems) for name, problems in suites.items()}
    self._numbers = {}  # of each n-gram
    # Of each number, who has it: (suite, number, part).
    self._holders = collections.defaultdict(list)
    self._whole = collections.defaultdict(set)  # short questions
    self._questions, self._grams = {}, collections.Counter()
    self._found = collections.defaultdict(set)  # n-grams, of the same key
    self._exact = set()
    # By the n-grams that a text has in common: the questions it may hold whole.
    self._held = {}
    self._best = {}  # (n-grams in common, place, text, first words)
    for name, problems in suites.items():
      for number, parts in enumerate(problems):
        for part, text in enumerate(parts):
          words = words_of(text)
          grams = set(_grams(words, n))
          if part == 0:
            self._questions[name, number] = ' '.join(words)
            self._grams[name, number] = len(grams)
            if not grams and words:
              self._whole[tuple(words)].add((name, number))
          for gram in grams:
            at = self._numbers.setdefault(gram, len(self._numbers))
            self._holders[at].append((name, number, part))

  def look_up(self, place: str, text: str, words: Sequence[str]) -> None:
    """Notes what a training text has in common with any problem."""
    common = tuple(dict.fromkeys(
        self._numbers[gram] for gram in _grams(words, self._n)
        if gram in self._numbers))
    if common not in self._held:
      self._held[common] = self._shared(place, text, words, common)
    held = self._held[common]
    line = f' {" ".join(words)} ' if held else ''
    self._exact.update(
        key for key in held if f' {self._questions[key]} ' in line)
    for key in self._whole.get(tuple(words), ()):
      self._exact.add(key)
      self._note(key, 1, place, text, ())

  def _shared(self, place: str, text: str, words: Sequence[str],
              common: tuple[int, ...]) -> list[tuple[str, int]]:
    """Notes the n-grams in common; the questions of which all are among them.

    A second text with the same ones adds nothing: an instruction that begins
    every row and every problem is looked up once.
    """
    seen = collections.defaultdict(list)  # n-grams of each, in their order
    for at in common:
      for key in self._holders[at]:
        seen[key].append(at)
    first = {}
    for gram in _grams(words, self._n):
      first.setdefault(self._numbers.get(gram), gram)
    for key, grams in seen.items():
      self._found[key].update(grams)
      self._note(key[:2], len(grams), place, text, first[grams[0]])
    return [key[:2] for key, grams in seen.items()
            if key[2] == 0 and len(grams) == self._grams[key[:2]]]

  def _note(self, key: tuple[str, int], count: int, place: str, text: str,
            gram: Sequence[str]) -> None:
    if count > self._best.get(key, (0,))[0]:
      self._best[key] = count, place, text, ' '.join(gram)

  def overlap(self, name: str, rows: int, words: int) -> Overlap:
    size = self._sizes[name]
    matches = [
        Match(number, (name, number) in self._exact,
              len(self._found.get((name, number, 0), ())),
              self._grams[name, number],
              len(self._found.get((name, number, 1), ())),
              *self._best[name, number][1:])
        for number in range(size) if (name, number) in self._best]
    short = sum(not self._grams[name, number] for number in range(size))
    return Overlap(size, short, matches, rows, words)


def _grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
  """All n words in a row."""
  return zip(*(words[first:] for first in range(n)))
