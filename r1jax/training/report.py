"""A stage's report: one HTML file with no script and nothing to fetch.

It reads like a page of a paper: the figures that changed, the curves, what the
model writes before and after, and how to get the same again. Every text of a
model, a task or a config is escaped.
"""

from collections.abc import Mapping, Sequence
import html
import os
import pathlib
import re
from typing import Any

from r1jax.training import charts
from r1jax.training import report_style

# The figures of an evaluation: key, name, whether it is a fraction.
_FIGURES = (
    ('pass@1', 'Accuracy, sampled (pass@1)', True),
    ('greedy', 'Accuracy, greedy', True),
    ('format', 'Format followed', True),
    ('response_length', 'Mean response length', False),
)
_TAG = re.compile(r'&lt;(/?)(think|answer)&gt;')


def write(path: str | os.PathLike, *, title: str, subtitle: str,
          rows: charts.Rows, curves: Sequence[charts.Curve],
          panels: Sequence[charts.Curve], summary: Mapping[str, Any],
          samples: Sequence[Mapping[str, Any]], config: Mapping[str, Any],
          command: str, facts: Mapping[str, Any], notes: Sequence[str] = ()):
  """Writes the report to `path`, whole or not at all.

  Args:
    path: the .html file.
    title: of the page.
    subtitle: what was done, in a sentence or two.
    rows: of metrics.jsonl, each with `step`.
    curves: the main figures, two abreast.
    panels: smaller figures below them.
    summary: as in summary.json; its `before` and `after`, where present, are
      evaluations {"n", "pass@1", "ci95": [low, high], "greedy", "format",
      "response_length"} and become the headline figures.
    samples: {"prompt", "answer", "before": {"text", "reward", "correct"},
      "after": {...}}, one a prompt.
    config: nested plain data.
    command: what to type to do it again.
    facts: name -> value, e.g. seed, config digest, versions, machine.
    notes: paragraphs that help to read the figures.
  """
  page(path, title, [
      header(title, subtitle, summary.get('stage')), _headline(summary),
      _figures(curves, panels, rows), _notes(notes), _samples(samples),
      reproduce(command, facts), whole_config(config)])


def page(path: str | os.PathLike, title: str, body: Sequence[str]):
  """Writes a page of these sections to `path`, whole or not at all."""
  content = (
      '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
      '<meta name="viewport" content="width=device-width, initial-scale=1">'
      '<meta name="color-scheme" content="light dark">'
      f'<title>{_text(title)}</title><style>{report_style.CSS}</style></head>'
      f'<body><main>{"".join(body)}</main></body></html>\n')
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(content, encoding='utf-8', errors='replace')
  os.replace(temporary, path)


def _text(value: Any) -> str:
  return html.escape(str(value))


def header(title: str, subtitle: str, stage: str | None) -> str:
  """The head of a page."""
  kicker = f'r1jax · {_text(stage)}' if stage else 'r1jax'
  return (f'<header><p class="kicker">{kicker}</p><h1>{_text(title)}</h1>'
          f'<p class="subtitle">{_text(subtitle)}</p></header>')


def _headline(summary) -> str:
  before, after = summary.get('before') or {}, summary.get('after') or {}
  cards = [_card(key, name, percent, before, after)
           for key, name, percent in _FIGURES if key in before or key in after]
  if not cards:
    return ''
  n = (after or before).get('n')
  held = f' on {n:,} held-out problems' if n else ''
  return (f'<section><h2>What was learned</h2><div class="cards">'
          f'{"".join(cards)}</div><p class="small">Evaluated before and after '
          f'training{held}. Brackets: 95 % confidence interval.'
          '</p></section>')


def _card(key, name, percent, before, after) -> str:
  unit = ' %' if percent else ' tokens'

  def value(evaluation):
    if evaluation.get(key) is None:
      return '–'
    number = evaluation[key]
    return f'{100 * number:.1f}' if percent else f'{number:.0f}'

  def interval(evaluation):
    if key != 'pass@1' or not evaluation.get('ci95'):
      return ''
    low, high = evaluation['ci95']
    return f'<span>[{100 * low:.1f}, {100 * high:.1f}]</span>'

  if key in before and key in after:
    figure = (f'<span class="was">{value(before)}</span>'
              f'<span class="arrow">→</span>{value(after)}')
  else:
    figure = value(after if key in after else before)
  ranges = ' → '.join(filter(None, [interval(before), interval(after)]))
  return (f'<div class="card"><p class="name">{name}</p><p class="figure">'
          f'{figure}<span class="unit">{unit}</span></p>'
          f'<p class="ci">{ranges}</p></div>')


