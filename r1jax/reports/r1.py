"""The report of R1's whole recipe: claims, policies, samples, curves, costs."""

import collections
from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.reports import r1_claims
from r1jax.rewards import filters
from r1jax.training import files

_PREFIX = 'measured_'
_OF_A_CLAIM = ('before', 'after', 'change')
# The recipe's own stages, whose samples are shown side by side.
_LINE = ('base', 'zero', 'cold_start', 'reasoning', 'sft', 'r1')
_STUDENTS = (
    'student_sft', 'student_forward', 'student_reverse', 'student_rl')
_ORDER = (*_LINE, 'zero_language', 'no_language', 'less', 'all', 'student_base',
          *_STUDENTS)
_SHOWN = ('reasoning', 'general', 'writing', 'requests')  # tests
_PROMPTS = 3  # shown of every test
_COLUMNS = (  # of the table of policies
    'reasoning', 'format', 'mixed', 'language', 'tokens', 'reflections',
    'general', 'writing', 'wins', 'variety', 'requests', 'unfinished')
_NUMBERS = ('tokens', 'reflections')  # the others are fractions
_RUNS = {'zero': 'R1-Zero', 'zero_language': 'with the language reward',
         'reasoning': 'reasoning RL', 'no_language': 'without that reward'}
_CURVES = (  # metric, title, unit, whether it is a fraction
    ('reward/accuracy', 'Accuracy', '', True),
    ('response_length/mean', 'Mean response length', 'tokens', False),
    ('reward/language', 'Words in the prompt’s language', '', True),
    ('reward/mixed', 'Responses that mix languages', '', True))
_PAPER = (  # [v2] arXiv 2501.12948v2, table 3
    ('R1-Zero', 77.9, 95.9, 46.6), ('R1 Dev1: cold start', 59.0, 94.2, 71.7),
    ('R1 Dev2: reasoning RL', 74.0, 95.9, 72.0),
    ('R1 Dev3: rejection sampling, SFT', 78.1, 95.4, 78.1),
    ('R1', 79.8, 97.3, 83.3))


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  policies = _policies(folder, config['stages'])
  table = r1_claims.results(policies)
  claims = r1_claims.claims(
      policies, r1_claims.early_and_late(folder / 'zero'),
      _shots(folder / 'shots'), _shots(folder / 'shots_base'))
  judge = r1_claims.judge_agreement(folder / 'judged')
  files.write_json(folder / 'summary.json', {
      'policies': {name: {key: figure._asdict() for key, figure in row.items()}
                   for name, row in table.items()},
      'judge': {key: figure._asdict() for key, figure in judge.items()},
      'claims': [claim._asdict() | {
          name: getattr(claim, name)._asdict() for name in _OF_A_CLAIM}
                 for claim in claims]})
  _render(folder, config, policies, table, claims, judge)
  return '\n'.join([*map(r1_claims.one_line, claims),
                    f'report: {folder / "report.html"}'])


def _render(folder, config, policies, table, claims, judge) -> None:
  """Writes the page."""
  stages = config['stages']
  minutes = {name: files.need_json(
      folder / name / 'manifest.json', ['seconds'])['seconds'] / 60
             for name in stages}
  reasons, kept = _kept(folder)
  page.render_page(
      folder / 'report.html', 'r1.html.jinja', kicker=config['name'],
      title='DeepSeek-R1’s recipe, end to end', config=config,
      claims=[r1_claims.row_of(claim) for claim in claims],
      margin=f'{100 * r1_claims.MARGIN:.0f}', tests=', '.join(
          f'{len(part)} of {test}' for test, part in policies['base'].items()),
      eval=stages[f'{_PREFIX}base']['eval'], columns=_COLUMNS,
      policies=[_policy_row(name, row) for name, row in table.items()],
      kept_columns=[name.replace('_', ' ') for name in reasons], kept=kept,
      judge={key: intervals.text(figure, interval=True)
             for key, figure in judge.items()},
      students=[(name, f'{r1_claims.tokens_passed(folder / name):.2f}')
                for name in _STUDENTS],
      paper=[(name, *map(str, cells)) for name, *cells in _PAPER],
      curves=_curves(folder), samples=_samples(policies),
      total=sum(minutes.values()),
      minutes=[(name, f'{value:.1f}') for name, value in minutes.items()])


def _policies(folder: pathlib.Path, stages: Mapping[str, Any]
              ) -> dict[str, dict[str, r1_claims.Rows]]:
  """The responses of each policy measured, in the recipe's order."""
  names = {name.removeprefix(_PREFIX) for name in stages
           if name.startswith(_PREFIX)}
  names = [*(name for name in _ORDER if name in names),
           *sorted(names.difference(_ORDER))]
  return {name: r1_claims.responses(folder / f'{_PREFIX}{name}')
          for name in names}


def _shots(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Whether each problem is solved, by the number of examples before it."""
  return {test.removeprefix('shots_'): np.array([
      row['accuracy'] for row in part])
          for test, part in r1_claims.responses(folder).items()}


def _policy_row(name: str, row: Mapping[str, intervals.Figure]) -> list[str]:
  return [name, *(intervals.text(row[key], key not in _NUMBERS)
                  if key in row else '–' for key in _COLUMNS)]


def _kept(folder: pathlib.Path) -> tuple[list[str], list[list[str]]]:
  """Columns and rows: what each stage has kept, and dropped by reason."""
  tables = {}
  for path in sorted(folder.glob('*/kept.json')):
    by_task = files.read_json(path).values()
    tables[path.parent.name] = sum(
        map(collections.Counter, by_task), collections.Counter())
  columns = ['kept', *(name for name in filters.REASONS if any(
      name in counts for counts in tables.values()))]
  return columns, [[name, *(str(counts[column]) for column in columns)]
                   for name, counts in tables.items()]


def _curves(folder: pathlib.Path) -> list[charts.Chart]:
  runs = {title: files.need_rows(folder / name / 'metrics.jsonl')
          for name, title in _RUNS.items()}
  drawn = [charts.Chart(
      title, {name: charts.points(rows, key) for name, rows in runs.items()},
      unit, fraction) for key, title, unit, fraction in _CURVES]
  by_step = {}
  for row in files.stream_rows(folder / 'zero' / 'rollouts.jsonl'):
    by_step.setdefault(row['step'], []).append(
        filters.reflections(row['response']))
  return [*drawn, charts.Chart(
      'Reflections of R1-Zero', {'': [
          (step, float(np.mean(found))) for step, found in by_step.items()]},
      'per response', caption='“Wait”, “let me check”, “等等” and the like')]


def _samples(policies: Mapping[str, Mapping[str, r1_claims.Rows]]
             ) -> list[dict[str, Any]]:
  """The same prompts of every test, answered after each stage."""
  return [{'prompt': policies['base'][test][number]['prompt'],
           'responses': [{
               'name': name, 'text': policies[name][test][number]['response'],
               **_grade(policies[name][test][number], test)}
                         for name in _LINE]}
          for test in _SHOWN for number in range(_PROMPTS)]


def _grade(row: Mapping[str, Any], test: str) -> dict[str, Any]:
  if test == 'writing':  # the reader's score
    return {'reward': row['accuracy']}
  fault = '' if row['finished'] else 'cut at the token limit'
  return {'correct': row['accuracy'] == 1., 'fault': fault}
