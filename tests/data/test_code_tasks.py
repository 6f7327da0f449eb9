"""Files of HumanEval, MBPP, LiveCodeBench and Codeforces as they are published.

The rows are ours, in their form.
"""

import base64
import json
import os
import pickle
import zlib

import pytest

from r1jax import errors
from r1jax.data import code_tasks
from r1jax.data import overlap
from r1jax.rewards.code import judge
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.rewards.code import unit_tests

HUMANEVAL = dict(
    task_id='HumanEval/0', entry_point='twice',
    prompt='from typing import List\n\ndef one(): return 1\n\n'
    'def twice(x: List[int]) -> List[int]:\n    """Twice."""\n',
    canonical_solution='    return x + x\n',
    test='def check(candidate):\n'
    '    assert candidate([one()]) == [1, 1] == twice([1])\n')
MBPP = dict(
    task_id=601, text='Write a function to double.',
    code='def double(x):\r\n  return 2 * x', test_setup_code='seven = 7',
    test_list=['assert double(2) == 4', 'assert math.isclose(double(seven), 14)'],
    challenge_test_list=[])
STDIN = dict(
    question_content='Add.', question_id='abc_1', starter_code='',
    public_test_cases=json.dumps(
        [dict(input='1 2\n', output='3\n', testtype='stdin')]),
    metadata='{}')
FUNCTIONAL = dict(
    question_content='Add.', question_id='2', metadata='{"func_name": "add"}',
    starter_code='class Solution:\n    def add(self, x: List[int]) -> int:\n',
    public_test_cases=json.dumps(
        [dict(input='[1, 2]', output='3', testtype='functional')]))
CODEFORCES = dict(
    id='1/A', description='Add.', input_format='Two numbers.', note=None,
    output_format='Their sum.', examples=[dict(input='1 2\n', output='3\n')],
    official_tests=[dict(input='4 5\n', output='9\n')], time_limit=2.0,
    memory_limit=256.0, input_mode='stdio', generated_checker=None)


def _packed(cases, of=json.dumps):
  return base64.b64encode(zlib.compress(pickle.dumps(of(cases)))).decode()


PRIVATE = dict(
    stdin=_packed([dict(input='4 5\n', output='9\n', testtype='stdin')]),
    functional=_packed(
        [dict(input='[4, 5]\n', output='9', testtype='functional')]))

RIGHT = [  # (source, row, right program, wrong program)
    ('humaneval', HUMANEVAL, 'def twice(x): return x * 2',
     'def one(): return 0\ndef twice(x): return [0, 0]'),
    ('mbpp', MBPP, MBPP['code'], 'def double(x): return 4'),
    ('livecodebench', STDIN | dict(private_test_cases=PRIVATE['stdin']),
     'print(sum(map(int, input().split())))', 'print(3)'),
    ('livecodebench', FUNCTIONAL | dict(
        private_test_cases=PRIVATE['functional']),
     FUNCTIONAL['starter_code'] + '        return sum(x)',
     FUNCTIONAL['starter_code'] + '        return 3'),
    ('codeforces', CODEFORCES, 'print(sum(map(int, input().split())))',
     'print(3)'),
    ('code', dict(prompt='Add.', tests=dict(
        kind='script', cases=[['1 2', '3'], ['4 5', '9']])),
     'print(sum(map(int, input().split())))', 'print(3)')]
IDS = ('humaneval', 'mbpp', 'stdin', 'functional', 'codeforces', 'own')


@pytest.fixture(name='read')
def _read(tmp_path):
  def read(source, *rows):
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return code_tasks.PROMPTS[source](str(path), 'train', 0, None)
  return read


@pytest.mark.parametrize('source, row, right, wrong', RIGHT, ids=IDS)
def test_rows_become_tests_that_tell_right_from_wrong(
    source, row, right, wrong, read):
  record, = read(source, row)
  assert record['verifier'] == 'code' and record['prompt']
  if sandbox.problem():
    pytest.skip('no sandbox')
  runner = runner_lib.Runner(runner_lib.Limits())
  tests = unit_tests.read(pickle.loads(pickle.dumps(record))['tests'])
  assert judge.judge(right, tests, runner) == (judge.PASSED, '')
  assert judge.judge(wrong, tests, runner).name == judge.WRONG
  runner.close()


def test_a_prompt_asks_for_a_block_and_shows_what_is_given(read):
  asked = [read(source, row)[0]['prompt'] for source, row, _, _ in RIGHT[:5]]
  assert all('```python' in text for text in asked)
  assert HUMANEVAL['prompt'] in asked[0] and MBPP['test_list'][0] in asked[1]
  assert FUNCTIONAL['starter_code'] in asked[3]
  assert 'Two numbers.' in asked[4] and 'Example input\n1 2' in asked[4]
  assert '9' not in asked[2] + asked[3] + asked[4]  # of the private tests


def test_a_problems_limits_are_its_own(read):
  tests = read('codeforces', CODEFORCES)[0]['tests']
  assert (tests['seconds'], tests['memory_mib']) == (2.0, 256 + 64)


def test_problems_that_need_more_than_exact_outputs_are_left_out(read):
  rows = [CODEFORCES | more for more in (
      dict(generated_checker='def check'), dict(input_mode='file'),
      dict(interaction_format='Ask.'), dict(examples=[], official_tests=[]),
      {})]
  assert len(read('codeforces', *rows)) == 1


