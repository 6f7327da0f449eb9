"""The plane a chart is drawn in: ticks, axes, paths, as parts of an SVG."""

import html
import math
from typing import NamedTuple

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 36  # margins around the plot

Point = tuple[float, float]


class Frame(NamedTuple):
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


def span(values: list[float]) -> tuple[float, float]:
  low, high = min(values), max(values)
  return (low, high) if high > low else (low - .5, high + .5)


def y_ticks(values: list[float], percent: bool) -> list[float]:
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


def _x_ticks(low: float, high: float, count: int, whole: bool) -> list[float]:
  """Steps within the axis."""
  step = max(_tick_step(low, high, count), 1. if whole else 0.)
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


def axes(frame: Frame, *, percent: bool, x_label: str = 'step',
         whole: bool = True) -> list[str]:
  """Grid, ticks and labels; `whole` where x counts something."""
  parts = []
  for y in frame.y_ticks:
    x0, py = frame.at(frame.x[0], y)
    x1, _ = frame.at(frame.x[1], y)
    parts.append(
        f'<line class="grid" x1="{x0:.1f}" x2="{x1:.1f}" y1="{py:.1f}" '
        f'y2="{py:.1f}"/><text class="tick" text-anchor="end" '
        f'x="{x0 - 7:.1f}" y="{py + 3.5:.1f}">'
        f'{number(y, percent)}</text>')
  for x in _x_ticks(*frame.x, 5 if frame.width > 350 else 4, whole):
    px, y0 = frame.at(x, frame.y_ticks[0])
    parts.append(
        f'<line class="axis" x1="{px:.1f}" x2="{px:.1f}" y1="{y0:.1f}" '
        f'y2="{y0 + 4:.1f}"/><text class="tick" text-anchor="middle" '
        f'x="{px:.1f}" y="{y0 + 16:.1f}">{number(x)}</text>')
  x0, y0 = frame.at(frame.x[0], frame.y_ticks[0])
  x1, _ = frame.at(frame.x[1], frame.y_ticks[0])
  parts.append(f'<path class="axis" d="M{x0:.1f} {y0:.1f}H{x1:.1f}"/>'
               f'<text class="label" text-anchor="end" x="{x1:.1f}" '
               f'y="{frame.height - 4}">{html.escape(x_label)}</text>')
  return parts


def path(kind: str, frame: Frame, points: list[Point]) -> str:
  if len(points) < 2:
    return ''
  steps = 'L'.join('{:.1f} {:.1f}'.format(*frame.at(*p)) for p in points)
  return f'<path class="{kind}" d="M{steps}"/>'


def center(frame: Frame, point: Point) -> str:
  x, y = frame.at(*point)
  return f'cx="{x:.1f}" cy="{y:.1f}"'
