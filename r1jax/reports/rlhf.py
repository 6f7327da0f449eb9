"""The report of RLHF: proxy and gold reward of the policies, over their KL.

The proxy is the reward model's score; the gold is the rule that it should have
learned, which training never sees. Where the first rises and the second falls,
the proxy is over-optimised (Gao et al., arXiv 2210.10760).
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.training import files

_PROXY = 'preference'  # the name of the reward model's part of the reward
_RUNS = {'ppo': 'PPO', 'ppo_no_kl': 'PPO, no KL penalty'}
_PROMPTS = 4  # shown


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  judge = files.need_json(
      folder / 'reward_model/summary.json', ['after'])['after']
  policies = _policies(folder)
  metrics = {title: files.need_rows(folder / name / 'metrics.jsonl')
             for name, title in _RUNS.items()}
  table = {name: results(policies['SFT'], rows, metrics.get(name))
           for name, rows in policies.items()}
  files.write_json(folder / 'summary.json', {
      'policies': table, 'reward_model': judge})
  page.render_page(
      folder / 'report.html', 'rlhf.html.jinja', title='RLHF in miniature',
      kicker=config['name'], config=config, accuracy=intervals.text(
          intervals.Figure(judge['accuracy'], *judge['ci95']), interval=True),
      rows=[(name, *_cells(row)) for name, row in table.items()],
      n=table['SFT']['n'], curves=_over_kl(metrics),
      samples=_samples(policies))
  lines = [f'{name}: gold {f["gold"]:.3f}, proxy {f["proxy"]:.2f}, wins '
           f'{intervals.percent(f["win_rate"])} over SFT'
           + (f' at {f["kl"]:.1f} nats per response' if f['kl'] else '')
           for name, f in table.items()]
  return '\n'.join([*lines, f'report: {folder / "report.html"}'])


def _policies(folder: pathlib.Path) -> dict[str, list[dict]]:
  """The evaluated responses of each policy; SFT's are those before PPO."""
  found = {'SFT': files.need_rows(folder / 'ppo' / 'evaluation_0.jsonl')}
  for name, title in _RUNS.items():
    done = files.need_json(
        folder / name / 'summary.json', ['steps'])['steps']
    found[title] = files.need_rows(folder / name / f'evaluation_{done}.jsonl')
  found['DPO'] = files.need_rows(folder / 'dpo_measured' / 'evaluation_0.jsonl')
  return found


def results(before: list[dict], rows: list[dict],
            metrics: list[dict] | None) -> dict[str, Any]:
  """A policy's {'gold', 'proxy', 'win_rate', 'kl', 'response_length', 'n'}.

  Args:
    before: evaluated responses of SFT.
    rows: those of the policy.
    metrics: of its steps, if it was trained by RL; `kl` is over the last five.
  """
  mean = lambda name, among=rows: float(np.mean([row[name] for row in among]))
  return {'gold': mean('accuracy'), 'proxy': mean(_PROXY),
          'win_rate': intervals.win_rate(before, rows),
          'kl': metrics and mean('kl/response', metrics[-5:]),
          'response_length': mean('tokens'), 'n': len(rows)}


def _cells(row: Mapping[str, Any]) -> list[str]:
  kl = '–' if row['kl'] is None else f'{row["kl"]:.2f}'
  return [f'{row["gold"]:.2f}', f'{row["proxy"]:.2f}',
          intervals.percent(row['win_rate']), kl,
          f'{row["response_length"]:.2f}']


def _over_kl(metrics: Mapping[str, list[dict]]) -> list[charts.Chart]:
  """Proxy and gold against the distance from SFT, one line per run."""
  return [charts.Chart(
      title, {name: charts.points(rows, key, x='kl/response')
              for name, rows in metrics.items()},
      x_label='KL to SFT, nats per response', caption=caption)
          for key, title, caption in (
              (f'reward/{_PROXY}', 'Proxy', 'the reward that is maximised'),
              ('reward/accuracy', 'Gold', 'the rule it stands for'))]


def _samples(policies: Mapping[str, list[dict]]) -> list[dict[str, Any]]:
  """The first prompts, and a response of each policy to each."""
  by_prompt = {}
  for name, rows in policies.items():
    for row in rows:
      by_prompt.setdefault(row['id'], {}).setdefault(name, row)
  return [{
      'prompt': next(iter(answers.values()))['prompt'],
      'responses': [{
          'name': f'{name}, gold {row["accuracy"]:.2f}',
          'text': row['response'], 'reward': row[_PROXY]}
                    for name, row in answers.items()]}
          for answers in list(by_prompt.values())[:_PROMPTS]]
