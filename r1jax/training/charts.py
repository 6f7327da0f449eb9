"""Small line charts as inline SVG, drawn from rows of metrics.

The marks carry CSS classes and no colours, so that the page they stand in
decides how they look, in light and dark.
"""

from collections.abc import Mapping, Sequence
import html
import math
from typing import Any, NamedTuple

_POINTS = 240  # drawn at most; more steps are averaged into so many bins
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 36  # margins around the plot

Point = tuple[float, float]
Rows = Sequence[Mapping[str, Any]]


class Figure(NamedTuple):
  """One evaluated number and its confidence interval."""
  value: float
  low: float | None = None
  high: float | None = None


class Curve(NamedTuple):
  """What one chart shows of the metrics rows."""
  title: str
  key: str  # the column drawn, against `step`
  label: str = ''  # of the y axis
  percent: bool = False  # the values are fractions, shown as percentages
  dots: str | None = None  # column of a rarer evaluation, drawn as dots
  before: Figure | None = None  # evaluated before the first step
  after: Figure | None = None  # and after the last
  caption: str = ''


class _Mark(NamedTuple):
  x: float
  figure: Figure
  kind: str  # before or after


class _Frame(NamedTuple):
  """Maps data to the drawing."""
  x: tuple[float, float]
  y_ticks: list[float]  # the axis ends at the first and the last
  width: int
  height: int

  def at(self, x: float, y: float) -> Point:
    low, high = self.y_ticks[0], self.y_ticks[-1]
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (min(max(y, low), high) - low) / (high - low)
    return (_LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM))


def draw(curve: Curve, rows: Rows, *, width: int, height: int) -> str:
  """Returns the SVG of `curve`; a plain note where there is no value yet."""
  raw = _column(rows, curve.key)
  dots = _column(rows, curve.dots) if curve.dots else []
  marks = _marks(curve, raw or dots)
  if not raw and not dots and not marks:
    return '<p class="empty">no values were recorded</p>'
  ends = [y for mark in marks for y in mark.figure if y is not None]
  frame = _Frame(
      _span([x for x, _ in raw + dots] + [mark.x for mark in marks]),
      _y_ticks([y for _, y in raw + dots] + ends, curve.percent),
      width, height)
  parts = [
      f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
      f'aria-label="{html.escape(curve.title)}">',
      *_axes(curve, frame),
      *(f'<circle class="raw" r="1.6" {_center(frame, p)}/>' for p in raw),
      _path('line', frame, smooth(raw)), _path('eval', frame, dots),
      *(f'<circle class="dot" r="3.2" {_center(frame, p)}/>' for p in dots),
      *(_draw_mark(frame, mark) for mark in marks),
      *(_hover(curve, frame, p) for p in (raw or dots)), '</svg>']
  return ''.join(parts)


def smooth(points: Sequence[Point]) -> list[Point]:
  """Replaces each point by the line fitted to its neighbours, read at its x.

  The neighbours are a twentieth of all points on each side; at an end, those
  there are. A line, unlike a mean, follows a slope right up to the ends, and
  it is steadier there than a shrinking window.
  """
  reach = len(points) // 20
  smoothed = []
  for i, (x, _) in enumerate(points):
    window = points[max(i - reach, 0):i + reach + 1]
    mean_x = sum(u for u, _ in window) / len(window)
    mean_y = sum(v for _, v in window) / len(window)
    spread = sum((u - mean_x) ** 2 for u, _ in window)
    shared = sum((u - mean_x) * (v - mean_y) for u, v in window)
    slope = shared / spread if spread else 0.
    smoothed.append((x, mean_y + slope * (x - mean_x)))
  return smoothed


def number(value: float, percent: bool = False) -> str:
  """Writes a value as an axis or a table shows it."""
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


def _column(rows: Rows, key: str) -> list[Point]:
  """Returns (step, value) of the finite values, binned if there are many."""
  points = [(row['step'], row[key]) for row in rows
            if row.get(key) is not None and math.isfinite(row[key])]
  size = math.ceil(len(points) / _POINTS) or 1
  bins = [points[i:i + size] for i in range(0, len(points), size)]
  return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b))
          for b in bins]


def _marks(curve: Curve, points: list[Point]) -> list[_Mark]:
  """What was evaluated, at the first and last step, without what is NaN."""
  ends = (points[0][0], points[-1][0]) if points else (0., 1.)
  marks = []
  for x, kind in zip(ends, ('before', 'after')):
    figure = getattr(curve, kind)
    if figure is None or not math.isfinite(figure.value):
      continue
    if None in figure or not all(map(math.isfinite, figure)):
      figure = Figure(figure.value)
    marks.append(_Mark(x, figure, kind))
  return marks


