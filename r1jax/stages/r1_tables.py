"""The tables of R1's report, as HTML."""

from collections.abc import Mapping, Sequence
import html
import pathlib
from typing import Any

from r1jax.rewards import filters
from r1jax.stages import r1_claims
from r1jax.stages import r1_figures
from r1jax.stages import rejection
from r1jax.training import files

_COLUMNS = (  # of the table: figure, title, whether it is a share
    ('reasoning', 'reasoning', True), ('format', 'format', True),
    ('mixed', 'mixed', True), ('language', 'language', True),
    ('tokens', 'tokens', False), ('reflections', 'reflections', False),
    ('general', 'general', True), ('writing', 'writing', True),
    ('wins', 'wins', True), ('variety', 'variety', True),
    ('requests', 'requests', True), ('unfinished', 'unfinished', True))
# [v2] arXiv 2501.12948v2, table 3.
_PAPER = (
    ('R1-Zero', 77.9, 95.9, 46.6), ('R1 Dev1: cold start', 59.0, 94.2, 71.7),
    ('R1 Dev2: reasoning RL', 74.0, 95.9, 72.0),
    ('R1 Dev3: rejection sampling, SFT', 78.1, 95.4, 78.1),
    ('R1', 79.8, 97.3, 83.3))


def claims(found: Sequence[r1_claims.Claim], sampled: Mapping[str, Any],
           prompts: Mapping[str, int]) -> str:
  """Each with what it is measured by.

  Args:
    found: the claims.
    sampled: the tests' section eval.
    prompts: how many each test has.
  """
  rows = ''.join(
      f'<tr><th>{html.escape(claim.said)}<p class="small">'
      f'{html.escape(claim.measured)}</p></th><td>{claim.verdict}</td>'
      f'<td>{_number(claim.before, claim.percent)}</td>'
      f'<td>{_number(claim.after, claim.percent)}</td>'
      f'<td>{_number(claim.change, claim.percent, True, "+")}</td></tr>'
      for claim in found)
  tests = ', '.join(f'{count} of {test}' for test, count in prompts.items())
  return ('<section><h2>What is said of R1, in miniature</h2><div '
          'class="scroll"><table class="compare"><tr><th></th><th></th>'
          f'<th>before</th><th>after</th><th>change</th></tr>{rows}</table>'
          f'</div><p class="small">Held-out prompts ({tests}; others for the '
          'examples), the same for all policies, one response each at '
          f'temperature {sampled["temperature"]}, top-p '
          f'{sampled["top_p"]}; changes, in percentage points where '
          'those are shares, with their 95 % intervals over prompts. What '
          'rises or falls holds where the interval leaves out 0, and points '
          'that way where only the mean does. What may lose five points at '
          'most holds where the interval leaves out a greater loss, does not '
          'where all of it is a loss, and is not decided in between. It is '
          'one run: what another seed changes is in no interval, and of '
          f'{len(found)} claims about one may hold by chance.'
          '</p></section>')


def table(policies: Mapping[str, dict[str, r1_figures.Figure]]) -> str:
  """The figures of each policy (r1_figures.table)."""
  rows = {name: [_number(row[key], percent) if key in row else '–'
                 for key, _, percent in _COLUMNS]
          for name, row in policies.items()}
  return ('<section><h2>What each stage did</h2>'
          + _rows([title for _, title, _ in _COLUMNS], rows)
          + '<p class="small">Of the stages, zero_language is R1-Zero with the '
          'language reward, no_language reasoning RL without it; less and all '
          'are fine-tunings of equal length on few chosen examples and on all; '
          'students learn from the samples, from these and the logits (forward '
          'and reverse divergence), or by RL. Reasoning, general tasks and '
          'requests: share right; the general ones ask of what the base has '
          'read, in other words; a request is to be refused or helped with. '
          'Format: thinking and summary, which Zero was never shown. Writing: '
          'what the reader says of it, 0 to 100 %; wins: texts that he likes '
          'better than SFT’s, ties half; variety: the share of a text’s '
          'four-word sequences that no other text has. Mixed: more than a '
          'tenth of the words in another language. Unfinished: cut at the '
          'limit, in all tests.</p></section>')


def sampled(folder: pathlib.Path, judge: Mapping[str, r1_figures.Figure]
            ) -> str:
  """What was kept of the samples of each stage, and why the rest was not."""
  tables = {path.parent.name: rejection.total_counts(files.read_json(path))
            for path in sorted(folder.glob('*/rejection.json'))}
  reasons = [name for name in filters.REASONS
             if any(name in counts for counts in tables.values())]
  rows = {name: [f'{counts[column]}' for column in (rejection.KEPT, *reasons)]
          for name, counts in tables.items()}
  agrees, right = (_number(judge[key], True, True)
                   for key in ('agrees', 'kept_right'))
  return ('<section><h2>What was kept of the samples</h2>'
          + _rows([name.replace('_', ' ') for name in (rejection.KEPT, *reasons)],
                  rows)
          + '<p class="small">Each dropped response is counted under the first '
          f'reason. The judge’s verdicts are the rule’s for {agrees} of the '
          f'responses, and of those that it let through {right} are right.'
          '</p></section>')


def students(passes: Mapping[str, float]) -> str:
  """What each way to a better student has cost it (r1_figures.passes)."""
  rows = {name: [f'{value:.2f}'] for name, value in passes.items()}
  return ('<section><h2>What the students’ training cost</h2>'
          + _rows(('millions of tokens passed',), rows)
          + '<p class="small">A backward pass counts as two. What the teacher '
          'has cost, its samples and its logits, is not in it.</p></section>')


def paper() -> str:
  """What the paper measured, marked as the paper's."""
  rows = {name: [f'{value:.1f}' for value in values]
          for name, *values in _PAPER}
  return ('<section><h2>The paper’s own table</h2>'
          + _rows(('AIME 2024', 'MATH-500', 'IF-Eval'), rows)
          + '<p class="small">Not measured here: DeepSeek-R1, arXiv '
          '2501.12948v2, table 3, of a 671B model.</p></section>')


def times(minutes: Mapping[str, float]) -> str:
  """Folded up."""
  rows = {name: [f'{value:.1f}'] for name, value in minutes.items()}
  return ('<section><details><summary>Minutes of each stage</summary>'
          + _rows(('minutes',), rows) + '</details></section>')


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
