"""The report of an evaluation: a table, bars with intervals, pass@k, lengths.

Published figures of the same suites stand beside, marked as the paper's.
"""

from collections.abc import Mapping
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.reports import published
from r1jax.reports import rl as rl_report
from r1jax.training import files

_BINS = 24  # of a histogram of lengths
_VERDICT = 'code_'  # begins a count of programs (rewards/accuracy.py)
_NO_FAILURES = (_VERDICT, 'restarts')
_HEAD = ('test', 'problems', 'pass@1', 'cons@k', 'pass@k', 'answered',
         'format', 'tokens', 'cut', 'total tokens', 'tokens/s')


class Bar(NamedTuple):
  """A bar of a chart, in percent of its width."""
  name: str
  value: float
  text: str  # with its interval
  low: float | None = None
  high: float | None = None
  paper: bool = False  # published, not measured here


class Bin(NamedTuple):
  """Responses of some lengths, in percent of the largest bin."""
  right: float
  wrong: float
  text: str


def write_report(config: Mapping[str, Any], workdir: str, shown: int,
                 summary: Mapping[str, Any]) -> str:
  """Writes report.html into `workdir`; returns the closing words, a table.

  Args:
    config: of the stage.
    workdir: with its rows.
    shown: problems of each test whose responses are shown.
    summary: with the results `after`, by test.
  """
  folder, tests = pathlib.Path(workdir), summary['after']
  rows = {name: list(part) for name, part in itertools.groupby(
      files.stream_rows(folder / 'rollouts.jsonl'), key=lambda r: r['test'])}
  table = [_HEAD, *(cells(name, found) for name, found in tests.items())]
  page.render_page(
      folder / 'report.html', 'evaluation.html.jinja',
      title=f'{config["name"]} · {config["init_from"]}', kicker='evaluation',
      config=config, summary=summary, table=table, tests=[{
          'name': name, 'results': found, 'bars': bars(name, found),
          'lengths': histogram(rows[name]),
          'longest': max(row['tokens'] for row in rows[name]),
          'figures': figures(found), 'papers': published.sources(name),
          'failures': failures(found)} for name, found in tests.items()],
      curve=pass_at_k_curve(tests), samples=_samples(config, rows, shown),
      facts=rl_report.facts(summary))
  return '\n'.join([*lines(table), *(
      f'{name}: {words}' for name, found in tests.items()
      for words in failures(found)), f'report: {folder / "report.html"}'])


def cells(name: str, found: Mapping[str, Any]) -> list[str]:
  """The row of a test in the table."""
  samples, percent = found['samples'], intervals.percent
  of_all = lambda kind: percent(
      found[f'{kind}@{samples}']) if f'{kind}@{samples}' in found else '–'
  greedy = '' if found['sampling']['temperature'] else ', greedy'
  speed = found['perf/tokens_per_second']
  return [
      name, f'{found["n"]} × {samples}{greedy}',
      intervals.text(intervals.Figure(found['pass@1'], *found['ci95']),
                     interval=True),
      of_all('cons'), of_all('pass') if samples > 1 else '–',
      percent(found['answered']),
      percent(found['format']), f'{found["response_length"]:.0f}',
      percent(found['truncated']), f'{found["tokens"]["total"]:,}',
      '–' if speed is None else f'{speed:,.0f}']


def failures(found: Mapping[str, Any]) -> list[str]:
  """What could not be scored, and so counts as wrong, or was left out."""
  counted = [f'{name} {count}' for name, count in found['verifier'].items()
             if count and not name.startswith(_NO_FAILURES)]
  words = ['verifier: ' + ', '.join(counted)] if counted else []
  if found['left_out']:
    words.append(f'{found["left_out"]} problems left out: their prompts are '
                 'too long')
  return words


def figures(found: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Means of reward functions' columns, and the verdicts on programs."""
  verdicts = {name: count for name, count in found['verifier'].items()
              if name.startswith(_VERDICT)}
  return [(name, charts.number(value))
          for name, value in {**found['figures'], **verdicts}.items()]


def lines(table: list[list[str]]) -> list[str]:
  """A table as lines of text; its first row is the head."""
  widths = [max(map(len, column)) for column in zip(*table)]
  return ['  '.join([row[0].ljust(widths[0]), *(
      cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
          for row in table]


def bars(name: str, found: Mapping[str, Any]) -> list[Bar]:
  """The test's own figures, then those that are published of its suite."""
  edges = {'pass@1': found['ci95']} | found.get('intervals', {})
  made = []
  for key, value in found.items():
    if key.startswith(('pass@', 'cons@')):
      figure = intervals.Figure(value, *edges[key])
      made.append(Bar(key, 100 * value, intervals.text(figure, interval=True),
                      *(100 * edge for edge in edges[key])))
  return made + [
      Bar(f'{one.model}, {one.metric}', 100 * one.value,
          intervals.percent(one.value), paper=True)
      for one in published.of(name)]


def histogram(rows: list[dict[str, Any]]) -> list[Bin]:
  """How long the responses of a test are, right and wrong ones."""
  lengths = np.array([row['tokens'] for row in rows])
  right = np.array([row['accuracy'] == 1. for row in rows])
  edges = np.linspace(0, lengths.max() + 1, min(_BINS, lengths.max() + 1) + 1)
  count = lambda chosen: np.histogram(lengths[chosen], edges)[0]
  good, bad = count(right), count(~right)
  most = (good + bad).max()
  return [Bin(100 * g / most, 100 * b / most,
              f'{np.ceil(low):.0f} to {np.ceil(high) - 1:.0f} tokens: {g} '
              f'right, {b} wrong')
          for g, b, low, high in zip(good, bad, edges, edges[1:])]


def pass_at_k_curve(tests: Mapping[str, Any]) -> charts.Chart | None:
  """pass@k over k, of the tests with several samples; None without any."""
  series = {name: [(int(key.partition('@')[2]), value)
                   for key, value in found.items() if key.startswith('pass@')]
            for name, found in tests.items() if found['samples'] > 1}
  return charts.Chart('pass@k', series, percent=True, x_label='k',
                      caption='unbiased, from all samples') if series else None


def _samples(config: Mapping[str, Any], rows: Mapping[str, list[dict]],
             shown: int) -> list[dict[str, Any]]:
  """The first sample of the first problems of each test."""
  made = []
  for name, part in rows.items():
    own = config['tests'][name]['rewards']
    first = [row for row in part if not row['sample']]
    for row in sorted(first, key=lambda row: row['id'])[:shown]:
      response = {
          'name': name, 'text': row['response'], 'finished': row['finished'],
          'correct': row['accuracy'] == 1.} | (
              {'verdict': row['verdict']} if 'verdict' in row else {})
      made.append({'prompt': row['prompt'], 'answer': row['answer'],
                   'responses': [response | {'fault': rl_report.fault(
                       response, {**config['rewards'], **own})}]})
  return made
