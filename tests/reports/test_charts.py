"""Charts: every curve is well-formed SVG within its frame."""

import math
import random
import re
import time
from xml.etree import ElementTree

import pytest

from r1jax.reports import charts
from r1jax.reports import intervals

WIDTH, HEIGHT = 300, 200
EVIL = '"><b>&amp;'


def _rows(values, key='y'):
  return [{'step': i, key: value} for i, value in enumerate(values)]


def _draw(values, **fields):
  return _drawn({'': charts.points(_rows(values), 'y')}, **fields)


def _drawn(series, title='T', **fields):
  return ElementTree.fromstring(charts.draw(
      charts.Chart(title, series, **fields), WIDTH, HEIGHT))


def _dots(svg, number=0):
  """The circles of the steps of a series."""
  group, = _of(svg, f'series{number}')[:1]
  assert group.get('class') == f'raw series{number}'
  return list(group)


def _of(svg, kind):
  return [e for e in svg.iter() if kind in (e.get('class') or '').split()]


def _tick_labels(svg):
  return [e.text for e in _of(svg, 'tick') if e.get('text-anchor') == 'end']


_NOISE = random.Random(0)
SHAPES = {
    'one value': [3.],
    'equal': [2., 2., 2.],
    'zeros': [0., 0.],
    'almost equal': [1., 1. + 2e-16, 1.],
    'tiny': [1e-12, 3e-12, 2e-12],
    'huge': [1e30, -1e30, 5.],
    'negative': [-5., -4., -4.5],
    'not finite': [math.nan, 1., math.inf, 2., -math.inf],
    'many': [_NOISE.gauss(0, 1) for _ in range(5000)],
}


@pytest.mark.parametrize('name', SHAPES)
def test_every_mark_lies_within_the_frame(name):
  svg = _draw(SHAPES[name], before=intervals.Figure(1., .5, 9.))
  drawn = [e for e in svg.iter() if e.tag == 'circle']
  assert drawn
  for mark in drawn:
    assert 0 <= float(mark.get('cx')) <= WIDTH
    assert 0 <= float(mark.get('cy')) <= HEIGHT
  for path in svg.iter('path'):
    numbers = [float(n) for n in re.findall(r'-?[\d.]+', path.get('d'))]
    assert all(0 <= n <= WIDTH for n in numbers)
  labels = _tick_labels(svg)
  assert 2 <= len(labels) <= 7 and len(set(labels)) == len(labels)


def test_percentages_stay_within_0_and_100():
  svg = _draw([.01, .0], percent=True, before=intervals.Figure(.01, -.01, .03))
  assert _tick_labels(svg) == ['0 %', '1 %', '2 %', '3 %']
  assert _tick_labels(_draw([1., 1.], percent=True)) == [
      '90 %', '92.5 %', '95 %', '97.5 %', '100 %']


def test_no_value_gives_no_chart():
  for rows in ([], _rows([1.], 'other'), _rows([math.nan, None])):
    assert not charts.draw(charts.Chart('T', {'': charts.points(rows, 'y')}))


def test_rows_without_the_key_are_passed_over():
  rows = [{'step': 0, 'y': 1.}, {'step': 0, 'eval': .5}, {'step': 1, 'y': 2.}]
  svg = _drawn({'': charts.points(rows, 'y')},
               evaluations=charts.points(rows, 'eval'))
  assert len(_of(svg, 'dot')) == 1
  assert [e[0].text for e in _dots(svg)] == ['step 0: 1', 'step 1: 2']


def test_many_steps_become_few_points_with_the_same_mean():
  values = [float(i) for i in range(2400)]
  svg = _draw(values)
  assert len(_dots(svg)) == 240
  assert _dots(svg)[0][0].text == 'step 4: 4.5'  # of steps 0 to 9


def test_time_and_size_are_bounded():
  noise = random.Random(0)
  part = [(i, noise.gauss(i / 16000, 1)) for i in range(16_000)]
  for series in ({'': part}, {f'run {n}': part for n in range(4)}):
    start = time.process_time()
    svg = charts.draw(charts.Chart('T', series, x_label='responses sampled'))
    assert time.process_time() - start < 1.
    assert len(svg) < 60_000


def test_evaluations_are_drawn_at_the_ends():
  svg = _draw([5., 5., 5.], before=intervals.Figure(4.),
              after=intervals.Figure(6., 5., 7.))
  (before,), (after,) = _of(svg, 'before'), _of(svg, 'after')
  assert float(before.get('cx')) < float(after.get('cx'))
  assert float(before.get('cy')) > float(after.get('cy'))  # up is more
  assert len(_of(svg, 'whisker')) == 1


def test_only_an_evaluation_after_is_marked_after():
  svg = _draw([1., 2.], after=intervals.Figure(2.))
  assert not _of(svg, 'before') and len(_of(svg, 'after')) == 1


def test_evaluations_that_are_not_finite_are_left_out():
  svg = _draw([1., 2.], before=intervals.Figure(math.nan),
              after=intervals.Figure(2., math.nan, math.nan))
  assert not _of(svg, 'before') and not _of(svg, 'whisker')
  assert len(_of(svg, 'after')) == 1


