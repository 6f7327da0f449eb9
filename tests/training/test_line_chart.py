"""Several lines in one chart."""

import re
import xml.etree.ElementTree as xml

from r1jax.training import line_chart


def _chart(**series):
  return line_chart.Lines('Gold <1>', series, 'KL, nats', percent=False)


def test_every_series_has_its_points_and_a_line_in_its_colour():
  points = [(.5 * i, float(i % 7)) for i in range(30)]
  svg = line_chart.draw(_chart(ppo=points, other=points[::-1][:20]))
  root = xml.fromstring(svg)
  kinds = [x.get('class') for x in root.iter() if x.get('class')]
  assert kinds.count('raw series0') == 30 and kinds.count('raw series1') == 20
  assert kinds.count('line series0') == kinds.count('line series1') == 1
  inside = [float(x.get('cx')) for x in root.iter() if x.get('cx')]
  assert 0 < min(inside) and max(inside) < 460
  assert 'KL, nats' in svg and 'step' not in svg


def test_the_x_axis_is_no_count():
  svg = line_chart.draw(_chart(ppo=[(0., 1.), (.9, 2.)]))
  assert re.search(r'>0\.[25]<', svg)


def test_nothing_to_draw_is_said_and_names_are_escaped():
  assert 'no values' in line_chart.draw(_chart(a=[]))
  figure = line_chart.figure(_chart(**{'<b>': [(0., 1.)]}))
  assert '<b>' not in figure and '&lt;b&gt;' in figure and '&lt;1&gt;' in figure
