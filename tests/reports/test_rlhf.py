"""The report of RLHF, from what a pipeline's stages would leave."""

import pytest

from r1jax.reports import rlhf
from r1jax.training import files


def _rows(*golds, proxy=1.):
  return [dict(id=n // 2, accuracy=gold, preference=proxy, tokens=10 + n,
               prompt=f'Write <{n // 2}>', response=f'text {n}')
          for n, gold in enumerate(golds)]


@pytest.fixture(name='folder')
def _folder(tmp_path):
  for name in ('ppo', 'ppo_no_kl', 'dpo_measured', 'reward_model'):
    (tmp_path / name).mkdir()
  after = dict(accuracy=.948, ci95=[.87, .98])
  files.write_json(tmp_path / 'reward_model/summary.json', {'after': after})
  for name, golds in (('ppo', (1, 1, 1, 0)), ('ppo_no_kl', (0, 0, 1, 0))):
    files.write_json(tmp_path / name / 'summary.json', {'steps': 7})
    files.write_rows(
        tmp_path / name / 'evaluation_7.jsonl', _rows(*golds, proxy=5.))
    files.write_rows(tmp_path / name / 'metrics.jsonl', [
        {'step': i, 'kl/response': .5 * i, 'reward/preference': float(i),
         'reward/accuracy': .1 * i} for i in range(7)])
  for name in ('ppo', 'dpo_measured'):
    files.write_rows(tmp_path / name / 'evaluation_0.jsonl', _rows(0, 0, .5, 0))
  return tmp_path


def test_the_page_has_the_figures_both_runs_and_what_is_said(folder):
  words = rlhf.write_report({'name': 'rlhf.py:mini'}, str(folder))
  page = (folder / 'report.html').read_text('utf-8')
  assert '94.8 %' in page and page.count('<svg') == 2
  assert page.count('line series1') >= 2 and '&lt;1&gt;' in page
  kept = files.read_json(folder / 'summary.json')['policies']
  assert list(kept) == ['SFT', 'PPO', 'PPO, no KL penalty', 'DPO']
  assert kept['SFT']['win_rate'] == .5 and kept['SFT']['kl'] is None
  assert kept['PPO'] == dict(gold=.75, proxy=5., kl=2., response_length=11.5,
                             n=4, win_rate=(1 + (.5 + 1 + .25) / 2 - .25) / 2)
  assert 'PPO: gold 0.750, proxy 5.00' in words and 'report.html' in words
