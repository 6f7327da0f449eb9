"""The report of classical RLHF: proxy and gold over the KL, and what is said.

The proxy is the reward model's score; the gold is the rule that it was to
learn, which training never sees. Where the first rises and the second falls
the proxy is over-optimised (Gao et al., arXiv 2210.10760).
"""

from collections.abc import Mapping
import html
import pathlib
from typing import Any

import numpy as np

from r1jax.stages import evaluation
from r1jax.stages import rl_report
from r1jax.training import files
from r1jax.training import line_chart
from r1jax.training import report

_PROXY = 'preference'  # the name of the reward model's part of the reward
_RUNS = {'ppo': 'PPO', 'ppo_no_kl': 'PPO, no KL penalty'}
_PROMPTS = 4  # shown


def write(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  judge = files.read_json(folder / 'reward_model/summary.json')['after']
  policies = _policies(folder)
  table = {name: figures(policies['SFT'], rows, _kl(folder, name))
           for name, rows in policies.items()}
  files.write_json(folder / 'summary.json', {
      'policies': table, 'reward_model': judge})
  low, high = judge['ci95']
  subtitle = (
      f'A reward model that puts {100 * judge["accuracy"]:.1f} % '
      f'[{100 * low:.1f}, {100 * high:.1f}] of held-out pairs in the right '
      'order, and what is gained by it in truth.')
  report.page(folder / 'report.html', 'RLHF in miniature', [
      report.header('RLHF in miniature', subtitle, config['name']),
      _compared(table), _over_kl(folder), _said(policies),
      report.reproduce(rl_report.command(), {}),
      report.whole_config(config)])
  lines = [f'{name}: gold {f["gold"]:.3f}, proxy {f["proxy"]:.2f}, wins '
           f'{100 * f["win_rate"]:.1f} % over SFT'
           + (f' at {f["kl"]:.1f} nats a response' if f['kl'] else '')
           for name, f in table.items()]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def _policies(folder: pathlib.Path) -> dict[str, list[dict]]:
  """The evaluated responses of each policy; those of SFT are PPO's first."""
  found = {'SFT': files.read_rows(folder / 'ppo' / 'evaluation_0.jsonl')}
  for name, title in _RUNS.items():
    done = files.read_json(folder / name / 'summary.json')['steps']
    found[title] = files.read_rows(folder / name / f'evaluation_{done}.jsonl')
  found['DPO'] = files.read_rows(folder / 'dpo_measured' / 'evaluation_0.jsonl')
  return found


def figures(before: list[dict], rows: list[dict], kl: float | None
           ) -> dict[str, Any]:
  """What became of a policy: {'gold', 'proxy', 'win_rate', 'kl', ...}."""
  mean = lambda name: float(np.mean([row[name] for row in rows]))
  return {'gold': mean('accuracy'), 'proxy': mean(_PROXY),
          'win_rate': evaluation.win_rate(before, rows), 'kl': kl,
          'response_length': mean('tokens'), 'n': len(rows)}


def _kl(folder: pathlib.Path, title: str) -> float | None:
  """Nats a response over the last five steps."""
  names = {title: name for name, title in _RUNS.items()}
  if title not in names:
    return None
  rows = files.read_rows(folder / names[title] / 'metrics.jsonl')[-5:]
  return float(np.mean([row['kl/response'] for row in rows]))


def _compared(table: Mapping[str, Mapping[str, Any]]) -> str:
  columns = {'gold': 'gold, 0 to 1', 'proxy': 'proxy', 'win_rate':
             'wins over SFT', 'kl': 'KL, nats a response',
             'response_length': 'tokens'}
  head = ''.join(f'<th>{title}</th>' for title in columns.values())
  rows = ''.join(
      f'<tr><th>{html.escape(name)}</th>' + ''.join(
          f'<td>{_cell(key, row[key])}</td>' for key in columns) + '</tr>'
      for name, row in table.items())
  n = next(iter(table.values()))['n']
  return ('<section><h2>What was gained</h2><div class="scroll">'
          f'<table class="compare"><tr><th></th>{head}</tr>{rows}</table></div>'
          f'<p class="small">{n} responses to held-out prompts. Gold: the '
          'reader’s own verdict; proxy: the reward model’s score; a tie is '
          'half a win.</p></section>')


def _cell(key: str, value: float | None) -> str:
  if value is None:
    return '–'
  return f'{100 * value:.1f} %' if key == 'win_rate' else f'{value:.2f}'


def _over_kl(folder: pathlib.Path) -> str:
  """Proxy and gold against the distance from SFT, a line a run."""
  rows = {title: files.read_rows(folder / name / 'metrics.jsonl')
          for name, title in _RUNS.items()}
  drawn = []
  for key, title, caption in (
      (f'reward/{_PROXY}', 'Proxy', 'what is maximised'),
      ('reward/accuracy', 'Gold', 'what was meant')):
    drawn.append(line_chart.figure(line_chart.Lines(
        title, {name: [(row['kl/response'], row[key]) for row in part]
                for name, part in rows.items()},
        'KL to SFT, nats a response', caption=caption)))
  return ('<section><h2>Over the distance from SFT</h2><div class="wide">'
          f'{"".join(drawn)}</div></section>')


def _said(policies: Mapping[str, list[dict]]) -> str:
  """The same prompts, answered by each."""
  first = {}  # a response of each policy to each prompt
  for name, rows in policies.items():
    for row in rows:
      first.setdefault(row['id'], {}).setdefault(name, row)
  articles = []
  for answers in list(first.values())[:_PROMPTS]:
    sides = ''.join(
        report.response(f'{name}, gold {row["accuracy"]:.2f}', {
            'text': row['response'], 'reward': row[_PROXY]})
        for name, row in answers.items())
    prompt = html.escape(next(iter(answers.values()))['prompt'])
    articles.append(f'<article><div class="question"><p class="text">{prompt}'
                    f'</p></div><div class="sides">{sides}</div></article>')
  return ('<section><h2>What they write</h2><p class="small">The same held-out '
          f'prompts, sampled at temperature 1.</p>{"".join(articles)}'
          '</section>')
