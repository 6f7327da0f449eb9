"""Line charts as SVG: steps as dots, a smoothed line, evaluations.

`draw` returns an <svg> element whose parts have CSS classes and no colours, so
that the page decides how they look, in light and dark. It is our own code
because pygal's tooltips need a script (and its SVG is three times as large),
and matplotlib's SVG has fixed colours, no tooltips and 35 MB of library.

A series of many points is averaged into bins before anything else, so that
time is linear in the steps, and size bounded.
"""

from collections.abc import Mapping, Sequence
import math
import statistics
from typing import Any, NamedTuple
from xml.etree import ElementTree

from r1jax.reports import intervals

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 36  # margins around the plot
_BINS, _BINS_IN_ALL = 240, 480  # most points drawn of a series, of a chart

Point = tuple[float, float]
Points = Sequence[Point]


class Chart(NamedTuple):
  """What a chart shows."""
  title: str
  series: Mapping[str, Points]  # by name, in order; a single one needs no name
  unit: str = ''  # of y
  percent: bool = False  # y is a fraction, shown as a percentage
  x_label: str = 'step'
  evaluations: Points = ()  # rarer points, joined by a dashed line
  before: intervals.Figure | None = None  # evaluated before the first step
  after: intervals.Figure | None = None  # and after the last
  caption: str = ''


def points(rows: Sequence[Mapping[str, Any]], key: str, x: str = 'step'
           ) -> list[Point]:
  """The (x, key) of the rows of metrics.jsonl that have the key."""
  return [(row[x], row[key]) for row in rows if row.get(key) is not None]


def draw(chart: Chart, width: int = 460, height: int = 290) -> str:
  """Returns the SVG of a chart; '' where there is no value yet."""
  series = {name: sorted(_finite(part)) for name, part in chart.series.items()}
  evaluations = _finite(chart.evaluations)
  every = [p for part in series.values() for p in part] + evaluations
  marks = _marks(chart, [x for x, _ in every])
  if not every and not marks:
    return ''
  xs = [x for x, _ in every] + [x for x, _, _ in marks]
  whole = all(float(x).is_integer() for x in xs)
  limit = min(_BINS, _BINS_IN_ALL // max(len(series), 1))
  series = {name: _binned(part, limit) for name, part in series.items()}
  ys = [y for part in series.values() for _, y in part]
  ys += [y for _, y in evaluations]
  ys += [y for _, figure, _ in marks for y in figure if y is not None]
  frame = _Frame(
      _span(xs), _y_ticks(ys, chart.percent), width, height, whole, chart)
  svg = ElementTree.Element('svg', {
      'class': 'chart', 'viewBox': f'0 0 {width} {height}', 'role': 'img',
      'aria-label': chart.title})
  _draw_axes(svg, frame)
  for number, (name, part) in enumerate(series.items()):
    dots = _add(svg, 'g', f'raw series{number}')
    radius = 2. if len(part) > 40 else 2.8  # a line hides small ones
    for point in part:
      _dot(dots, frame, point, radius, name=name if len(series) > 1 else '')
    _path(svg, f'line series{number}', frame, smooth(part))
  _path(svg, 'eval', frame, evaluations)
  for point in evaluations:
    _dot(svg, frame, point, 3.2, 'dot', 'evaluated')
  for mark in marks:
    _draw_mark(svg, frame, *mark)
  return ElementTree.tostring(svg, encoding='unicode')


def smooth(part: Points) -> list[Point]:
  """Replaces each point by the line fitted to its neighbours, read at its x.

  The neighbours are a twentieth of all points on each side; at an end, those
  there are. A line, unlike a mean, follows a slope right up to the ends.
  Outliers are first replaced, or one of them would lift all its neighbours.
  """
  reach = len(part) // 20
  if reach:
    part = _without_outliers(part)
  smoothed = []
  for i, (x, _) in enumerate(part):
    window = part[max(i - reach, 0):i + reach + 1]
    mean_x = sum(u for u, _ in window) / len(window)
    mean_y = sum(v for _, v in window) / len(window)
    spread = sum((u - mean_x) ** 2 for u, _ in window)
    shared = sum((u - mean_x) * (v - mean_y) for u, v in window)
    slope = shared / spread if spread else 0.
    smoothed.append((x, mean_y + slope * (x - mean_x)))
  return smoothed


def _without_outliers(part: Points) -> list[Point]:
  """Replaces outliers by the median of five neighbours.

  An outlier, such as a single step's spike, is more than three times as far
  from that median as nine of ten points are. Ordinary noise is left as it is:
  its mean is the line.
  """
  ys = [y for _, y in part]
  reach = lambda i: min(2, i, len(ys) - 1 - i)
  medians = [statistics.median(ys[i - reach(i):i + reach(i) + 1])
             for i in range(len(ys))]
  # The ends by Tukey's rule: themselves, the next, or what leads up to them.
  for end, near, far in ((0, 1, 2), (-1, -2, -3)):
    medians[end] = statistics.median(
        (ys[end], medians[near], 3 * medians[near] - 2 * medians[far]))
  off = [abs(y - median) for y, median in zip(ys, medians)]
  most = 3 * sorted(off)[9 * len(off) // 10]
  return [(x, median if distance > most else y)
          for (x, y), median, distance in zip(part, medians, off)]


def number(value: float, percent: bool = False) -> str:
  """Writes a value as an axis or a tooltip shows it."""
  if percent:
    return f'{100 * value:.4g} %'
  if value == 0:
    return '0'
  size = abs(value)
  if size >= 1e6:
    return f'{value / 1e6:.4g}M'
  if size >= 1e4:
    return f'{value / 1e3:.4g}k'
  if size < 1e-3:
    return f'{value:.1e}'.replace('.0e', 'e').replace('e-0', 'e-')
  return f'{value:.0f}' if size >= 1000 else f'{value:.4g}'


def _finite(part: Points) -> list[Point]:
  return [(x, y) for x, y in part if math.isfinite(x) and math.isfinite(y)]


def _binned(part: Points, limit: int) -> list[Point]:
  """Averages neighbours, so that at most `limit` points are left."""
  size = math.ceil(len(part) / limit) or 1
  bins = [part[i:i + size] for i in range(0, len(part), size)]
  return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b))
          for b in bins]


