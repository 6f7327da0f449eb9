"""The base corpus's responses: right by the scorer, and mixed as written."""

import collections
import itertools
import random
import re

import pytest
import reasoning_gym
from reasoning_gym.arithmetic import leg_counting

from r1jax.mini import arithmetic
from r1jax.mini import general

TAGGED = re.compile(
    r'<think> ((?:(?!<think>).)*) </think> <answer> ([^<]*) </answer>', re.S)
SLIPPED = re.compile(r'not (-?\d+)\.|不是(-?\d+)。')
EQUATION = re.compile(r'(-?\d+)([-+*])(\d+)=(-?\d+)')


def _score(record, answer):
  scorer = reasoning_gym.get_score_answer_fn(record['task'])
  return scorer(answer, record['entry'])


def _value(a, op, b):
  return {'+': a + b, '-': a - b, '*': a * b}[op]


def test_animals_are_reasoning_gym_s():
  assert {name: general.legs(name) for name in leg_counting.ANIMALS} == (
      leg_counting.ANIMALS)


@pytest.mark.parametrize('mode', list(arithmetic.MODES))
def test_a_right_response_scores_one_and_a_wrong_one_does_not(mode, problems):
  rng = random.Random(0)
  for record in problems:
    response = arithmetic.respond(rng, record['entry'], mode)
    assert response.mode == mode
    last = re.findall(r'-?\d+(?:[-+]\d+i)?', response.text)[-1]
    assert (_score(record, last) == 1.) == response.right
    found = TAGGED.fullmatch(response.text)
    assert (found is None) == (mode in ('direct', 'broken'))
    if found:
      assert found[2] == last
      assert bool(EQUATION.search(found[1])) == (mode != 'direct_tagged')


@pytest.mark.parametrize('mode', ['short_en', 'short_zh', 'long_en', 'long_zh'])
def test_worked_responses_keep_to_their_language(mode, problems):
  for record in problems[:90]:
    text = arithmetic.respond(random.Random(0), record['entry'], mode).text
    thought = TAGGED.fullmatch(text)[1]
    assert bool(re.search('[a-hj-z]', thought)) == mode.endswith('en')
    assert bool(re.search('[\u4e00-\u9fff]', thought)) == mode.endswith('zh')


@pytest.mark.parametrize('mode', ['short_en', 'long_en', 'long_zh', 'mixed'])
def test_each_operation_is_true_but_for_the_slip_it_mends(mode, problems):
  rng, mended = random.Random(0), 0
  for record in problems:
    response = arithmetic.respond(rng, record['entry'], mode)
    wrong = []
    for a, op, b, value in EQUATION.findall(response.text):
      if _value(int(a), op, int(b)) != int(value):
        wrong.append(value)
    slips = [a or b for a, b in SLIPPED.findall(response.text)]
    if response.right:
      assert len(slips) <= 1 and wrong == slips
      mended += len(slips)
  share = mended / len(problems)
  expected = {'short_en': 0., 'mixed': arithmetic.MENDED / 2}.get(
      mode, arithmetic.MENDED)
  assert share == pytest.approx(expected, abs=.04)


def test_broken_responses_come_in_both_languages(problems):
  rng = random.Random(0)
  texts = [arithmetic.respond(rng, r['entry'], 'broken').text
           for r in problems]
  assert sum('先算' in t for t in texts) / len(texts) == (
      pytest.approx(.5, abs=.08))


def test_split_of_a_step_by_hand():
  step = arithmetic.Step('', 47, '*', 6, 282)
  assert [s[1:] for s in arithmetic.digit_by_digit(step)] == [
      (40, '*', 6, 240), (7, '*', 6, 42), (240, '+', 42, 282)]
  step = arithmetic.Step('', 135, '-', 47, 90)  # a slip stays the value
  assert [s[1:] for s in arithmetic.digit_by_digit(step)] == [
      (135, '-', 40, 95), (95, '-', 7, 90)]
  step = arithmetic.Step('ant', 3, '*', 0, 0)
  assert [s[1:] for s in arithmetic.digit_by_digit(step)] == [(3, '*', 0, 0)]


def test_modes_and_mistakes_have_their_documented_shares(problems):
  assert sum(arithmetic.MODES.values()) == pytest.approx(1.)
  assert sum(general.DOCUMENTS.values()) == pytest.approx(1.)
  rng, drawn = random.Random(0), []
  for record in problems * 10:
    drawn.append(arithmetic.respond(rng, record['entry']))
  count = collections.Counter(r.mode for r in drawn)
  for mode, share in arithmetic.MODES.items():
    assert count[mode] / len(drawn) == pytest.approx(share, abs=.02)
  wrong = collections.Counter(r.mode for r in drawn if not r.right)
  direct = ('direct', 'direct_tagged')
  assert sum(wrong[m] for m in direct) / sum(count[m] for m in direct) == (
      pytest.approx(arithmetic.WRONG_DIRECT, abs=.02))
  worked = [m for m in arithmetic.MODES if m not in direct]
  assert sum(wrong[m] for m in worked) / sum(count[m] for m in worked) == (
      pytest.approx(arithmetic.WRONG_WORKED, abs=.015))


def test_greedy_decoding_of_the_corpus_answers_at_once(problems):
  """The likeliest first word, then the likeliest after it, hold no work."""
  rng = random.Random(0)
  first, second = collections.Counter(), collections.Counter()
  for record in problems * 5:
    words = arithmetic.respond(rng, record['entry']).text.split()
    first[words[0]] += 1
    if words[0] == '<think>':
      second[words[1][:2]] += 1
  assert first.most_common(1)[0][0] == '<think>'
  (likeliest, count), (_, runner_up) = second.most_common(2)
  assert likeliest == 'I' and count > 1.2 * runner_up


@pytest.mark.parametrize('text, expected', [
    ('First 3+4=7.', True), ('再算3+4=8。', False), ('Easy.', None),
    ('2+18: 2+10=12, 12+8=20.', True), ('2+18: 2+10=12, 12+8=21.', False),
    ('Then 6--1=7.', True), ('Then -6+1=-5.', True), ('3+4+1=8', None),
    ('6*1=6*2', None)])
def test_whether_the_equations_of_a_text_hold(text, expected):
  assert arithmetic.holds(text) is expected


def test_all_equations_of_worked_steps_hold(problems):
  rng = random.Random(0)
  for entry in [record['entry'] for record in problems]:
    steps, _ = arithmetic.solve(entry)
    assert arithmetic.holds(arithmetic.short_thought(
        steps, itertools.repeat('en'))) is True
    slipped, _ = arithmetic.solve(entry, rng, 0)
    assert arithmetic.holds(arithmetic.short_thought(
        slipped, itertools.repeat('zh'))) is False
