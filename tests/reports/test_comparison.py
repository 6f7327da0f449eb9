"""The report of runs beside each other, from what their stages would leave."""

import pytest

from experiments import ppo_vs_grpo
from r1jax.pipeline import graph
from r1jax.reports import comparison
from r1jax.training import files

_AFTER = dict(n=512, ci95=[.8, .9], greedy=.9, format=1., response_length=50.)


def test_the_page_has_a_row_and_lines_for_every_run(tmp_path):
  config = ppo_vs_grpo.get_config().to_dict()
  for number, name in enumerate(config['stages']):
    (tmp_path / name).mkdir()
    files.write_json(tmp_path / name / 'summary.json', {
        'after': _AFTER | {'pass@1': .5 + .1 * number}})
    files.write_rows(tmp_path / name / 'metrics.jsonl', [
        {'step': i, 'reward/accuracy': .1 * i, 'response_length/mean': 9. * i,
         'time/step_seconds': (9., 1. + number, 1.)[i],
         'perf/peak_memory_mib': 1024. * (1 + i)} for i in range(3)])
  words = comparison.write_report(config, str(tmp_path))
  page = (tmp_path / 'report.html').read_text('utf-8')
  # Two of the four figures have no values; a line of each run in the others.
  assert page.count('<svg') == 2 and page.count('no values') == 2
  assert page.count('class="line series2"') == 2
  # Three steps of 16 groups of 8: the axis ends at 384 responses.
  assert '>300</text>' in page and '>400</text>' not in page
  runs = files.read_json(tmp_path / 'summary.json')['runs']
  assert list(runs) == ['grpo', 'ppo', 'ppo_095']
  assert runs['ppo']['pass@1'] == pytest.approx(.6)
  assert [run['seconds_a_step'] for run in runs.values()] == [1., 2., 3.]
  assert 'ppo_095: pass@1 70.0 % (greedy 90.0 %), 3.0 s per step, 3.00' in words


def test_the_runs_differ_in_their_estimator_alone(tmp_path):
  nodes = graph.nodes(ppo_vs_grpo.get_config(), tmp_path)
  grpo, ppo, ppo_095 = (node.config for node in nodes)
  assert (ppo['critic'].pop('lam'), ppo_095['critic'].pop('lam')) == (1., .95)
  assert ppo.pop('name') != ppo_095.pop('name')
  assert ppo == ppo_095
  for same in ('data', 'rewards', 'optim', 'seed', 'steps', 'init_from'):
    assert grpo[same] == ppo[same]
  changed = {name for name in ppo['rl'] if grpo['rl'][name] != ppo['rl'][name]}
  assert changed == {'advantage', 'aggregate'}
