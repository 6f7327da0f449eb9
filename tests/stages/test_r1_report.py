"""The claims made of the recipe, and their page, from what stages leave."""

import pytest

from experiments import r1
from r1jax.stages import r1_claims
from r1jax.stages import r1_report
from r1jax.training import jsonl
from r1jax.training import summary

NAMES = (*r1.POLICIES, *r1.STUDENTS)


def _rows(right, of=100, text='Wait, no.', task='t', **fields):
  return [dict(id=n, task=task, prompt=f'<{n}>', response=f'{n} {text}',
               answer='7', tokens=n % 3 + 10, accuracy=float(n < right),
               format=1., mixed=0., language=1.) | fields
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
      jsonl.write(folder / f'{test}_0.jsonl', _rows(right[name], mixed=mixed))
  (tmp_path / 'measured_shots').mkdir()
  summary.write_json(tmp_path / 'measured_shots/summary.json', {'after': {
      f'shots_{n}': {'pass@1': value, 'ci95': [value - .05, value + .05]}
      for n, value in ((0, .8), (1, .75), (4, .9))}})
  for name in ('zero', 'zero_language', 'reasoning', 'no_language'):
    (tmp_path / name).mkdir()
    jsonl.write(tmp_path / name / 'rollouts.jsonl', [
        dict(step=step, response='wait ' * step, tokens=10 + step)
        for step in range(12) for _ in range(4)])
    jsonl.write(tmp_path / name / 'metrics.jsonl', [
        {'step': step, 'response_length/mean': step + 10.}
        | {f'reward/{key}': step / 12
           for key in ('accuracy', 'language', 'mixed')}
        for step in range(12)])
  (tmp_path / 'judged').mkdir()
  jsonl.write(tmp_path / 'judged/rollouts.jsonl', [
      row | dict(answer='-2.0 + 5.0i', no_verdict=float(n == 9),
                 dropped='wrong' if n else '')
      for n, row in enumerate(_rows(
          3, 10, '</think> The answer is \\boxed{-2+5i}.'))])
  summary.write_json(tmp_path / 'judged/kept.json', {
      'a': {'kept': 1, 'wrong': 7}, 'b': {'wrong': 2, 'no_verdict': 1}})
  for name in ('student_sft', 'student_forward', 'student_reverse',
               'student_rl'):
    (tmp_path / name).mkdir()
    summary.write_json(tmp_path / name / 'config.json', {
        'stage': 'rl' if name == 'student_rl' else 'lm'})
    jsonl.write(tmp_path / name / 'metrics.jsonl', 4 * [
        {'perf/tokens': 500_000}])
  return tmp_path


def test_a_claim_holds_where_the_intervals_lie_apart():
  figure = lambda value: r1_claims.Figure(value, value - .1, value + .1)
  compared = lambda *values, **how: r1_claims.compared(
      'said', 'measured', *map(figure, values), **how).verdict
  assert compared(.2, .5) == r1_claims.HOLDS
  assert compared(.2, .3) == r1_claims.POINTS
  assert compared(.2, .2) == compared(.3, .2) == r1_claims.FAILS
  assert compared(.5, .2, rises=False) == r1_claims.HOLDS
  assert compared(.2, .5, rises=False) == r1_claims.FAILS
  kept = lambda *values: r1_claims.kept('', '', *map(figure, values)).verdict
  assert kept(.5, .45) == kept(.5, .9) == r1_claims.HOLDS
  assert kept(.5, .2) == r1_claims.FAILS


def test_figures_of_the_policies(folder):
  table = r1_claims.policies(folder, NAMES)
  assert table['zero']['reasoning'].value == .8
  assert table['zero']['mixed'].value == 1. and table['r1']['mixed'].value == 0.
  assert table['zero']['reflections'].value == 1.
  tokens = table['zero']['tokens']
  assert tokens.value == pytest.approx(10.99) and tokens.low < 10.99
  assert table['r1']['wins'].value == pytest.approx(.5 + .5 * .02)
  assert 'wins' not in table['sft']


def test_early_and_late_steps_are_a_runs_first_and_last(folder):
  found = r1_claims.early_and_late(folder / 'zero', steps=2)
  assert [figure.value for figure in found['tokens']] == [10.5, 20.5]
  assert [figure.value for figure in found['reflections']] == [.5, 10.5]


def test_a_backward_pass_counts_as_two(folder):
  assert r1_claims.passes(folder / 'student_sft') == 6.
  assert r1_claims.passes(folder / 'student_rl') == 10.


def test_a_judge_is_worth_what_the_rule_says(folder):
  found = r1_claims.judge(folder / 'judged')
  assert found['agrees'].value == pytest.approx(3 / 9)
  assert found['kept_right'].value == 1.


def test_the_page_says_what_holds_and_what_does_not(folder):
  stages = {name: {} for name in ('zero', 'zero_language', 'reasoning',
                                  'no_language', 'measured_shots')}
  stages |= {f'measured_{name}': {} for name in NAMES}
  for name in stages:
    summary.write_json(folder / name / 'manifest.json', {'seconds': 30.})
  words = r1_report.write({'name': 'r1.py:mini', 'stages': stages}, str(folder))
  page = (folder / 'report.html').read_text('utf-8')
  claims = {claim['said']: claim['verdict'] for claim in summary.read_json(
      folder / 'summary.json')['claims']}
  assert claims['RL on a base, without SFT, learns to reason'] == 'holds'
  assert claims['Thinking grows on its own'] == 'holds'
  assert claims['Less is more'] == 'does not hold'
  assert claims['Secondary RL helps helpfulness'] == 'points that way'
  assert claims['Examples in the prompt hurt'] == 'points that way'
  assert claims['… more of them more'] == 'does not hold'
  assert all(said in page for said in claims) and page.count('<svg') == 5
  assert '97.3' in page and 'Not measured here' in page and '<0>' not in page
  assert '20.0 % → 80.0 %: holds' in words
  assert '33.3 % [12.1, 64.6] of the responses' in page
  assert '<th>judged</th><td>1</td><td>1</td><td>9</td>' in page
