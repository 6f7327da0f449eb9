"""Small programs: what they compute, and which responses to them are right."""

import random

import pytest

from r1jax.data import splits
from r1jax.mini import programs
from r1jax.mini import sources
from r1jax.rewards.code import judge
from r1jax.rewards.code import programs as code_programs
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.rewards.code import unit_tests


def test_steps_become_an_expression_with_the_brackets_it_needs():
  steps = [('add', 3), ('multiply by', 4), ('multiply by', 5), ('subtract', 2)]
  assert programs.lines(steps) == ['n+3', '(n+3)*4', '(n+3)*4*5', '(n+3)*4*5-2']
  assert programs.lines(steps, brackets=False)[-1] == 'n+3*4*5-2'


def test_an_expression_has_the_value_that_the_tests_want():
  rng = random.Random(0)
  for _, (prompt, steps) in zip(range(200), programs.problems(rng)):
    record = programs.record(prompt, steps)
    cases = record['tests']['cases']
    assert [eval(record['answer'], {'n': n}) for (n,), _ in cases] == [
        value for _, value in cases]
    flat = programs.lines(steps, brackets=False)[-1]
    assert any(eval(flat, {'n': n}) != value for (n,), value in cases)


def test_the_splits_share_no_problem_and_are_functions_of_the_seed():
  make = sources.PROMPTS['mini_code']
  for split in ('train', 'heldout'):
    records = make('', split, 3, 50)
    assert records == make('', split, 3, 50) != make('', split, 4, 50)
    assert all(splits.in_split(r['prompt'], split) for r in records)
    pairs = sources.CONVERSATIONS['mini_code']('', split, 0, 50)
    assert all(splits.in_split(asked['content'], split) for asked, _ in pairs)


@pytest.mark.parametrize('kind, verdict', [
    ('right', 'passed'), ('flat', 'wrong'), ('slip', 'wrong'),
    ('broken', 'crash'), ('bare', 'missing')])
def test_a_response_is_right_or_wrong_as_it_is_meant_to_be(kind, verdict):
  if sandbox.problem():
    pytest.skip('no sandbox')
  runner, rng, found = runner_lib.Runner(runner_lib.Limits()), random.Random(
      0), set()
  for _, (prompt, steps) in zip(range(6), programs.problems(rng)):
    tests = unit_tests.read(programs.record(prompt, steps)['tests'])
    program = code_programs.extract(programs.respond(rng, steps, kind))
    found.add('missing' if program is None else
              judge.judge(program, tests, runner).name)
  runner.close()
  assert found == {verdict}