def _figures(curves, panels, rows) -> str:
  drawn = []
  for kind, group, size in (('wide', curves, (460, 290)),
                            ('panel', panels, (300, 190))):
    figures = []
    for curve in group:
      svg = charts.draw(curve, rows, width=size[0], height=size[1])
      label = f' <span class="of">{_text(curve.label)}</span>' * bool(
          curve.label)
      caption = f'<p>{_text(curve.caption)}</p>' * bool(curve.caption)
      figures.append(f'<figure><h3>{_text(curve.title)}{label}</h3>{svg}'
                     f'<figcaption>{caption}</figcaption></figure>')
    if figures:
      thirds = ' thirds' * (kind == 'panel' and len(figures) % 3 == 0)
      drawn.append(f'<div class="{kind}{thirds}">{"".join(figures)}</div>')
  if not drawn:
    return ''
  return (
      f'<section><h2>Over training</h2>{"".join(drawn)}<p class="small legend">'
      '<span class="key raw"></span>each step '
      '<span class="key line"></span>smoothed '
      '<span class="key before"></span>evaluated before '
      '<span class="key after"></span>evaluated after</p></section>')


def _notes(notes) -> str:
  if not notes:
    return ''
  paragraphs = ''.join(f'<p>{_text(note)}</p>' for note in notes)
  return f'<section class="notes"><h2>Notes</h2>{paragraphs}</section>'


def _samples(samples) -> str:
  if not samples:
    return ''
  return ('<section><h2>What it writes</h2><p class="small">The same prompts, '
          'before and after training.</p>'
          + ''.join(_sample(sample) for sample in samples) + '</section>')


def _sample(sample) -> str:
  sides = ''.join(
      response(name, sample[name]) for name in ('before', 'after')
      if sample.get(name))
  answer = ''
  if sample.get('answer') is not None:
    answer = f'<p class="reference">answer <b>{_text(sample["answer"])}</b></p>'
  return (f'<article><div class="question"><p class="text">'
          f'{_text(sample["prompt"]).strip()}</p>{answer}</div>'
          f'<div class="sides">{sides}</div></article>')


def response(name: str, response: Mapping[str, Any]) -> str:
  """A model's text: {'text', 'reward', 'correct'}, the last two if known."""
  verdict = reward = ''
  if response.get('correct') is not None:
    word, sign = ('correct', '✓') if response['correct'] else ('wrong', '✗')
    verdict = f'<span class="badge {word}">{sign} {word}</span>'
  if response.get('reward') is not None:
    reward = f'<span class="reward">reward {response["reward"]:.2f}</span>'
  text = _TAG.sub(r'<span class="tag \2">&lt;\1\2&gt;</span>',
                  _text(response['text']).strip())
  return (f'<div class="response"><p class="meta"><span class="when">{name}'
          f'</span>{verdict}{reward}</p>'
          f'<pre class="text">{text or "<i>nothing</i>"}</pre></div>')


def reproduce(command: str, facts: Mapping[str, Any]) -> str:
  """How to get the same again."""
  return (f'<section><h2>How to reproduce</h2><pre class="command">'
          f'{_text(command)}</pre>{_table(facts)}</section>')


def whole_config(config: Mapping[str, Any]) -> str:
  """Every field, folded up."""
  return ('<section><details><summary>The whole configuration</summary>'
          f'{_table(_flat(config))}</details></section>')


def _table(rows: Mapping[str, Any]) -> str:
  cells = ''.join(f'<tr><th scope="row">{_text(k)}</th><td>{_text(v)}</td></tr>'
                  for k, v in rows.items())
  return f'<div class="scroll"><table>{cells}</table></div>'


def _flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      flat.update(_flat(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat
