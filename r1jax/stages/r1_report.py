"""The report of the whole recipe: what each stage did, which claims hold."""

from collections.abc import Mapping, Sequence
import html
import pathlib
from typing import Any

import numpy as np

from r1jax.rewards import filters
from r1jax.stages import r1_claims
from r1jax.stages import r1_figures
from r1jax.stages import r1_tables
from r1jax.stages import rl_report
from r1jax.training import files
from r1jax.training import line_chart
from r1jax.training import report

_PREFIX = 'measured_'
_OF_A_CLAIM = ('before', 'after', 'change')
# The recipe's own stages, whose samples are shown side by side.
_LINE = ('base', 'zero', 'cold_start', 'reasoning', 'sft', 'r1')
_STUDENTS = (
    'student_sft', 'student_forward', 'student_reverse', 'student_rl')
_ORDER = (*_LINE, 'zero_language', 'no_language', 'less', 'all', 'student_base',
          *_STUDENTS)
_PROMPTS = 3  # shown of every test
_RUNS = {'zero': 'R1-Zero', 'zero_language': 'with the language reward',
         'reasoning': 'reasoning RL', 'no_language': 'without that reward'}
_CURVES = (
    ('reward/accuracy', 'Accuracy', '', True),
    ('response_length/mean', 'Mean response length', 'tokens', False),
    ('reward/language', 'Words in the prompt’s language', '', True),
    ('reward/mixed', 'Responses that mix languages', '', True))


def write(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  names = {name.removeprefix(_PREFIX) for name in config['stages']
           if name.startswith(_PREFIX)}
  names = [*(name for name in _ORDER if name in names),
           *sorted(names.difference(_ORDER))]
  policies = {name: r1_figures.rows(folder / f'{_PREFIX}{name}')
              for name in names}
  table = r1_figures.table(policies)
  found = r1_claims.claims(
      policies, r1_figures.early_and_late(folder / 'zero'),
      _shots(folder / 'shots'), _shots(folder / 'shots_base'))
  judge = r1_figures.judge(folder / 'judged')
  files.write_json(folder / 'summary.json', {
      'policies': {name: {key: figure._asdict() for key, figure in row.items()}
                   for name, row in table.items()},
      'judge': {key: figure._asdict() for key, figure in judge.items()},
      'claims': [claim._asdict() | {
          name: getattr(claim, name)._asdict() for name in _OF_A_CLAIM}
                 for claim in found]})
  minutes = _minutes(folder, config['stages'])
  title = 'DeepSeek-R1’s recipe, end to end'
  report.page(folder / 'report.html', title, [
      report.header(title, f'{len(config["stages"])} stages in '
                    f'{sum(minutes.values()):.0f} minutes: what each did, and '
                    'what holds of what is said of it.', config['name']),
      r1_tables.claims(found, config['stages'][f'{_PREFIX}base']['eval'], {
          test: len(part) for test, part in policies['base'].items()}),
      r1_tables.table(table), r1_tables.sampled(folder, judge),
      r1_tables.students({name: r1_figures.passes(folder / name)
                          for name in _STUDENTS}), r1_tables.paper(),
      _curves(folder), _said(policies), r1_tables.times(minutes),
      report.reproduce(rl_report.command(), {}), report.whole_config(config)])
  lines = [r1_claims.words(claim) for claim in found]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def _shots(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Whether each problem is solved, by how many examples stand before it."""
  return {test.removeprefix('shots_'): np.array([
      row['accuracy'] for row in part])
          for test, part in r1_figures.rows(folder).items()}


def _minutes(folder: pathlib.Path, stages: Sequence[str]) -> dict[str, float]:
  return {name: files.read_json(
      folder / name / 'manifest.json')['seconds'] / 60 for name in stages}


def _curves(folder: pathlib.Path) -> str:
  runs = {title: files.read_rows(folder / name / 'metrics.jsonl')
          for name, title in _RUNS.items()}
  drawn = [line_chart.figure(line_chart.Lines(
      title, {name: [(row['step'], row[key]) for row in rows if key in row]
              for name, rows in runs.items()}, 'step', unit, percent))
           for key, title, unit, percent in _CURVES]
  drawn.append(_reflections(folder))
  return ('<section><h2>Reinforcement learning</h2><div class="wide">'
          f'{"".join(drawn)}</div><p class="small">Where the language reward '
          'is the same for all responses it changes nothing, and two lines '
          'are one.</p></section>')


def _reflections(folder: pathlib.Path) -> str:
  """How often R1-Zero looks back on what it said, over its steps."""
  by_step = {}
  for row in files.read_rows(folder / 'zero' / 'rollouts.jsonl'):
    by_step.setdefault(row['step'], []).append(
        filters.reflections(row['response']))
  points = [(step, sum(found) / len(found)) for step, found in by_step.items()]
  return line_chart.figure(line_chart.Lines(
      'Reflections', {'R1-Zero': points}, 'step', 'a response',
      caption='“Wait”, “let me check”, “等等” and their like'))


def _said(policies: Mapping[str, Mapping[str, r1_figures.Rows]]) -> str:
  """The same prompts of every test, answered after each stage."""
  parts = []
  for test in ('reasoning', 'general', 'writing', 'requests'):
    rows = {name: policies[name][test] for name in _LINE}
    for number in range(_PROMPTS):
      sides = ''.join(report.response(
          name, _response(part[number], test)) for name, part in rows.items())
      prompt = html.escape(rows['base'][number]['prompt'].strip())
      parts.append('<article><div class="question"><p class="text">'
                   f'{prompt}</p></div><div class="sides">{sides}</div>'
                   '</article>')
  return ('<section><h2>What they say</h2><p class="small">The same held-out '
          'prompts after each stage, the first of each test; a text that was '
          'written has the reader’s score.</p>'
          f'{"".join(parts)}</section>')


def _response(row: Mapping[str, Any], test: str) -> dict[str, Any]:
  if test == 'writing':
    return {'text': row['response'], 'reward': row['accuracy']}
  return {'text': row['response'], 'correct': row['accuracy'] == 1.}