def _marks(chart: Chart, xs: Sequence[float]
           ) -> list[tuple[float, intervals.Figure, str]]:
  """(x, figure, 'before' or 'after') of the evaluations at the ends."""
  ends = (min(xs), max(xs)) if xs else (0, 1)
  marks = []
  for x, kind in zip(ends, ('before', 'after')):
    figure = getattr(chart, kind)
    if figure is None or not math.isfinite(figure.value):
      continue
    if None in figure or not all(map(math.isfinite, figure)):
      figure = intervals.Figure(figure.value)
    marks.append((x, figure, kind))
  return marks


class _Frame(NamedTuple):
  """Maps data to the drawing."""
  x: tuple[float, float]
  y_ticks: list[float]  # the axis ends at the first and the last
  width: int
  height: int
  whole: bool  # x counts something
  chart: Chart

  def at(self, x: float, y: float) -> Point:
    """The position of a value, moved into the plot if it is above or below."""
    low, high = self.y_ticks[0], self.y_ticks[-1]
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (min(max(y, low), high) - low) / (high - low)
    return (_LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM))


def _span(values: Sequence[float]) -> tuple[float, float]:
  low, high = min(values), max(values)
  return (low, high) if high > low else (low - .5, high + .5)


def _y_ticks(values: Sequence[float], percent: bool) -> list[float]:
  """Ticks that enclose the values; from zero, unless that flattens them."""
  low, high = min(values), max(values)
  floor = 0. if low >= 0 else -math.inf
  if 0 <= low < .6 * high:
    low = 0.
  if high - low <= 1e-9 * abs(high):
    pad = abs(high) * .1 or 1.
    low, high = max(low - pad, floor), high + pad
  if percent:
    low, high = max(low, 0.), min(high, 1.)
    if high <= low:
      low, high = 0., 1.
  step = _tick_step(low, high, 4)
  return _multiples(step, math.floor(low / step + 1e-9),
                    math.ceil(high / step - 1e-9))


