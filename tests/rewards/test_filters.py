"""What of a model's responses is kept, and why the rest is not."""

import time

import pytest

from r1jax.rewards import filters

RULES = filters.Rules(
    languages=('en', 'zh'), max_repetition=.3, max_paragraph=60)
GOOD = '<think> First 3+4=7. </think> <answer> 7 </answer>'


def _row(response=GOOD, prompt='What is 3+4?', **fields):
  return dict(prompt=prompt, response=response, finished=True, accuracy=1.,
              format=1.) | fields


@pytest.mark.parametrize('row, reason', [
    (_row(), None),
    (_row(finished=False, accuracy=0.), 'unfinished'),
    (_row(accuracy=0., no_verdict=True), 'no_verdict'),
    (_row(accuracy=.5, format=0.), 'wrong'),
    (_row(format=0.), 'format'),
    (_row('First 3+4=7. 再算7*2=14。'), 'mixed_language'),
    (_row('先算3+4=7。'), 'other_language'),
    (_row('先算3+4=7。', prompt='三加四等于几？'), None),
    (_row('so it is, ' * 10), 'repetition'),
    (_row('a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3 4 5 6 7'),
     'long_paragraph'),
    (_row('x ' * 20 + '\n\n' + ' '.join('abcdefghijklmnopqrst')), 'repetition'),
    (_row('First:\n```\nprint(7)\n```'), 'code_block'),
    (_row(''), 'other_language'),
    # Loops in which no word is said twice.
    (_row(f"So {'!' * 5000}"), 'repetition'),
    (_row('So ha' + 'ha' * 3000), 'repetition'),
    # A prompt without words, or in no language that is told apart.
    (_row('It is 36.', prompt='12*3='), None),
    (_row('先算12*3=36。', prompt='12*3='), None),
    (_row('It is 36.', prompt='Сколько будет'), None),
    (_row('It is 36. 就是三十六', prompt='12*3='), 'mixed_language'),
    (_row('先算3+4=7。', prompt='x = $\\text{so}$, twice x?'), 'other_language'),
    (_row('First:\n\n \t ~~~\nprint(7)'), 'code_block'),
    (_row('First: ```7```'), None),
])
def test_every_reason_by_hand(row, reason):
  assert filters.drop_reason(RULES, row) == reason


@pytest.mark.parametrize('changes, row, reason', [
    # Of ten 4-grams four are distinct, and then six.
    ({}, _row('so it is and so it is and so it is and so'), 'repetition'),
    (dict(max_repetition=.5), _row('a b c d e f a b c d e f a'), None),
    (dict(max_repetition=0.), _row('so it is and so it is and'), 'repetition'),
    (dict(max_repetition=0.), _row('so it is and was'), None),
    (dict(min_accuracy=.5), _row(accuracy=.5), None),
    (dict(min_accuracy=.5), _row(accuracy=.25), 'wrong'),
    (dict(max_paragraph=len(GOOD)), _row(), None),
    (dict(max_paragraph=len(GOOD) - 1), _row(), 'long_paragraph'),
    (dict(max_paragraph=30), _row('It is as long\nas two short lines are.'),
     'long_paragraph'),
    (dict(max_paragraph=30), _row('It is as long\n\nas two short ones.'),
     None)])
def test_limits_by_hand(changes, row, reason):
  assert filters.drop_reason(RULES._replace(**changes), row) == reason


def test_what_is_dropped_unless_it_is_asked_for():
  for row, reason in ((_row(accuracy=.9), 'wrong'), (_row(format=0.), 'format'),
                      (_row('```'), 'code_block'), (_row('我 so'), None),
                      (_row('so it is and ' * 2 + 'so'), None),
                      (_row('so it is and ' * 4), 'repetition')):
    assert filters.drop_reason(filters.Rules(), row) == reason


def test_rules_that_are_not_asked_for_keep_all():
  none = filters.Rules(min_accuracy=0., format=False, max_repetition=None,
                       code=True)
  for text in ('', '```', '我 so', 'so ' * 999, '\ufffd', 'x' * 10**6):
    assert filters.drop_reason(none, _row(text, accuracy=0., format=0.)) is None


@pytest.mark.parametrize('text', [
    '\n' * 100_000, '\n ' * 50_000, ' ' * 100_000, '\n' * 99_999 + 'x',
    '\n`' * 50_000, '\r\n' * 50_000, '\n\u3000\x0b' * 33_000, '$' * 100_000])
def test_hostile_text_costs_no_more_than_its_length(text):
  begin = time.monotonic()
  filters.drop_reason(RULES._replace(languages=()), _row('so' + text + 'so'))
  rules = RULES._replace(max_repetition=None)
  filters.drop_reason(rules, _row(text, prompt='1'))
  assert time.monotonic() - begin < 5.


def test_reflection_is_asked_for():
  rules = RULES._replace(reflection=True)
  assert filters.drop_reason(rules, _row()) == 'no_reflection'
  row = _row('Wait, let me check. It is 7.')
  assert filters.drop_reason(rules, row) is None
  assert filters.reflections('Wait, let me check. 等等，让我检查一下。') == 4
  assert filters.reflections('waiter') == 0


def test_every_reason_is_a_known_one():
  found = {filters.drop_reason(RULES, _row(text))
           for text in (GOOD, '```', '先算', 'so ' * 99)}
  assert found - {None} <= set(filters.REASONS)
