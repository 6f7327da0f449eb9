"""The report of R1's drawbacks, from what its stages would leave."""

import contextlib

import numpy as np
import pytest

from experiments import drawbacks as experiment
from r1jax.reports import drawbacks
from r1jax.reports import intervals
from r1jax.reports import r1_claims
from r1jax.rewards import workers
from r1jax.training import files

TESTS = ('en', 'zh', 'it', 'shots_1', 'shots_2', 'general', 'repair')
ENGLISH = '<think> First 3+4=7. </think> <answer> 7 </answer>'
ITALIAN = '<think> Prima 3+4=7. </think> <answer> 7 </answer>'
NOTHING = '<think> 3+4=7. </think> <answer> 7 </answer>'


def _rows(right, response=ENGLISH, of=100):
  return [dict(prompt=f'{n}?', response=response, finished=n > 0,
               accuracy=float(n >= of - right))
          for n in range(of)]


def _tests(right, **changed):
  return {test: _rows(right) for test in TESTS} | changed


@pytest.fixture(name='models')
def _models():
  """R1 repairs as before, thinks in English, and is ruined by examples."""
  italian = dict(it=_rows(30, ITALIAN), repair=_rows(50),
                 shots_2=_rows(70), general=_rows(95))
  models = {name: [_tests(20, **italian)] for name in ('base', 'student_base')}
  for name in ('zero', 'cold_start', 'reasoning', 'sft', 'r1', 'distilled'):
    models[name] = [
        _tests(right, it=_rows(right - 10), repair=_rows(50 + change),
               shots_1=_rows(40), general=_rows(80))
        for right, change in ((90, -1), (92, 0), (94, 1))]
  return models


def test_an_interval_is_students_over_seeds_and_wilsons_of_one():
  found = drawbacks.over_seeds([.90, .92, .94], 128)
  # 4.303 is the 97.5 % quantile of 2 degrees of freedom.
  assert found.value == pytest.approx(.92)
  assert found.high - found.value == pytest.approx(4.3027 * .02 / 3**.5, 1e-4)
  assert drawbacks.over_seeds([.99, 1.], 128).high == 1.
  one = drawbacks.over_seeds([.5], 100)
  assert one == pytest.approx((.5, .404, .596), abs=1e-3)


def test_thinking_counts_where_it_has_words():
  rows = [dict(response=text) for text in (
      ENGLISH, ITALIAN, ITALIAN, '<think> 再算3+4=7。 </think> 7', NOTHING,
      '7', '<think> First 3+4')]
  assert drawbacks.spoken(rows) == ['en', 'it', 'it', 'zh']
  assert drawbacks.COLUMNS['thinks_it'].share({'it': rows}) == .5
  assert drawbacks.COLUMNS['thinks_it'].share({'it': rows[4:]}) == 0.
  # What follows it does not count; and most of its words decide.
  for said in ('<think> First it. </think> Prima dopo trova numeri',
               '<think> First we need 再. Dopo </think>'):
    assert drawbacks.spoken([dict(response=said)]) == ['en']


def test_a_response_ends_where_the_next_question_begins():
  said = '<think> {} </think> The answer is \\boxed{{{}}}.'
  rows = [dict(prompt='?', task='x', answer=answer, accuracy=was, response=text)
          for answer, was, text in (
              ('7', 0., said.format(1, 7) + '\nUser: 3+4?\nAssistant: 8'),
              ('-9.0 + 27.0i', 0., said.format(1, '-9+27i') + '\nUser:'),
              ('7', 1., said.format(1, 8) + '\nUser: ?\nAssistant: '
               + said.format(1, 7)),
              ('7', 1., said.format(1, 7)), ('7', 0., 'User: 7'))]
  with contextlib.closing(workers.Pool(1, 5.)) as pool:
    found = drawbacks.cut(rows, 'math', pool)
    line = dict(prompt='?', task='repair', answer='return a+b*c', accuracy=0.,
                response=' return b*c+a\nUser: Repair')
    repaired, = drawbacks.cut([line], 'repair', pool)
  assert [row['accuracy'] for row in found] == [1., 1., 0., 1., 0.]
  assert found[2]['response'] == said.format(1, 8) and found[3:] == rows[3:]
  assert repaired['accuracy'] == 1. and repaired['response'] == ' return b*c+a'


