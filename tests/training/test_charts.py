"""Charts: every curve is well-formed SVG within its frame."""

import math
import random
import re
from xml.etree import ElementTree

import pytest

from r1jax.training import chart_axes
from r1jax.training import charts

WIDTH, HEIGHT = 300, 200


def _rows(values, key='y'):
  return [{'step': i, key: value} for i, value in enumerate(values)]


def _draw(values, **kwargs):
  svg = charts.draw(charts.Curve('T', 'y', **kwargs), _rows(values),
                    width=WIDTH, height=HEIGHT)
  return ElementTree.fromstring(svg)


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
  svg = _draw(SHAPES[name], before=charts.Figure(1., .5, 9.))
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
  svg = _draw([.01, .0], percent=True, before=charts.Figure(.01, -.01, .03))
  assert _tick_labels(svg) == ['0 %', '1 %', '2 %', '3 %']
  assert _tick_labels(_draw([1., 1.], percent=True)) == [
      '90 %', '92.5 %', '95 %', '97.5 %', '100 %']


def test_no_value_gives_a_note():
  for rows in ([], _rows([1.], 'other'), _rows([math.nan, None])):
    assert 'no values' in charts.draw(
        charts.Curve('T', 'y'), rows, width=WIDTH, height=HEIGHT)


def test_rows_without_the_key_are_passed_over():
  rows = [{'step': 0, 'y': 1.}, {'step': 0, 'eval': .5}, {'step': 1, 'y': 2.}]
  svg = ElementTree.fromstring(charts.draw(
      charts.Curve('T', 'y', dots='eval'), rows, width=WIDTH, height=HEIGHT))
  assert len(_of(svg, 'raw')) == 2 and len(_of(svg, 'dot')) == 1
  assert [e[0].text for e in _of(svg, 'hover')] == ['step 0: 1', 'step 1: 2']


def test_many_steps_become_few_points_with_the_same_mean():
  values = [float(i) for i in range(2400)]
  svg = _draw(values)
  assert len(_of(svg, 'raw')) == 240
  assert _of(svg, 'hover')[0][0].text == 'step 4: 4.5'  # of steps 0 to 9


def test_evaluations_are_drawn_at_the_ends():
  svg = _draw([5., 5., 5.], before=charts.Figure(4.),
              after=charts.Figure(6., 5., 7.))
  (before,), (after,) = _of(svg, 'before'), _of(svg, 'after')
  assert float(before.get('cx')) < float(after.get('cx'))
  assert float(before.get('cy')) > float(after.get('cy'))  # up is more
  assert len(_of(svg, 'whisker')) == 1


def test_only_an_evaluation_after_is_marked_after():
  svg = _draw([1., 2.], after=charts.Figure(2.))
  assert not _of(svg, 'before') and len(_of(svg, 'after')) == 1


def test_evaluations_that_are_not_finite_are_left_out():
  svg = _draw([1., 2.], before=charts.Figure(math.nan),
              after=charts.Figure(2., math.nan, math.nan))
  assert not _of(svg, 'before') and not _of(svg, 'whisker')
  assert len(_of(svg, 'after')) == 1


def test_an_interval_beyond_a_fraction_ends_at_the_axis():
  svg = _draw([0., .02], percent=True, after=charts.Figure(.01, -.01, .03))
  lowest = max(float(e.get('y1')) for e in _of(svg, 'grid'))
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


def test_smoothing_keeps_a_line_and_quiets_noise():
  line = [(i, 3. * i - 1) for i in range(100)]
  for (x, y), (u, v) in zip(line, charts.smooth(line)):
    assert u == x and v == pytest.approx(y)
  rng = random.Random(0)
  noise = [(i, rng.gauss(0, 1)) for i in range(400)]
  assert max(abs(y) for _, y in charts.smooth(noise)[20:-20]) < 1
  assert charts.smooth([(0, 5.)]) == [(0, 5.)]


@pytest.mark.parametrize('value, percent, text', [
    (0, False, '0'), (.5, True, '50 %'), (1.225, False, '1.225'),
    (1234.5, False, '1234'), (12500, False, '12.5k'), (-2e6, False, '-2M'),
    (2e-4, False, '2e-4'), (2.5e-12, False, '2.5e-12')])
def test_numbers_are_short(value, percent, text):
  assert chart_axes.number(value, percent) == text


def test_a_title_is_escaped():
  svg = charts.draw(charts.Curve('"><b>', 'y'), _rows([1.]), width=WIDTH,
                    height=HEIGHT)
  assert ElementTree.fromstring(svg).get('aria-label') == '"><b>'
