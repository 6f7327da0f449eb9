"""The claims made of the recipe, and their page, from what stages leave."""

import numpy as np
import pytest

from experiments import r1
from r1jax import errors
from r1jax.reports import r1 as r1_report
from r1jax.reports import r1_claims
from r1jax.training import files

NAMES = (*r1.POLICIES, *r1.STUDENTS)


def _rows(right, of=100, text='Wait, no.', task='t', **fields):
  return [dict(id=n, task=task, prompt=f'<{n}>', response=f'{n} {text}',
               answer='7', tokens=n % 3 + 10, accuracy=float(n < right),
               finished=n > 0, format=1., mixed=0., language=1.) | fields
          for n in range(of)]


@pytest.fixture(name='folder')
def _folder(tmp_path):
  right = {name: 50 for name in NAMES} | dict(
      base=20, zero=80, r1=81, sft=79, student_sft=60, student_rl=55, less=10)
  for name in NAMES:
    folder = tmp_path / f'measured_{name}'
    folder.mkdir()
    for test in ('reasoning', 'general', 'writing', 'requests'):
      mixed = float(name == 'zero')
      files.write_rows(
          folder / f'{test}_0.jsonl', _rows(right[name], mixed=mixed))
  for name, solved in (('shots', (80, 78, 90)), ('shots_base', (30, 0, 0))):
    (tmp_path / name).mkdir()
    for n, right_ones in zip((0, 1, 4), solved):
      files.write_rows(
          tmp_path / name / f'shots_{n}_0.jsonl', _rows(right_ones))
  for name in ('zero', 'zero_language', 'reasoning', 'no_language'):
    (tmp_path / name).mkdir()
    files.write_rows(tmp_path / name / 'rollouts.jsonl', [
        dict(step=step, id=n // 2, response='wait ' * step, tokens=10 + step)
        for step in range(12) for n in range(4)])
    files.write_rows(tmp_path / name / 'metrics.jsonl', [
        {'step': step, 'response_length/mean': step + 10.}
        | {f'reward/{key}': step / 12
           for key in ('accuracy', 'language', 'mixed')}
        for step in range(12)])
  (tmp_path / 'judged').mkdir()
  files.write_rows(tmp_path / 'judged/rollouts.jsonl', [
      row | dict(answer='-2.0 + 5.0i', no_verdict=float(n == 9),
                 dropped='wrong' if n else '')
      for n, row in enumerate(_rows(
          3, 10, '</think> The answer is \\boxed{-2+5i}.'))])
  files.write_json(tmp_path / 'judged/kept.json', {
      'a': {'kept': 1, 'wrong': 7}, 'b': {'wrong': 2, 'no_verdict': 1}})
  for name in ('student_sft', 'student_forward', 'student_reverse',
               'student_rl'):
    (tmp_path / name).mkdir()
    files.write_json(tmp_path / name / 'config.json', {
        'stage': 'rl' if name == 'student_rl' else 'lm'})
    files.write_rows(tmp_path / name / 'metrics.jsonl', 4 * [
        {'perf/tokens': 500_000}])
  return tmp_path


def _sample(right, of=400):
  """One value a prompt, the first `right` of them 1."""
  return (np.arange(of) < right).astype(float)


@pytest.mark.parametrize('before, after, rises, verdict', [
    (100, 200, True, r1_claims.HOLDS),
    (100, 102, True, r1_claims.NOT_SIGNIFICANT),  # two prompts are no evidence
    (100, 100, True, r1_claims.FAILS),
    (102, 100, True, r1_claims.FAILS),
    (200, 100, False, r1_claims.HOLDS),
    (102, 100, False, r1_claims.NOT_SIGNIFICANT),
    (100, 200, False, r1_claims.FAILS),
])
def test_what_rises_or_falls_by_its_interval(before, after, rises, verdict):
  claim = r1_claims.compared(
      'said', 'measured', _sample(before), _sample(after), rises=rises)
  assert claim.verdict == verdict
  assert claim.before.value == before / 400
  assert claim.change.value == pytest.approx((after - before) / 400)


@pytest.mark.parametrize('before, after, verdict', [
    (300, 300, r1_claims.HOLDS), (300, 350, r1_claims.HOLDS),
    (300, 292, r1_claims.HOLDS),  # a loss of 2 points, 3.4 at the most
    (300, 284, r1_claims.FAILS),  # of 4, 2 at the least
    (300, 200, r1_claims.FAILS)])
def test_what_is_kept_by_its_interval(before, after, verdict):
  assert r1_claims.kept(
      '', '', _sample(before), _sample(after)).verdict == verdict


def test_what_few_prompts_cannot_tell_is_inconclusive():
  """Not that it holds, as where two wide intervals meet."""
  before, after = _sample(30, 40), _sample(30, 40)[::-1]
  claim = r1_claims.kept('', '', before, after)
  assert claim.change.value == 0. and claim.verdict == r1_claims.INCONCLUSIVE


def _policies(folder):
  return {name: r1_claims.responses(folder / f'measured_{name}')
          for name in NAMES}


def test_results_of_the_policies(folder):
  table = r1_claims.results(_policies(folder))
  assert table['zero']['reasoning'].value == .8
  assert table['zero']['mixed'].value == 1. and table['r1']['mixed'].value == 0.
  assert table['zero']['reflections'].value == 1.
  tokens = table['zero']['tokens']
  assert tokens.value == pytest.approx(10.99) and tokens.low < 10.99
  assert table['r1']['wins'].value == pytest.approx(.5 + .5 * .02)
  assert 'wins' not in table['sft']
  assert table['r1']['unfinished'].value == .01  # of all four tests
  assert table['r1']['variety'].value == 1.


def test_variety_is_what_no_other_text_says():
  assert r1_claims.variety(['a b c d e', 'a b c d f', 'x', '']) == [
      .5, .5, 1., 1.]
  assert r1_claims.variety(['so it is', 'so it is']) == [0., 0.]


def test_early_and_late_steps_are_a_runs_first_and_last(folder):
  """A value a prompt: its responses are one group."""
  found = r1_claims.early_and_late(folder / 'zero', steps=2)
  assert [part.tolist() for part in found['tokens']] == [
      [10, 10, 11, 11], [20, 20, 21, 21]]
  assert [part.mean() for part in found['reflections']] == [.5, 10.5]


def test_only_the_first_and_last_steps_are_read(folder, tmp_path):
  """What lies between them may not even be JSON."""
  path = tmp_path / 'copy' / 'rollouts.jsonl'
  rows = files.read_rows(folder / 'zero/rollouts.jsonl')
  steps = sorted({row['step'] for row in rows})
  part = lambda chosen: [row for row in rows if row['step'] in chosen]
  files.make_folder(path.parent)
  files.write_rows(path, part(steps[:3]))
  with open(path, 'ab') as file:
    file.write(b'not read\n' * 20_000)
  files.append_rows(path, part(steps[-3:]))
  whole, ends = (r1_claims.early_and_late(each, steps=2)
                 for each in (folder / 'zero', path.parent))
  for key, parts in whole.items():
    for one, other in zip(parts, ends[key], strict=True):
      assert one.tolist() == other.tolist()
  with pytest.raises(errors.ConfigError, match='rollouts.jsonl: expected a'):
    r1_claims.early_and_late(tmp_path)


def test_a_backward_pass_counts_as_two(folder):
  assert r1_claims.tokens_passed(folder / 'student_sft') == 6.
  assert r1_claims.tokens_passed(folder / 'student_rl') == 10.


def test_a_judge_is_worth_what_the_rule_says(folder):
  found = r1_claims.judge_agreement(folder / 'judged')
  assert found['agrees'].value == pytest.approx(3 / 9)
  assert found['kept_right'].value == 1.


@pytest.mark.parametrize('figure, gone', [
    (r1_claims.tokens_passed, 'metrics.jsonl'),
    (r1_claims.judge_agreement, 'rollouts.jsonl')])
def test_no_figure_is_made_from_a_file_that_is_gone(tmp_path, figure, gone):
  files.write_json(tmp_path / 'config.json', {'stage': 'lm'})
  with pytest.raises(errors.ConfigError, match=gone):
    figure(tmp_path)


def test_the_page_says_what_holds_and_what_does_not(folder):
  stages = {name: {} for name in ('zero', 'zero_language', 'reasoning',
                                  'no_language', 'shots', 'shots_base')}
  stages |= {f'measured_{name}': {'eval': dict(temperature=.6, top_p=.95)}
             for name in NAMES}
  for name in stages:
    files.write_json(folder / name / 'manifest.json', {'seconds': 30.})
  words = r1_report.write_report(
      {'name': 'r1.py:mini', 'stages': stages}, str(folder))
  page = (folder / 'report.html').read_text('utf-8')
  claims = {claim['said']: claim['verdict'] for claim in files.read_json(
      folder / 'summary.json')['claims']}
  assert claims['RL on a base, without SFT, learns to reason'] == 'holds'
  assert claims['Responses grow on their own'] == 'holds'
  assert claims['Less is more'] == 'does not hold'
  assert claims['Secondary RL helps helpfulness'] == 'not significant'
  assert claims['Examples in the prompt hurt'] == 'not significant'
  assert claims['… more of them more'] == 'does not hold'
  assert claims['… and the base, too'] == 'holds'
  assert claims['R1 reasons as well as Zero'] == 'holds'
  _, said, *_ = page.split('<section>')
  assert len(claims) == said.count('<tr><th>') - 1  # but for the head
  assert all(said in page for said in claims) and page.count('<svg') == 5
  assert 'at temperature 0.6, top-p 0.95' in page
  assert '+60.0 pp [+50.3, +69.7]' in page  # base -> Zero
  assert '97.3' in page and 'Not measured here' in page and '<0>' not in page
  assert '20.0 % → 80.0 %: holds' in words
  assert '33.3 % [12.1, 64.6] of the responses' in page
  assert '<th>judged</th><td>1</td><td>1</td><td>9</td>' in page
  assert 'non-inferiority margin of 5 points' in page
  assert 'cut at the token limit' in page  # the first response of each test
