"""The report of tree search: its figures, and a page of made-up runs."""

import numpy as np

from experiments import mcts as experiment
from r1jax.reports import mcts
from r1jax.training import files


def _rows(problems, group, right, value, drawn, chosen=None):
  """Rows of `group` responses each; right and value by (problem, response)."""
  return [{
      'id': m, 'accuracy': right(m, g), 'extracted': str(int(right(m, g))),
      'search/chosen': chosen in (None, g), 'search/value': value(m, g),
      'search/drawn': drawn, 'search/steps': ['a', 'b'],
  } for m in range(problems) for g in range(group)]


def test_curves_are_means_over_all_choices():
  """Of two problems of four samples, one is right: the first, the second."""
  rows = _rows(2, 4, lambda m, g: float(g == m), lambda m, g: .1 * g, 40)
  samples = mcts.plain(rows)
  assert samples.tokens == 10. and samples.answer[0][:2] == ['1', '0']
  curves = mcts.curves(samples)
  for name, expected in {
      'best of N by value': [(.25, .25), (0., 1 / 6), (0., 0.)],
      'any of N right': [(.25, .25), (.5, .5), (1., 1.)],
      'majority': [(.25, .25), (.25, .25), (0., 0.)]}.items():
    assert [k for k, _ in curves[name]] == [1, 2, 4]
    np.testing.assert_allclose([right for _, right in curves[name]], expected)


def test_between_two_sizes_accuracy_is_linear_in_log_tokens():
  curve = [(k, np.array([float(k), 0.])) for k in (1, 2, 4)]
  for tokens, expected in ((10, 1.), (20, 2.), (5, 1.), (99, 4.), (40, 4.),
                           (10 * 8**.5, 3.)):
    got = mcts.at_tokens(curve, 10., tokens)
    np.testing.assert_allclose(got, [expected, 0.], atol=1e-9)


def test_what_was_found_counts_where_another_was_chosen():
  trees = mcts.searched(_rows(
      3, 2, lambda m, g: float(g == m), lambda m, g: 0., 70, chosen=0))
  assert trees.right.tolist() == [1., 0., 0.]
  assert trees.found.tolist() == [1., 1., 0.]
  assert (trees.tokens, trees.steps) == (70., 2.)


def test_the_page_has_all_rounds_loops_and_reasons(tmp_path):
  config = experiment.get_config().to_dict()
  for name in config['stages']:
    (tmp_path / name).mkdir()
    rows = _rows(8, 2, lambda m, g: float(m % 3 != g), lambda m, g: .1 * g, 90,
                 chosen=0)
    if name.startswith('samples'):
      rows = _rows(8, 4, lambda m, g: float(g > 1), lambda m, g: .1 * g, 40)
    files.write_rows(tmp_path / name / 'rollouts.jsonl', rows)
    files.write_rows(tmp_path / name / 'metrics.jsonl', [
        {'step': n, 'perf/tokens': 300 if name == 'first' else 500}
        for n in range(2)])
    files.write_json(tmp_path / name / 'kept.json', {'a': dict(kept=7)})
    files.write_json(tmp_path / name / 'summary.json', {'after': dict(
        accuracy=.8, right=.7, wrong=.6, f1=.65)})
  words = mcts.write_report(config, str(tmp_path))
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert page.count('<svg') == 4 and '600 + 1,000 + 1,000' in page
  summary = files.read_json(tmp_path / 'summary.json')
  found = summary['rounds']['0']
  assert found['tree search']['accuracy'] == .625
  assert found['any response of tree search right']['accuracy'] == 1.
  # 90 tokens are more than all four samples of 10: the last of the curve.
  assert found['best of N by value, as tree search']['accuracy'] == 1.
  assert (found['one sample']['accuracy'], found['one sample']['tokens']) == (
      .5, 10.)
  assert summary['loops']['rest']['kept'] == [7, 7]
  # Two steps of 500 tokens; the first trees are those of both value models.
  assert {loop: found['tokens'] for loop, found in summary['loops'].items()
         } == dict(alphazero=[600, 1000, 1000], rest=[600, 1000, 1000],
                   rejection=[1000, 1000])
  assert len(summary['reasons']) == 3
  assert '37.5 % [' in summary['reasons'][1]['measured']
  assert 'best of all 4 samples by it is right for 100' in (
      summary['reasons'][1]['measured'])
  assert 'round 2: greedy 62.5 %' in words and 'report.html' in words
