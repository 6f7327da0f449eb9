"""The report of the whole recipe: what each stage did, which claims hold."""

from collections.abc import Mapping, Sequence
import html
import pathlib
from typing import Any

import numpy as np

from r1jax.rewards import filters
from r1jax.stages import kept
from r1jax.stages import r1_claims
from r1jax.stages import r1_figures
from r1jax.stages import rl_report
from r1jax.training import jsonl
from r1jax.training import line_chart
from r1jax.training import report
from r1jax.training import summary as summary_lib

_PREFIX = 'measured_'
_OF_A_CLAIM = ('before', 'after', 'change')
_COLUMNS = (  # of the table: figure, title, whether it is a share
    ('reasoning', 'reasoning', True), ('format', 'format', True),
    ('mixed', 'mixed', True), ('language', 'language', True),
    ('tokens', 'tokens', False), ('reflections', 'reflections', False),
    ('general', 'general', True), ('writing', 'writing', True),
    ('wins', 'wins over SFT', True), ('requests', 'requests', True))
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

# [v2] arXiv 2501.12948v2, table 3.
_PAPER = (
    ('R1-Zero', 77.9, 95.9, 46.6), ('R1 Dev1: cold start', 59.0, 94.2, 71.7),
    ('R1 Dev2: reasoning RL', 74.0, 95.9, 72.0),
    ('R1 Dev3: rejection sampling, SFT', 78.1, 95.4, 78.1),
    ('R1', 79.8, 97.3, 83.3))


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
  summary_lib.write_json(folder / 'summary.json', {
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
      _claims(found, config['stages'][f'{_PREFIX}base']['eval']),
      _table(table), _sampled(folder, judge),
      _students(folder), _paper(),
      _curves(folder), _said(policies), _times(minutes),
      report.reproduce(rl_report.command(), {}), report.whole_config(config)])
  lines = [r1_claims.words(claim) for claim in found]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def _shots(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Whether each problem is solved, by how many examples stand before it."""
  return {test.removeprefix('shots_'): np.array([
      row['accuracy'] for row in part])
          for test, part in r1_figures.rows(folder).items()}


def _minutes(folder: pathlib.Path, stages: Sequence[str]) -> dict[str, float]:
  return {name: summary_lib.read_json(
      folder / name / 'manifest.json')['seconds'] / 60 for name in stages}


def _rows(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
  top = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
  body = ''.join(
      f'<tr><th>{html.escape(name)}</th>'
      + ''.join(f'<td>{html.escape(cell)}</td>' for cell in cells) + '</tr>'
      for name, cells in rows.items())
  return ('<div class="scroll"><table class="compare"><tr><th></th>'
          f'{top}</tr>{body}</table></div>')


def _number(figure: r1_figures.Figure, percent: bool, interval: bool = False,
            sign: str = '') -> str:
  """'93.6 % [90.1, 96.0]'; with `sign` '+' it is a change, '+3.5 pp'."""
  unit = '' if not percent else ' pp' if sign else ' %'
  scale, digits = (100, 1) if percent else (1, 2)
  if not percent and abs(figure.value) >= 10:
    digits = 0
  value = f'{scale * figure.value:{sign}.{digits}f}{unit}'
  if interval:
    value += (f' [{scale * figure.low:{sign}.{digits}f}, '
              f'{scale * figure.high:{sign}.{digits}f}]')
  return value


def _claims(found: Sequence[r1_claims.Claim], sampled: Mapping[str, Any]
           ) -> str:
  """Each with what it is measured by; `sampled` is the tests' section eval."""
  rows = ''.join(
      f'<tr><th>{html.escape(claim.said)}<p class="small">'
      f'{html.escape(claim.measured)}</p></th>'
      f'<td>{_number(claim.before, claim.percent)}</td>'
      f'<td>{_number(claim.after, claim.percent)}</td>'
      f'<td>{_number(claim.change, claim.percent, True, "+")}</td>'
      f'<td>{claim.verdict}</td></tr>' for claim in found)
  return ('<section><h2>What is said of R1, in miniature</h2><div '
          'class="scroll"><table class="compare"><tr><th></th><th>before</th>'
          f'<th>after</th><th>change</th><th></th></tr>{rows}</table></div>'
          '<p class="small">Held-out prompts, the same for all, one response '
          f'each at temperature {sampled["temperature"]}, top-p '
          f'{sampled["top_p"]}; changes, in percentage points where '
          'those are shares, with their 95 % intervals over prompts. What '
          'rises or falls holds where the interval leaves out 0, and points '
          'that way where only the mean does. What is kept holds where the '
          'interval leaves out a loss of five points, and does not where it is '
          'a loss throughout. One run: what another seed changes is not in the '
          f'intervals, and of {len(found)} claims about one may hold by chance.'
          '</p></section>')


def _table(table: Mapping[str, dict[str, r1_figures.Figure]]) -> str:
  rows = {name: [_number(row[key], percent) if key in row else '–'
                 for key, _, percent in _COLUMNS]
          for name, row in table.items()}
  return ('<section><h2>What each stage did</h2>'
          + _rows([title for _, title, _ in _COLUMNS], rows)
          + '<p class="small">Reasoning, general tasks and requests: share '
          'right; the general ones ask of what the base has read, in other '
          'words. Format: thinking and summary, which Zero was never shown. '
          'Writing: what the reader says of it, 0 to 100 %. Mixed: more than a '
          'tenth of the words in another language.</p></section>')


def _sampled(folder: pathlib.Path, judge: Mapping[str, r1_figures.Figure]
            ) -> str:
  """What was kept of the samples of each stage, and why the rest was not."""
  tables = {path.parent.name: kept.total(summary_lib.read_json(path))
            for path in sorted(folder.glob('*/kept.json'))}
  reasons = [name for name in filters.REASONS
             if any(name in counts for counts in tables.values())]
  rows = {name: [f'{counts[column]}' for column in (kept.KEPT, *reasons)]
          for name, counts in tables.items()}
  agrees, right = (_number(judge[key], True, True)
                   for key in ('agrees', 'kept_right'))
  return ('<section><h2>What was kept of the samples</h2>'
          + _rows([name.replace('_', ' ') for name in (kept.KEPT, *reasons)],
                  rows)
          + '<p class="small">Each dropped response is counted under the first '
          f'reason. The judge’s verdicts are the rule’s for {agrees} of the '
          f'responses, and of those that it let through {right} are right.'
          '</p></section>')


def _students(folder: pathlib.Path) -> str:
  """What each way to a better student has cost it."""
  rows = {name: [f'{r1_figures.passes(folder / name):.2f}']
          for name in _STUDENTS}
  return ('<section><h2>What the students’ training cost</h2>'
          + _rows(('millions of tokens passed',), rows)
          + '<p class="small">A backward pass counts as two. What the teacher '
          'has cost, its samples and its logits, is not in it.</p></section>')


def _paper() -> str:
  rows = {name: [f'{value:.1f}' for value in values]
          for name, *values in _PAPER}
  return ('<section><h2>The paper’s own table</h2>'
          + _rows(('AIME 2024', 'MATH-500', 'IF-Eval'), rows)
          + '<p class="small">Not measured here: DeepSeek-R1, arXiv '
          '2501.12948v2, table 3, of a 671B model.</p></section>')


def _curves(folder: pathlib.Path) -> str:
  runs = {title: jsonl.read(folder / name / 'metrics.jsonl')
          for name, title in _RUNS.items()}
  drawn = [line_chart.figure(line_chart.Lines(
      title, {name: [(row['step'], row[key]) for row in rows if key in row]
              for name, rows in runs.items()}, 'step', unit, percent))
           for key, title, unit, percent in _CURVES]
  drawn.append(_reflections(folder))
  return ('<section><h2>Reinforcement learning</h2><div class="wide">'
          f'{"".join(drawn)}</div></section>')


def _reflections(folder: pathlib.Path) -> str:
  """How often R1-Zero looks back on what it said, over its steps."""
  by_step = {}
  for row in jsonl.read(folder / 'zero' / 'rollouts.jsonl'):
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
      sides = ''.join(report.response(name, {
          'text': part[number]['response'],
          'correct': part[number]['accuracy'] == 1.
          if test != 'writing' else None}) for name, part in rows.items())
      prompt = html.escape(rows['base'][number]['prompt'].strip())
      parts.append('<article><div class="question"><p class="text">'
                   f'{prompt}</p></div><div class="sides">{sides}</div>'
                   '</article>')
  return ('<section><h2>What they say</h2><p class="small">The same held-out '
          'prompts after each stage, the first of each test.</p>'
          f'{"".join(parts)}</section>')


def _times(minutes: Mapping[str, float]) -> str:
  rows = {name: [f'{value:.1f}'] for name, value in minutes.items()}
  return ('<section><details><summary>Minutes of each stage</summary>'
          + _rows(('minutes',), rows) + '</details></section>')
