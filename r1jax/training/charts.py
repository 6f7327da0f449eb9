"""Small line charts as inline SVG, drawn from rows of metrics.

The marks carry CSS classes and no colours, so that the page they stand in
decides how they look, in light and dark.
"""

from collections.abc import Mapping, Sequence
import html
import math
from typing import Any, NamedTuple

from r1jax.training import chart_axes

_POINTS = 240  # drawn at most; more steps are averaged into so many bins

Point = chart_axes.Point
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


def draw(curve: Curve, rows: Rows, *, width: int, height: int) -> str:
  """Returns the SVG of `curve`; a plain note where there is no value yet."""
  raw = _column(rows, curve.key)
  dots = _column(rows, curve.dots) if curve.dots else []
  marks = _marks(curve, raw or dots)
  if not raw and not dots and not marks:
    return '<p class="empty">no values were recorded</p>'
  ends = [y for mark in marks for y in mark.figure if y is not None]
  frame = chart_axes.Frame(
      chart_axes.span([x for x, _ in raw + dots] + [mark.x for mark in marks]),
      chart_axes.y_ticks([y for _, y in raw + dots] + ends, curve.percent),
      width, height)
  parts = [
      f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
      f'aria-label="{html.escape(curve.title)}">',
      *chart_axes.axes(frame, percent=curve.percent),
      *(f'<circle class="raw" r="1.6" {chart_axes.center(frame, p)}/>'
        for p in raw),
      chart_axes.path('line', frame, smooth(raw)),
      chart_axes.path('eval', frame, dots),
      *(f'<circle class="dot" r="3.2" {chart_axes.center(frame, p)}/>'
        for p in dots),
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


def _draw_mark(frame: chart_axes.Frame, mark: _Mark) -> str:
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
          f'{chart_axes.center(frame, (x, figure.value))}/>')


def _hover(curve: Curve, frame: chart_axes.Frame, point: Point) -> str:
  x, y = point
  return (f'<circle class="hover" r="7" {chart_axes.center(frame, point)}>'
          f'<title>step {x:.0f}: {chart_axes.number(y, curve.percent)}</title>'
          '</circle>')
