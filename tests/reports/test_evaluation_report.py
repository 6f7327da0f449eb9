"""The report of an evaluation, of figures worked out by hand."""

import pytest

from r1jax.reports import evaluation
from r1jax.reports import published
from r1jax.training import files

SAMPLING = dict(temperature=.6, top_k=0, top_p=.95, response_tokens=32)
FOUND = {
    'n': 2, 'samples': 2, 'pass@1': .25, 'ci95': [.1, .6], 'pass@2': .5,
    'cons@2': .25, 'intervals': {'pass@2': [.2, .8], 'cons@2': [.1, .7]},
    'format': 1., 'response_length': 20., 'truncated': .5, 'answered': .75,
    'tasks': {'t': .25}, 'left_out': 0, 'sampling': SAMPLING, 'figures': {},
    'verifier': {'errors': 0, 'timeouts': 0},
    'tokens': dict(prompts=10, responses=1_990, total=2_000),
    'time/seconds': 3., 'perf/tokens_per_second': 660.}


def _rows(test, lengths, right):
  return [{'test': test, 'id': n // 2, 'sample': n % 2, 'tokens': length,
           'accuracy': float(good), 'prompt': f'<b>{n}</b>', 'answer': '1',
           'response': f'text {n}', 'finished': True}
          for n, (length, good) in enumerate(zip(lengths, right))]


def test_a_row_of_the_table():
  assert evaluation.cells('aime', FOUND) == [
      'aime', '2 × 2', '25.0 % [10.0, 60.0]', '25.0 %', '50.0 %',
      '75.0 %', '100.0 %', '20', '50.0 %', '2,000', '660']
  greedy = {**FOUND, 'samples': 1, 'sampling': SAMPLING | {'temperature': 0.}}
  for key in ('pass@2', 'cons@2', 'intervals'):
    del greedy[key]
  cells = evaluation.cells('aime', greedy)
  assert cells[1] == '2 × 1, greedy' and cells[3:5] == ['–', '–']


def test_a_table_has_columns():
  assert evaluation.lines([['test', 'n'], ['a', '100'], ['long one', '7']]) == [
      'test        n', 'a         100', 'long one    7']


def test_what_was_not_scored_is_said():
  assert evaluation.failures(FOUND) == []
  found = FOUND | {'left_out': 3, 'verifier': {
      'errors': 0, 'timeouts': 2, 'restarts': 1, 'code_crash': 4}}
  assert evaluation.failures(found) == [
      'verifier: timeouts 2',
      '3 problems left out: their prompts are too long']
  assert evaluation.figures(found) == [('code_crash', '4')]


def test_the_papers_figures_are_marked_and_apart():
  bars = evaluation.bars('aime', FOUND)
  own = [bar for bar in bars if not bar.paper]
  assert [(bar.name, bar.value, bar.low, bar.high) for bar in own] == [
      ('pass@1', 25., 10., 60.), ('pass@2', 50., 20., 80.),
      ('cons@2', 25., 10., 70.)]
  named = {bar.name: bar.value for bar in bars if bar.paper}
  assert named['DeepSeek-R1, pass@1'] == pytest.approx(79.8)
  assert named['DeepSeek-R1-Zero, cons@64'] == pytest.approx(86.7)
  assert not any(bar.paper for bar in evaluation.bars('my_test', FOUND))


def test_published_figures_are_shares():
  for suite, rows in published.FIGURES.items():
    assert rows and all(0 < row.value < 1 for row in rows), suite
    names = [(row.model, row.metric) for row in rows]
    assert len(names) == len(set(names))
  assert published.sources('aime') == published.PAPER
  assert published.sources('mmlu') == f'{published.LATER} and {published.PAPER}'
  assert published.sources('my_test') == ''


def test_a_histogram_counts_every_response():
  rows = _rows('a', [1, 1, 2, 40], [1, 0, 0, 1])
  bins = evaluation.histogram(rows)
  assert len(bins) == 24 and bins[0].text == '0 to 1 tokens: 1 right, 1 wrong'
  assert (bins[0].right, bins[0].wrong) == (50., 50.)
  assert sum(part.right + part.wrong for part in bins) == 200.
  assert bins[-1].right == 50.


def test_pass_at_k_has_a_curve_where_there_are_several_samples():
  chart = evaluation.pass_at_k_curve({'a': FOUND, 'b': FOUND | {'samples': 1}})
  assert chart.series == {'a': [(1, .25), (2, .5)]}
  assert evaluation.pass_at_k_curve({'b': FOUND | {'samples': 1}}) is None


def test_the_page(tmp_path):
  files.write_rows(tmp_path / 'rollouts.jsonl', [
      *_rows('aime', [5, 6, 7, 8], [1, 0, 0, 0]),
      *_rows('mine', [1, 2, 3, 4], [1, 1, 1, 1])])
  config = dict(name='evaluate.py:aime', init_from='/run', rewards=dict(
      answer='boxed'), tests={name: dict(rewards=dict(answer='any'))
                              for name in ('aime', 'mine')})
  failed = FOUND | {'verifier': {'timeouts': 1}, 'figures': {'f/column': .5}}
  words = evaluation.write_report(
      config, str(tmp_path), 1, dict(
          after={'aime': FOUND, 'mine': failed}, seconds=60., seed=0,
          config_digest='d'))
  assert 'mine: verifier: timeouts 1' in words.splitlines()
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert page.count('class="bar paper"') == 15  # 8 of pass@1, 7 of cons@64
  assert 'f/column' in page and 'mine: verifier: timeouts 1.' in page
  assert '&lt;b&gt;0&lt;/b&gt;' in page and '<b>0</b>' not in page
  assert page.count('<article>') == 2  # one problem of each
  assert '✓ correct' in page and 'text 2' not in page