def _x_ticks(frame: _Frame) -> list[float]:
  low, high = frame.x
  step = _tick_step(low, high, 5 if frame.width > 350 else 4, frame.whole)
  return _multiples(step, math.ceil(low / step - 1e-9),
                    math.floor(high / step + 1e-9))


def _multiples(step: float, first: int, last: int) -> list[float]:
  return [i * step for i in range(first, last + 1)]


def _tick_step(low: float, high: float, count: int, whole: bool = False
               ) -> float:
  """The least of 1, 2, 2.5, 5 times a power of ten for `count` intervals."""
  rough = (high - low) / count
  power = 10. ** math.floor(math.log10(rough))
  return next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= rough * .999
              and (not whole or (n * power).is_integer()))


def _add(parent: ElementTree.Element, tag: str, kind: str = '', text: str = '',
         **attributes: float | str) -> ElementTree.Element:
  """A new element of class `kind`; numbers are written with one decimal."""
  child = ElementTree.SubElement(parent, tag, {
      name.replace('_', '-'): value if isinstance(value, str)
      else f'{value:.1f}' for name, value in attributes.items()})
  if kind:
    child.set('class', kind)
  child.text = text or None
  return child


def _draw_axes(svg: ElementTree.Element, frame: _Frame) -> None:
  """Grid, ticks and labels."""
  left, bottom = frame.at(frame.x[0], frame.y_ticks[0])
  right, _ = frame.at(frame.x[1], frame.y_ticks[0])
  for y in frame.y_ticks:
    _, at = frame.at(frame.x[0], y)
    _add(svg, 'path', 'grid', d=f'M{left:.1f} {at:.1f}H{right:.1f}')
    _add(svg, 'text', 'tick', number(y, frame.chart.percent),
         text_anchor='end', x=left - 7, y=at + 3.5)
  for x in _x_ticks(frame):
    at, _ = frame.at(x, frame.y_ticks[0])
    _add(svg, 'path', 'axis', d=f'M{at:.1f} {bottom:.1f}v4')
    _add(svg, 'text', 'tick', number(x), text_anchor='middle', x=at,
         y=bottom + 16)
  _add(svg, 'path', 'axis', d=f'M{left:.1f} {bottom:.1f}H{right:.1f}')
  _add(svg, 'text', 'label', frame.chart.x_label, text_anchor='end', x=right,
       y=frame.height - 4.)


def _path(svg: ElementTree.Element, kind: str, frame: _Frame, part: Points
          ) -> None:
  if len(part) > 1:
    ends = 'L'.join('{:.1f} {:.1f}'.format(*frame.at(*point)) for point in part)
    _add(svg, 'path', kind, d=f'M{ends}')


def _dot(parent: ElementTree.Element, frame: _Frame, point: Point, r: float,
         kind: str = '', name: str = '') -> None:
  """A dot with its x and y as a tooltip."""
  x, y = frame.at(*point)
  said = number(point[1], frame.chart.percent)
  at = f'{point[0]:.0f}' if frame.whole else number(point[0])
  name = name and f'{name}, '
  _add(_add(parent, 'circle', kind, cx=x, cy=y, r=r), 'title',
       text=f'{name}{frame.chart.x_label} {at}: {said}')


def _draw_mark(svg: ElementTree.Element, frame: _Frame, x: float,
               figure: intervals.Figure, kind: str) -> None:
  at, y = frame.at(x, figure.value)
  said = f'evaluated {kind}: {number(figure.value, frame.chart.percent)}'
  if figure.low is not None:
    (_, low), (_, high) = frame.at(x, figure.low), frame.at(x, figure.high)
    _add(svg, 'path', 'whisker', d=f'M{at:.1f} {low:.1f}V{high:.1f}')
    low, high = (number(end, frame.chart.percent) for end in figure[1:])
    said += f' [{low}, {high}]'
  _add(_add(svg, 'circle', f'mark {kind}', cx=at, cy=y, r=4.5), 'title',
       text=said)
