"""The report of several RL runs: final results, cost, learning curves.

For pipelines whose stages differ in one thing, an estimator or a reward, and
sample the same number of responses.
"""

from collections.abc import Mapping
import pathlib
import statistics
from typing import Any

from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.training import files

_CURVES = (  # metric, title, unit, whether it is a fraction
    ('reward/accuracy', 'Accuracy', '', True),
    ('response_length/mean', 'Mean response length', 'tokens', False),
    ('kl/ref', 'KL to the reference', 'nats per token', False),
    ('policy/entropy', 'Entropy', 'nats per token', False),
)


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  runs = {name: files.need_rows(folder / name / 'metrics.jsonl')
          for name in config['stages']}
  table = {name: results(
      files.need_json(folder / name / 'summary.json', ['after']), rows)
           for name, rows in runs.items()}
  files.write_json(folder / 'summary.json', {'runs': table})
  page.render_page(
      folder / 'report.html', 'comparison.html.jinja', kicker='rl',
      title=f'{config["name"]}: ' + ', '.join(runs), config=config,
      rows=[(name, *_cells(run)) for name, run in table.items()],
      n=next(iter(table.values()))['n'],
      curves=_curves(config['stages'], runs))
  lines = [f'{name}: pass@1 {intervals.percent(run["pass@1"])} (greedy '
           f'{intervals.percent(run["greedy"])}), {run["seconds_a_step"]:.1f} '
           f's per step, {run["peak_memory_mib"] / 1024:.2f} GiB'
           for name, run in table.items()]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def results(summary: Mapping[str, Any], rows: list[dict]) -> dict[str, Any]:
  """A run's last evaluation, its median step time and its peak memory."""
  after = summary['after']
  return {name: after[name] for name in (
      'n', 'pass@1', 'ci95', 'greedy', 'format', 'response_length')} | {
          'seconds_a_step': statistics.median(
              row['time/step_seconds'] for row in rows),
          'peak_memory_mib': max(row['perf/peak_memory_mib'] for row in rows)}


def _cells(run: Mapping[str, Any]) -> list[str]:
  return [
      intervals.percent(run['pass@1']),
      ' – '.join(map(intervals.percent, run['ci95'])),
      intervals.percent(run['greedy']), intervals.percent(run['format']),
      f'{run["response_length"]:.0f}', f'{run["seconds_a_step"]:.1f}',
      f'{run["peak_memory_mib"] / 1024:.2f}']


def _curves(stages: Mapping[str, Any], runs: Mapping[str, list[dict]]
            ) -> list[charts.Chart]:
  """Curves over the responses sampled, to compare runs of any step size."""
  drawn = []
  for key, title, unit, fraction in _CURVES:
    series = {}
    for name, rows in runs.items():
      sampled = stages[name]['rl']['prompts'] * stages[name]['rl']['group']
      series[name] = [((step + 1) * sampled, value)
                      for step, value in charts.points(rows, key)]
    drawn.append(charts.Chart(
        title, series, unit, fraction, x_label='responses sampled'))
  return drawn
