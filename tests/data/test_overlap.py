"""Tests of the overlap of a benchmark with a training set."""

import random
import re

import pytest

from r1jax.data import overlap

Problem = overlap.Problem


def _grams(text, n):
  words = re.findall(r'\w+', text.lower())
  return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


def _slow(suites, rows, n):
  """Counts by comparing every n words of each text with every other's."""
  found = {}
  for name, problems in suites.items():
    for number, (question, solution) in enumerate(problems):
      words = re.findall(r'\w+', question.lower())
      common, solved, exact = set(), set(), False
      for _, texts in rows:
        for text in texts:
          common |= _grams(question, n) & _grams(text, n)
          solved |= _grams(solution, n) & _grams(text, n)
          other = re.findall(r'\w+', text.lower())
          if len(words) >= n:
            exact |= any(other[i:i + len(words)] == words
                         for i in range(len(other)))
          elif words:
            exact |= other == words
      if common or solved or exact:
        found[name, number] = exact, common, solved
  return found


@pytest.mark.parametrize('n', [1, 2, 3, 5])
def test_against_brute_force(n):
  rng = random.Random(n)

  def text(longest):
    return ' '.join(rng.choice('abcdefg') for _ in range(
        rng.randrange(longest))).replace('b c', 'B, c')

  suites = {name: [Problem(text(12), text(9)) for _ in range(40)]
            for name in ('one', 'two')}
  rows = [(f'place{i}', [text(9) for _ in range(3)]) for i in range(20)]
  rows += [('holds', ['g ' + suites['one'][k].question + ' g'])
           for k in range(5)]
  rows += [('is', [suites['two'][k].question]) for k in range(5)]
  expected = _slow(suites, rows, n)
  found = overlap.overlaps(suites, rows, n)
  assert {(name, match.problem): (match.exact, match.shared, match.solution)
          for name, each in found.items() for match in each.matches} == {
              key: (exact, len(common), len(solved))
              for key, (exact, common, solved) in expected.items()}
  assert 8 < len(expected) <= 80
  for name, each in found.items():
    counts = each.counts()
    mine = [value for key, value in expected.items() if key[0] == name]
    assert counts['exact'] == sum(exact for exact, _, _ in mine)
    assert counts['question'] == sum(bool(common) for _, common, _ in mine)
    grams = {key[1]: len(_grams(suites[name][key[1]].question, n))
             for key in expected if key[0] == name}
    assert counts['half'] == sum(
        exact or bool(common) and len(common) >= grams[key[1]] / 2
        for key, (exact, common, _) in expected.items() if key[0] == name)
    assert counts['solution'] == sum(bool(solved) for _, _, solved in mine)
    assert counts['any'] == len(mine) and counts['problems'] == 40
    assert each.rows == len(rows)
    assert each.words == sum(
        len(re.findall(r'\w+', t)) for _, texts in rows for t in texts)


def test_case_punctuation_width_and_line_breaks_do_not_count():
  suites = {'s': [Problem('How many eggs, per day?'), Problem('1+1')]}
  rows = [('x:1', ['how MANY\neggs -- per day']), ('x:2', ['\uff11 \uff0b 1'])]
  found, = overlap.overlaps(suites, rows, 3).values()
  assert [(match.exact, match.place) for match in found.matches] == [
      (True, 'x:1'), (True, 'x:2')]
  assert found.short == 1


def test_a_match_shows_the_text_that_has_most_of_the_problem():
  question = 'a b c d e f'
  suites = {'s': [Problem(question), Problem('x y z', 'no')]}
  rows = [('r:1', ['a b c']), ('r:2', ['q', 'b c d e', 'c d e']),
          ('r:3', ['a b c d'])]
  match, = overlap.overlaps(suites, rows, 3)['s'].matches
  assert match == overlap.Match(
      0, exact=False, shared=3, grams=4, solution=0, place='r:2',
      text='b c d e', words='b c d')


def test_a_question_within_longer_words_is_not_held():
  suites = {'s': [Problem('a b c')]}
  match, = overlap.overlaps(suites, [('r', ['a b cd a b c'])], 2)['s'].matches
  assert match.exact
  match, = overlap.overlaps(suites, [('r', ['a b cd'])], 2)['s'].matches
  assert not match.exact and match.shared == 1


def test_chinese_characters_are_words():
  assert overlap.words_of('\u5c0f\u660e\u67093\u4e2a') == [
      '\u5c0f', '\u660e', '\u6709', '3', '\u4e2a']


def test_all_texts_of_a_row_are_found():
  row = {'messages': [{'role': 'user', 'content': 'a'}, {'content': 'b'}],
         'n': 3, 'more': {'deep': ['c', None]}}
  assert list(overlap.texts_within(row)) == ['user', 'a', 'b', 'c']


def test_the_problem_of_a_record_is_its_question_without_the_words_around():
  record = dict(prompt='Answer A to D. 1+1?', question='1+1?',
                row=dict(answer='It is #### 2', Explanation='since', n=1))
  assert overlap.problem(record) == Problem('1+1?', 'It is #### 2\nsince')
  assert overlap.problem(dict(prompt='1+1?')) == Problem('1+1?')


def test_an_instruction_that_all_begin_with_is_compared_once(monkeypatch):
  """Else 17,000 prompts and a benchmark of 1,000 are 17 million pairs."""
  notes, note = [], overlap._Index._note
  monkeypatch.setattr(overlap._Index, '_note', lambda self, *args: (
      notes.append(args), note(self, *args)))
  begin = 'solve the problem step by step '
  suite = [Problem(f'{begin} what is {n} and {n} and {n}') for n in range(20)]
  rows = [(f'row {n}', [f'{begin} add {n}']) for n in range(30)]
  rows += [('holds', [f'so: {suite[3].question}!']), ('again', ['x ' + begin])]
  found = overlap.overlaps({'suite': suite}, rows, 5)['suite']
  assert len(found.matches) == 20 and len(notes) == 2 * 20
  assert [match.problem for match in found.matches if match.exact] == [3]
  assert {match.place for match in found.matches} == {'holds'}
