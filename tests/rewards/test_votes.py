"""Votes against brute force, and which answers are the same."""

import itertools
import random

import numpy as np
import pytest

from r1jax.rewards import votes
from r1jax.rewards import workers


@pytest.fixture(name='pool', scope='module')
def _pool():
  pool = workers.Pool(2, 20.)
  yield pool
  pool.close()


def _record(verifier='math', **fields):
  return dict(verifier=verifier, task='t', answer='never read', prompt='',
              **fields)


def _classes(answers, pool, **fields):
  (found,), counters = votes.classes([_record(**fields)], [answers], pool)
  return found, counters


@pytest.mark.parametrize('answers, expected', [
    (['1/2', '0.5', r'\frac{1}{2}', None, '2'], [0, 0, 0, None, 1]),
    (['7', ' 7', '7.0', '8'], [0, 0, 0, 1]),
    ([None, None], [None, None]),
    (['x+1', '1+x', '2'], [0, 0, 1]),
])
def test_equal_answers_have_one_vote_each_for_the_same(answers, expected, pool):
  found, counters = _classes(answers, pool)
  names = {}
  assert [None if n is None else names.setdefault(n, len(names))
          for n in found] == expected
  assert counters == dict(errors=0, timeouts=0, refused=0)


def test_the_order_of_samples_decides_nothing(pool):
  answers = ['1/2', '0.5', '2', '3', '2.0']
  for order in itertools.permutations(range(5)):
    found, _ = _classes([answers[n] for n in order], pool)
    back = dict(zip(order, found))
    assert [back[n] for n in range(5)] == [0, 0, 1, 2, 1]


def test_a_verifier_that_compares_no_two_answers_compares_texts(pool):
  found, _ = _classes(['Yes', 'yes ', 'no', '1/2', '0.5'], pool,
                      verifier='judge')
  assert [found[0] == found[1], len(set(found))] == [True, 4]


def test_what_names_no_choice_has_no_vote(pool):
  found, _ = _classes(['C', 'so it is (C)', 'I do not know', 'D'], pool,
                      verifier='choice', options=('a', 'b', 'c', 'd'))
  assert found[0] == found[1] not in (None, found[3]) and found[2] is None
  # Letters are compared, not texts: three of 100,000 letters are soon done.
  found, _ = _classes([f'{"x " * 50_000}\nAnswer: {letter}' for letter in 'ABA'],
                      pool, verifier='choice', options=('a', 'b', 'c', 'd'))
  assert found[0] == found[2] != found[1]


def test_a_comparison_that_fails_is_counted_and_joins_nothing(pool):
  long = '1' * 2_000  # is refused
  found, counters = _classes([long, long + ' + 0', '3'], pool)
  assert len(set(found)) == 3 and counters['refused'] == 1


def test_chains_are_one_class():
  same = {('a', 'b'), ('b', 'c'), ('d', 'e')}
  number = votes.joined(list('abcdef'), same)
  assert number == dict(a=0, b=0, c=0, d=1, e=1, f=2)


def test_a_tie_is_the_expected_value():
  assert votes.majority([0, 0, 1, 1, 2], [1., 1., 0., 0., 0.]) == .5
  assert votes.majority([1, 1, 0, 0, 2], [0., 0., 1., 1., 0.]) == .5
  assert votes.majority([0, 1, 2], [1., 0., 0.]) == pytest.approx(1 / 3)


def test_without_an_answer_there_is_no_vote():
  assert votes.majority([None, None, None, 0], [0., 0., 0., 1.]) == 1.
  assert votes.majority([None, None], [0., 0.]) == 0.


def _drawn(answers, right):
  """The mean accuracy over every way to break ties: what majority is."""
  given = [a for a in answers if a is not None]
  if not given:
    return 0.
  count = {a: given.count(a) for a in given}
  first = [a for a in count if count[a] == max(count.values())]
  return float(np.mean([right[answers.index(a)] for a in first]))


def test_majorities_of_random_answers():
  draw = random.Random(0)
  for _ in range(300):
    k = draw.randint(1, 8)
    answers = [draw.choice([None, 0, 1, 2, 3]) for _ in range(k)]
    truth = draw.randint(0, 3)
    right = [float(a == truth) for a in answers]
    assert votes.majority(answers, right) == pytest.approx(
        _drawn(answers, right))
