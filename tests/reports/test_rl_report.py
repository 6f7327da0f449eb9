"""The report of an rl run, from what the run would leave."""

import pytest

from r1jax.reports import rl as rl_report
from r1jax.training import files

_CONFIG = dict(
    name='r1_zero.py:mini', seed=1, data=dict(task='mini'),
    rl=dict(prompts=4, group=8, response_tokens=64),
    rewards=dict(answer='tags', judge=dict(init_from=None, url=None)))
_TEXTS = ('<think> 7+3 </think> <answer> 10 </answer>', '7+3=10. Answer: 10',
          '<think> 7 + 3 + 0 + 0')


def _figures(right, of=40):
  return {'n': of, 'pass@1': right / of, 'ci95': [.1, .9], 'greedy': .5,
          'format': .25, 'response_length': 41.3, 'truncated': .75,
          'tasks': {'sums': right / of, 'legs': .5}}


def _samples(*texts, correct=False):
  return [dict(prompt='7 + 3', answer='10', text=text, reward=0.,
               correct=correct, finished=not text.endswith('0 + 0'))
          for text in texts]


def _write(folder, before=10, after=38, rows=True, config=_CONFIG):
  for side, correct in (('before', False), ('after', True)):
    files.write_json(folder / f'evaluation_{side}.json', {
        'samples': _samples(*_TEXTS, correct=correct)})
  for step, right in ((0, before), (7, after)) if rows else ():
    files.write_rows(folder / f'evaluation_{step}.jsonl', [
        dict(id=n, accuracy=float(n < right)) for n in range(40)])
  files.write_rows(folder / 'metrics.jsonl', [
      {'step': step, 'reward/accuracy': step / 7} for step in range(7)])
  return rl_report.write_report(config, str(folder), dict(
      stage='rl', steps=7, seconds=90., seed=1, config_digest='abc',
      before=_figures(before), after=_figures(after)))


def test_the_page_claims_no_more_than_was_measured(tmp_path):
  words = _write(tmp_path)
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert '<h1>r1_zero.py:mini · mini</h1>' in page
  assert '7 steps of 4 prompts × 8 responses' in page
  # All rose or stayed, paired: 28 of 40 by 1; a variance of .7 * .3 * 40 / 39.
  change = 'improved, +70.0 pp [+55.6, +84.4]'
  assert words.startswith(
      'measured: pass@1 25.0 % → 95.0 % on 40 held-out problems: ' + change)
  assert '+70.0 pp [+55.6, +84.4], improved' in page
  assert 'greedy 50.0 % → 50.0 %' in words and '41 → 41 tokens' in words
  assert '<th>pass@1, legs</th><td>50.0 %</td><td>50.0 %</td>' in page
  assert '75.0 % of the responses were cut' in page
  assert 'next: the same with another seed: python -m r1jax.main' in words
  # Accuracy, its marks; five of the small charts have no values here.
  assert page.count('<svg') == 2 and page.count('no values were') == 6


def test_tests_have_curves_of_their_own(tmp_path):
  rows = [{'step': n, 'eval/aime/pass@1': n / 10} for n in range(3)]
  sides = [_figures(10) | {'aime/pass@1': value, 'aime/ci95': [.1, .2]}
           for value in (.1, .3)]
  chart, = rl_report._tests(_CONFIG | dict(tests=dict(aime={})), rows, *sides)
  assert chart.title == 'aime, pass@1' and chart.evaluations == [
      (0, 0.), (1, .1), (2, .2)]
  assert (chart.before, chart.after) == ((.1, .1, .2), (.3, .1, .2))
  assert not rl_report._tests(_CONFIG, rows, *sides)


def test_a_mixture_is_named_by_its_tasks(tmp_path):
  _write(tmp_path, config=_CONFIG | dict(
      data=dict(task=(('mini_reasoning', .5), ('mini_general', .5)))))
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert '<h1>r1_zero.py:mini · mini_reasoning, mini_general</h1>' in page


@pytest.mark.parametrize('before, after, said', [
    (10, 11, 'no significant change'), (30, 10, 'worse'),
    (10, 10, 'no significant change')])
def test_what_did_not_rise_is_not_called_learned(tmp_path, before, after, said):
  words = _write(tmp_path, before, after)
  assert said in words and 'improved' not in words and 'learned' not in words
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert said in page and 'improved' not in page and 'learned' not in page


def test_without_the_responses_nothing_is_said_of_the_change(tmp_path):
  words = _write(tmp_path, rows=False)
  assert 'on 40 held-out problems\n' in words
  for step in (0, 7):
    assert f'lacks what was in {tmp_path}/evaluation_{step}.jsonl' in words
  assert 'paired' not in (tmp_path / 'report.html').read_text('utf-8')


def test_a_wrong_response_has_its_reason_where_it_is_known(tmp_path):
  _write(tmp_path)
  page = (tmp_path / 'report.html').read_text('utf-8')
  assert page.count('✗ wrong') == 3 and page.count('✓ correct') == 3
  assert page.count('"fault">no answer found<') == 1
  assert page.count('"fault">cut at the token limit<') == 1


def test_a_judge_needs_no_marked_answer():
  sample, = _samples(_TEXTS[1])
  assert rl_report.fault(sample, dict(answer='tags')) == 'no answer found'
  assert not rl_report.fault(
      sample, dict(answer='tags', judge=dict(url='http://')))
  assert not rl_report.fault(sample, dict(answer='number'))
  assert rl_report.fault(sample | dict(verdict='memory'), dict(
      answer='tags')) == 'out of memory'
  del sample['finished']  # evaluated before that was kept
  assert rl_report.fault(sample, dict(answer='tags')) == 'no answer found'


def test_no_step_is_only_measured(tmp_path):
  words = rl_report.write_report(_CONFIG, str(tmp_path), dict(
      before=None, after=_figures(10), steps=0))
  assert words == 'measured: pass@1 25.0 % (greedy 50.0 %) on 40 problems'


def test_a_report_that_cannot_be_written_says_why(tmp_path):
  words = rl_report.write_report(_CONFIG, str(tmp_path), dict(
      before=None, after=_figures(10), steps=7))
  assert f'no report is written: {tmp_path}/evaluation_before.json is gone' in (
      words)