def test_an_interval_beyond_a_fraction_ends_at_the_axis():
  svg = _draw([0., .02], percent=True, after=intervals.Figure(.01, -.01, .03))
  lowest = max(float(re.findall(r'[\d.]+', e.get('d'))[1])
               for e in _of(svg, 'grid'))
  _, low, _ = re.findall(r'[\d.]+', _of(svg, 'whisker')[0].get('d'))
  assert float(low) == lowest


def test_axes_by_hand():
  """12 to 19 by twos, for zero would flatten them; 11 to 19 from zero."""
  svg = _draw([12., 12., 13., 14., 15., 16., 17., 19.])
  assert _tick_labels(svg) == ['12', '14', '16', '18', '20']
  assert _tick_labels(_draw([11., 19.])) == ['0', '5', '10', '15', '20']
  steps = [e for e in _of(svg, 'tick') if e.get('text-anchor') == 'middle']
  assert [e.text for e in steps] == ['0', '2', '4', '6']
  # 46 and 286 are the margins: step s stands at 46 + 240 s / 7.
  assert [float(e.get('x')) for e in steps] == [46., 114.6, 183.1, 251.7]
  assert [e.text for e in _of(_draw([1., 2., 3.]), 'tick')
          if e.get('text-anchor') == 'middle'] == ['0', '1', '2']
  assert [e.text for e in _of(_draw(range(12)), 'tick')
          if e.get('text-anchor') == 'middle'] == ['0', '5', '10']


def test_smoothing_keeps_a_line_and_quiets_noise():
  line = [(i, 3. * i - 1) for i in range(100)]
  for (x, y), (u, v) in zip(line, charts.smooth(line)):
    assert u == x and v == pytest.approx(y)
  rng = random.Random(0)
  noise = [(i, rng.gauss(0, 1)) for i in range(400)]
  assert max(abs(y) for _, y in charts.smooth(noise)[20:-20]) < 1
  assert charts.smooth([(0, 5.)]) == [(0, 5.)]


@pytest.mark.parametrize('place', [0, 1, 2, 30, 50, 57, 58, 59])
def test_one_outlier_makes_no_plateau(place):
  """Of 60 steps of KL near .02, one of .31: the line stays where it was.

  Within three deviations of the noise; a mean of seven would rise by .041.
  """
  noise = random.Random(1)
  calm = [(i, noise.gauss(.02, .004)) for i in range(60)]
  spike = [(x, .31 if x == place else y) for x, y in calm]
  for (_, smooth), (_, unmoved) in zip(
      charts.smooth(spike), charts.smooth(calm)):
    assert smooth == pytest.approx(unmoved, abs=.012)


def test_values_that_are_often_there_are_no_outliers():
  """0.1 in every third step: the line is their mean, not their median."""
  part = [(i, .1 * (i % 3 == 0)) for i in range(90)]
  inner = [y for _, y in charts.smooth(part)][10:-10]
  assert sum(inner) / len(inner) == pytest.approx(.1 / 3, rel=.1)


@pytest.mark.parametrize('value, percent, text', [
    (0, False, '0'), (.5, True, '50 %'), (1.225, False, '1.225'),
    (1234.5, False, '1234'), (12500, False, '12.5k'), (-2e6, False, '-2M'),
    (2e-4, False, '2e-4'), (2.5e-12, False, '2.5e-12')])
def test_numbers_are_short(value, percent, text):
  assert charts.number(value, percent) == text


def test_titles_and_names_are_escaped():
  svg = charts.draw(charts.Chart(EVIL, {EVIL: [(0, 1.)], 'b': [(0, 2.)]},
                                 x_label=EVIL))
  assert '<b>' not in svg
  svg = ElementTree.fromstring(svg)
  assert svg.get('aria-label') == EVIL == _of(svg, 'label')[0].text
  assert _dots(svg)[0][0].text == f'{EVIL}, {EVIL} 0: 1'


def test_every_series_has_its_points_and_a_line_in_its_colour():
  points = [(.5 * i, float(i % 7)) for i in range(30)]
  svg = _drawn({'ppo': points, 'other': points[::-1][:20]},
               x_label='KL, nats')
  assert len(_dots(svg)) == 30 and len(_dots(svg, 1)) == 20
  kinds = [x.get('class') for x in svg.iter()]
  assert kinds.count('line series0') == kinds.count('line series1') == 1
  inside = [float(x.get('cx')) for x in svg.iter() if x.get('cx')]
  assert 0 < min(inside) and max(inside) < WIDTH
  assert _of(svg, 'label')[0].text == 'KL, nats'
  assert _dots(svg)[1][0].text == 'ppo, KL, nats 0.5: 1'


def test_an_x_axis_that_counts_nothing_has_finer_ticks():
  svg = _drawn({'': [(0., 1.), (.9, 2.)]})
  assert '0.25' in [e.text for e in _of(svg, 'tick')]