def test_claims_go_by_the_changes_within_seeds(models):
  found = {claim.said: claim for claim in drawbacks.claims(models)}
  forgets = found['RL on reasoning alone forgets general skill']
  assert forgets.change.value == pytest.approx(-.15)
  assert forgets.verdict == r1_claims.HOLDS
  assert found['Another language is not'].verdict == r1_claims.HOLDS
  assert found['English is thought in its place'].after.value == 1.
  worse = found['Reasoning is worse in that language']
  # The seeds differ, but each is worse by ten points.
  assert worse.change == pytest.approx((-.1, -.1, -.1))
  assert worse.verdict == r1_claims.HOLDS
  assert found['One hurts R1'].change.value == pytest.approx(-.52)
  assert found['Two hurt it more'].verdict == r1_claims.FAILS
  repair = found['Software engineering rises, too']
  assert repair.change.value == pytest.approx(0.)
  assert repair.change.high == pytest.approx(4.3027 * .01 / 3**.5, 1e-3)
  assert repair.verdict == r1_claims.FAILS
  helped = found['Examples in the prompt help a base']  # by its problems
  assert helped.change.value == pytest.approx(.5)
  assert helped.change.high == pytest.approx(
      .5 + 1.96 * np.std(50 * [0.] + 50 * [1.], ddof=1) / 10)


def test_one_seed_is_compared_by_responses(models):
  one = {name: seeds[:1] for name, seeds in models.items()}
  found = {claim.said: claim for claim in drawbacks.claims(one)}
  forgets = found['RL on reasoning alone forgets general skill']  # 95 → 80
  deviation = np.std(15 * [1.] + 85 * [0.], ddof=1)
  assert forgets.change.low == pytest.approx(-.15 - 1.96 * deviation / 10)
  # Thoughts in Italian, all and none; those are no pairs.
  assert found['Another language is not'].change == pytest.approx((-1., -1., -1.))
  one['r1'][0]['it'][40:] = _rows(40, NOTHING)[40:]
  assert drawbacks.claims(one)[3].change.value == -1.


def test_the_interval_of_a_language_is_over_the_thoughts_that_have_one(models):
  rows = _rows(0, ITALIAN)[:40] + _rows(0, NOTHING)[40:]
  changed = models | {'base': [_tests(20, it=rows)]}
  figure = drawbacks.results(changed)['base']['thinks_it']
  assert figure == pytest.approx((1., *intervals.wilson(1., 40)))
  claim, = (claim for claim in drawbacks.claims(changed)
            if claim.said == 'Another language is not')
  assert claim.before == pytest.approx(figure)


def test_the_page_and_the_summary(tmp_path, models):
  config = experiment.get_config().to_dict()
  for stage in config['stages']:
    folder = tmp_path / stage
    folder.mkdir()
    files.write_json(folder / 'manifest.json', dict(seconds=60.))
    seed, _, name = stage.rpartition('measured_')
    if name in models:
      tests = models[name][int(seed[4:-1]) if seed else 0]
      for test, rows in tests.items():
        files.write_rows(folder / f'{test}_0.jsonl', rows)
  words = drawbacks.write_report(config, str(tmp_path))
  summary = files.read_json(tmp_path / 'summary.json')
  assert set(summary['models']) == set(models)
  assert summary['models']['r1']['reasoning']['value'] == pytest.approx(.92)
  assert len(summary['claims']) == len(drawbacks.claims(models))
  text = (tmp_path / 'report.html').read_text('utf-8')
  assert '92 [87, 97]' in text and '3 runs of the recipe in' in text
  assert text.count('<article>') == 9 and 'Prima 3+4=7' in text
  assert text.count('cut at the token limit') == 3 * len(models)
  assert ('Reasoning rises: reasoning, base → R1: 20.0 % → 92.0 %: holds'
          in words)
