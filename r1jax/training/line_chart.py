"""Several runs in one chart, as inline SVG: points and a line for each."""

from collections.abc import Mapping
import html
from typing import NamedTuple

from r1jax.training import chart_axes
from r1jax.training import charts


class Lines(NamedTuple):
  """What one chart shows."""
  title: str
  series: Mapping[str, list[chart_axes.Point]]  # by name, in their order
  x_label: str
  label: str = ''  # of the y axis
  percent: bool = False
  caption: str = ''


def draw(chart: Lines, *, width: int = 460, height: int = 290) -> str:
  """Returns the SVG; a plain note where there is no value."""
  points = [point for part in chart.series.values() for point in part]
  if not points:
    return '<p class="empty">no values were recorded</p>'
  frame = chart_axes.Frame(
      chart_axes.span([x for x, _ in points]),
      chart_axes.y_ticks([y for _, y in points], chart.percent), width, height)
  parts = [
      f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
      f'aria-label="{html.escape(chart.title)}">',
      *chart_axes.axes(frame, percent=chart.percent, x_label=chart.x_label,
                       whole=False)]
  for number, part in enumerate(chart.series.values()):
    part = sorted(part)
    parts += [f'<circle class="raw series{number}" r="1.8" '
              f'{chart_axes.center(frame, point)}/>' for point in part]
    parts.append(chart_axes.path(
        f'line series{number}', frame, charts.smooth(part)))
  return ''.join([*parts, '</svg>'])


def figure(chart: Lines) -> str:
  """The chart with its title, the names of its lines and its caption."""
  keys = ''.join(
      f'<span class="key line series{number}"></span>{html.escape(name)} '
      for number, name in enumerate(chart.series))
  label = f' <span class="of">{html.escape(chart.label)}</span>' * bool(
      chart.label)
  return (f'<figure><h3>{html.escape(chart.title)}{label}</h3>{draw(chart)}'
          f'<figcaption><p class="small legend">{keys}</p>'
          f'<p>{html.escape(chart.caption)}</p></figcaption></figure>')