def test_programs_of_livecodebench_find_what_it_imports(read):
  record = read('livecodebench', STDIN)[0]
  functional, = read('livecodebench', FUNCTIONAL)
  assert record['tests']['prelude'] == functional['tests']['prelude']
  if sandbox.problem():
    pytest.skip('no sandbox')
  runner = runner_lib.Runner(runner_lib.Limits())
  used = ('assert pow(2, 9, 100) == 12 and sys.getrecursionlimit() == 50000\n'
          'assert datetime.date and heapq.merge and defaultdict and List[int]\n'
          'def deep(n): return n and 1 + deep(n - 1)\n'
          'assert deep(9000) == 9000 and open is not None\n')
  program = used + 'print(sum(map(int, input().split())))'
  assert judge.judge(program, unit_tests.read(record['tests']), runner) == (
      judge.PASSED, '')
  program = used + FUNCTIONAL['starter_code'] + '        return sum(x)'
  assert judge.judge(program, unit_tests.read(functional['tests']), runner) == (
      judge.PASSED, '')
  runner.close()


@pytest.mark.parametrize('source, row, column, text', [
    ('humaneval', HUMANEVAL, 'canonical_solution', '    {}\n'),
    ('mbpp', MBPP, 'code', 'def double(x):\n  {}'),
    ('code', dict(prompt='Add.', tests=RIGHT[-1][1]['tests']), 'code', '{}')])
def test_a_solution_within_a_training_set_is_found(
    source, row, column, text, read):
  solution = 'total = 0; for each in x: total += 2 * each; return total, x, 3'
  problems = list(map(overlap.problem, read(
      source, row, row | {column: text.format(solution)})))
  rows = [('row', [solution]), ('other', ['one two three ' * 9])]
  match, = overlap.overlaps({source: problems}, rows, 10)[source].matches
  assert (match.problem, match.shared, match.exact) == (1, 0, False)
  assert match.solution > 0 and match.place == 'row'


def test_the_question_is_no_part_of_a_solution(read):
  problem = overlap.problem(read('humaneval', HUMANEVAL)[0])
  assert problem == (HUMANEVAL['prompt'], HUMANEVAL['canonical_solution'])


class _Call:
  """Pickled, a call of os.system."""

  def __reduce__(self):
    return os.system, ('true',)


_JSON = lambda cases: json.dumps(cases)
BROKEN = [
    ('humaneval', HUMANEVAL | dict(test='def check(candidate'), 'source'),
    ('humaneval', HUMANEVAL | dict(entry_point=''), 'entry_point'),
    ('humaneval', {'prompt': 'x'}, 'entry_point'),
    ('mbpp', MBPP | dict(test_list=[]), 'test_list'),
    ('mbpp', MBPP | dict(test_list='assert True'), 'test_list'),
    ('mbpp', MBPP | dict(test_list=['assert (']), 'source'),
    ('livecodebench', STDIN | dict(public_test_cases='[{'), 'public_test_cases'),
    ('livecodebench', STDIN | dict(public_test_cases='[]'), 'public_test_cases'),
    ('livecodebench', STDIN | dict(public_test_cases=_JSON(
        [dict(input=1, output='1', testtype='stdin')])), 'public_test_cases'),
    ('livecodebench', STDIN | dict(public_test_cases=_JSON(
        [dict(input='1', output='1')])), 'public_test_cases'),
    ('livecodebench', STDIN | dict(private_test_cases='!'),
     'private_test_cases'),
    ('livecodebench', STDIN | dict(private_test_cases=PRIVATE['stdin'][:40]),
     'private_test_cases'),
    ('livecodebench', STDIN | dict(private_test_cases=PRIVATE['functional']),
     'testtype'),
    ('livecodebench', STDIN | dict(
        private_test_cases=_packed([], lambda cases: _Call())), 'names'),
    ('livecodebench', STDIN | dict(
        private_test_cases=_packed([], lambda cases: cases)), 'holds a list'),
    ('livecodebench', FUNCTIONAL | dict(metadata='{}'), 'func_name'),
    ('livecodebench', FUNCTIONAL | dict(metadata='x'), 'func_name'),
    ('livecodebench', FUNCTIONAL | dict(public_test_cases=_JSON(
        [dict(input='[1', output='1', testtype='functional')])),
     "arguments and values as JSON in 'public_test_cases'"),
    ('livecodebench', FUNCTIONAL | dict(private_test_cases=_JSON(
        [dict(input='[1', output='1', testtype='functional')])),
     "arguments and values as JSON in 'private_test_cases'"),
    ('codeforces', CODEFORCES | dict(time_limit=0), 'time_limit'),
    ('codeforces', CODEFORCES | dict(examples=[dict(input='1')]), 'output'),
    ('codeforces', CODEFORCES | dict(examples=['1']), 'examples'),
    ('code', dict(prompt='x', tests=[]), 'tests'),
    ('code', dict(prompt='x', tests=dict(kind='other')), 'kind'),
]


@pytest.mark.parametrize('number', range(len(BROKEN)))
def test_a_row_that_cannot_be_read_is_refused_with_its_place(number, read):
  source, row, word = BROKEN[number]
  good = next(each[1] for each in RIGHT if each[0] == source)
  with pytest.raises(errors.ConfigError, match=r'rows\.jsonl:2') as problem:
    read(source, good, row)
  assert word in str(problem.value), problem.value
  assert '\n' not in str(problem.value)


def test_a_bomb_of_tests_is_refused(read, monkeypatch):
  monkeypatch.setattr(code_tasks, '_LARGEST', 100)
  row = STDIN | dict(private_test_cases=_packed(['x' * 1000]))
  with pytest.raises(errors.ConfigError, match='more than 100 bytes'):
    read('livecodebench', row)