def _span(values: list[float]) -> tuple[float, float]:
  low, high = min(values), max(values)
  return (low, high) if high > low else (low - .5, high + .5)


def _y_ticks(values: list[float], percent: bool) -> list[float]:
  """Ticks that enclose the values; from zero, unless that flattens them."""
  low, high = min(values), max(values)
  if 0 <= low < .6 * high:
    low = 0.
  if high - low <= 1e-9 * abs(high):
    pad = abs(high) * .1 or 1.
    low, high = low - pad, high + pad
  if percent:
    low, high = max(low, 0.), min(high, 1.)
    if high <= low:
      low, high = 0., 1.
  step = _tick_step(low, high, 4)
  return _multiples(step, math.floor(low / step + 1e-9),
                    math.ceil(high / step - 1e-9))


def _x_ticks(low: float, high: float, count: int) -> list[float]:
  """Whole steps within the axis."""
  step = max(_tick_step(low, high, count), 1.)
  return _multiples(step, math.ceil(low / step - 1e-9),
                    math.floor(high / step + 1e-9))


def _multiples(step: float, first: int, last: int) -> list[float]:
  return [i * step for i in range(first, last + 1)]


def _tick_step(low: float, high: float, count: int) -> float:
  """The least of 1, 2, 2.5, 5 times a power of ten for `count` intervals."""
  rough = (high - low) / count
  power = 10. ** math.floor(math.log10(rough))
  return next(n * power for n in (1, 2, 2.5, 5, 10)
              if n * power >= rough * .999)


def _axes(curve: Curve, frame: _Frame) -> list[str]:
  parts = []
  for y in frame.y_ticks:
    x0, py = frame.at(frame.x[0], y)
    x1, _ = frame.at(frame.x[1], y)
    parts.append(
        f'<line class="grid" x1="{x0:.1f}" x2="{x1:.1f}" y1="{py:.1f}" '
        f'y2="{py:.1f}"/><text class="tick" text-anchor="end" '
        f'x="{x0 - 7:.1f}" y="{py + 3.5:.1f}">'
        f'{number(y, curve.percent)}</text>')
  for x in _x_ticks(*frame.x, 5 if frame.width > 350 else 4):
    px, y0 = frame.at(x, frame.y_ticks[0])
    parts.append(
        f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{y0:.1f}" '
        f'y2="{y0 + 4:.1f}"/><text class="tick" text-anchor="middle" '
        f'x="{px:.1f}" y="{y0 + 16:.1f}">{number(x)}</text>')
  x0, y0 = frame.at(frame.x[0], frame.y_ticks[0])
  x1, _ = frame.at(frame.x[1], frame.y_ticks[0])
  parts.append(f'<path class="axis" d="M{x0:.1f} {y0:.1f}H{x1:.1f}"/>'
               f'<text class="label" text-anchor="end" x="{x1:.1f}" '
               f'y="{frame.height - 4}">step</text>')
  return parts


def _path(kind: str, frame: _Frame, points: list[Point]) -> str:
  if len(points) < 2:
    return ''
  steps = 'L'.join('{:.1f} {:.1f}'.format(*frame.at(*p)) for p in points)
  return f'<path class="{kind}" d="M{steps}"/>'


def _center(frame: _Frame, point: Point) -> str:
  x, y = frame.at(*point)
  return f'cx="{x:.1f}" cy="{y:.1f}"'


def _draw_mark(frame: _Frame, mark: _Mark) -> str:
  x, figure, kind = mark
  whisker = ''
  if figure.low is not None:
    # A normal interval may reach beyond what a fraction can be.
    ends = frame.y_ticks[0], frame.y_ticks[-1]
    low, high = (min(max(y, ends[0]), ends[1]) for y in figure[1:])
    px, y0 = frame.at(x, low)
    _, y1 = frame.at(x, high)
    whisker = f'<path class="whisker" d="M{px:.1f} {y0:.1f}V{y1:.1f}"/>'
  return (f'{whisker}<circle class="mark {kind}" r="4.5" '
          f'{_center(frame, (x, figure.value))}/>')


def _hover(curve: Curve, frame: _Frame, point: Point) -> str:
  x, y = point
  return (f'<circle class="hover" r="7" {_center(frame, point)}><title>'
          f'step {x:.0f}: {number(y, curve.percent)}</title></circle>')
