"""The references of the evaluation suites: each is itself, and no other."""

import collections
import itertools
import json
import random

import pytest
import shared_data

from r1jax.rewards import mathematics

_SUITES = ('math', 'amc', 'aime', 'minerva', 'olympiad_bench')
_WORDS = ('text', 'where', 'cents')
# Pairs that differ as texts and are equal: by mathematics, or as lists.
_EQUAL = {('\\pi', '180^\\circ'), ('1,-2', '-2,1'), ('2,3,4', '2,4,3'),
          ('$f(n)=n$', '$f(z)=z$')}


def _golds(suite):
  """The list of right answers of each record."""
  with shared_data.path(f'evaluation_suite/{suite}.jsonl').open() as lines:
    answers = [json.loads(line)['answer'] for line in lines]
  return [list(map(str, answer if isinstance(answer, list) else [answer]))
          for answer in answers]


def _rewritings(gold):
  inner = gold.strip().rstrip('.')
  yield inner
  if '$' not in inner:
    yield f'${inner}$'
    yield f'\\({inner}\\)'
  yield f'\\boxed{{{inner}}}'
  yield f'The answer is {inner}.'
  yield f'Answer: {inner}'
  yield f'**{inner}**'
  yield inner.replace('\\frac', '\\dfrac').replace('-', '\u2212')
  if '\\left' not in inner:
    yield inner.replace('(', '\\left(').replace(')', '\\right)')
  if not any(word in inner for word in _WORDS):
    yield inner.replace(' ', '  ').replace('+', ' + ')


@pytest.mark.parametrize('suite', _SUITES)
def test_each_reference_is_itself_however_it_is_written(suite):
  for gold in itertools.chain(*_golds(suite)):
    for answer in _rewritings(gold):
      assert mathematics.equal(answer, gold), (gold, answer)


def _distinct(suite):
  return list(dict.fromkeys(
      gold.strip() for gold in itertools.chain(*_golds(suite))))


def _spelling(gold):
  """A text without what never matters in these suites."""
  for idle in (' ', '{', '}', '$', '\\left', '\\right'):
    gold = gold.replace(idle, '')
  return gold


def _differ(pairs):
  equal = [(x, y) for x, y in pairs if mathematics.equal(y, x)]
  return [(x, y) for x, y in equal
          if _spelling(x) != _spelling(y) and (x, y) not in _EQUAL]


def test_no_two_references_are_equal():
  golds = [gold for gold in _distinct('math') if not gold.isdigit()]
  lists = [gold for gold in golds if ',' in gold]
  pairs = list(itertools.combinations(lists, 2))
  pairs += [random.Random(n).sample(golds, 2) for n in range(3_000)]
  assert _differ(map(tuple, pairs)) == []


@pytest.mark.slow
@pytest.mark.parametrize('suite', _SUITES)
def test_no_two_of_all_references_are_equal(suite):
  """Every pair but those of integers, which 36 cm and 36 degrees equal, too.

  Those of Minerva that are equal name one quantity twice.
  """
  golds = [gold for gold in _distinct(suite) if not gold.strip('$').isdigit()]
  found = _differ(itertools.combinations(golds, 2))
  if suite == 'minerva':
    alike = collections.Counter(map(frozenset, found))
    assert len(alike) < 40 and all('\\' in x + y or 'e' in x for x, y in found)
  else:
    assert [pair for pair in found
            if pair != ('$1/3$', '$\\frac{1}{3}$')] == []
