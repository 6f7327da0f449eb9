"""Several RL runs beside each other: where they end, what they cost, curves.

For pipelines whose stages differ in one thing, an estimator or a reward, and
take the same number of responses.
"""

from collections.abc import Mapping
import html
import pathlib
import statistics
from typing import Any

from r1jax.stages import rl_report
from r1jax.training import files
from r1jax.training import line_chart
from r1jax.training import report

_CURVES = (  # metric, title, unit, whether it is a fraction
    ('reward/accuracy', 'Accuracy', '', True),
    ('response_length/mean', 'Mean response length', 'tokens', False),
    ('kl/ref', 'KL to the reference', 'nats a token', False),
    ('policy/entropy', 'Entropy', 'nats a token', False),
)


def write(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  runs = {name: files.read_rows(folder / name / 'metrics.jsonl')
          for name in config['stages']}
  table = {name: figures(
      files.read_json(folder / name / 'summary.json'), rows)
           for name, rows in runs.items()}
  files.write_json(folder / 'summary.json', {'runs': table})
  title = f'{config["name"]}: ' + ', '.join(runs)
  report.page(folder / 'report.html', title, [
      report.header(title, 'The same task, prompts and number of responses; '
                    'the runs differ in how they learn.', 'rl'),
      _compared(table), _curves(config['stages'], runs),
      report.reproduce(rl_report.command(), {}),
      report.whole_config(config)])
  lines = [f'{name}: pass@1 {_percent(run["pass@1"])} (greedy '
           f'{_percent(run["greedy"])}), {run["seconds_a_step"]:.1f} s a step, '
           f'{run["peak_memory_mib"] / 1024:.2f} GiB'
           for name, run in table.items()]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def figures(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, Any]:
  """Where a run has ended, and the median step's time and highest memory."""
  after = summary['after']
  return {name: after[name] for name in (
      'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length')} | {
          'seconds_a_step': statistics.median(
              row['time/step_seconds'] for row in rows),
          'peak_memory_mib': max(row['perf/peak_memory_mib'] for row in rows)}


def _percent(value: float) -> str:
  return f'{100 * value:.1f} %'


def _compared(table: Mapping[str, Mapping[str, Any]]) -> str:
  head = ''.join(f'<th>{title}</th>' for title in (
      'pass@1', '95 %', 'greedy', 'format', 'tokens', 's a step', 'peak, GiB'))
  rows = ''.join(
      f'<tr><th>{html.escape(name)}</th>' + ''.join(
          f'<td>{cell}</td>' for cell in (
              _percent(row['pass@1']),
              ' – '.join(_percent(edge) for edge in row['ci95']),
              _percent(row['greedy']), _percent(row['format']),
              f'{row["response_length"]:.0f}', f'{row["seconds_a_step"]:.1f}',
              f'{row["peak_memory_mib"] / 1024:.2f}')) + '</tr>'
      for name, row in table.items())
  n = next(iter(table.values()))['n']
  return ('<section><h2>Where they end</h2><div class="scroll">'
          f'<table class="compare"><tr><th></th>{head}</tr>{rows}</table></div>'
          f'<p class="small">{n} held-out problems; the median step. The peak '
          'is that of the fullest device, on CPUs of the process until the '
          'run’s end, with the runs before it.</p></section>')


def _curves(stages: Mapping[str, Any], runs: Mapping[str, list[dict]]) -> str:
  drawn = []
  for key, title, unit, percent in _CURVES:
    series = {}
    for name, rows in runs.items():
      sampled = stages[name]['rl']['prompts'] * stages[name]['rl']['group']
      series[name] = [((row['step'] + 1) * sampled, row[key])
                      for row in rows if key in row]
    drawn.append(line_chart.figure(line_chart.Lines(
        title, series, 'responses sampled', unit, percent)))
  return ('<section><h2>Over training</h2><div class="wide">'
          f'{"".join(drawn)}</div></section>')
