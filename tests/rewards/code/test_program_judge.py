"""Verdicts on programs that are right, wrong, late, broken or missing."""

import json
import math
import pathlib
import random
import subprocess
import sys
import time

import pytest

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import sources
from r1jax.rewards.code import inside
from r1jax.rewards.code import judge
from r1jax.rewards.code import programs
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.rewards.code import system_calls
from r1jax.rewards.code import unit_tests

HUMANEVAL = (pathlib.Path(__file__).resolve().parents[4]
             / 'shared/data/humaneval/HumanEval.jsonl.gz')
ADD = 'def f(a, b):\n  return a + b\n'


@pytest.mark.parametrize('verdict, program', [
    ('passed', 'print(sum(map(int, input().split())))'),
    ('passed', 'import sys\na, b = map(int, sys.stdin.read().split())\n'
     'sys.stdout.write(f"{a + b}")'),
    ('passed', 'a, b = open(0).read().split()\nprint(int(a) + int(b), "\\n")'),
    ('passed', 'if __name__ == "__main__":\n  a, b = map(int, input().split())\n'
     '  print(a + b)\n  exit()'),
    ('passed', """
import sys, threading
sys.setrecursionlimit(10 ** 6)
threading.stack_size(1 << 26)
def deep(n): return n and 1 + deep(n - 1)
def main(): print(sum(map(int, input().split())) + deep(5000) - 5000)
thread = threading.Thread(target=main)
thread.start()
thread.join()"""),
    ('passed', """
import threading
def main(): print(sum(map(int, input().split())))
threading.Thread(target=main).start()"""),
    ('passed', """
import atexit
atexit.register(lambda: print(sum(map(int, input().split()))))"""),
    ('passed', """
import io, sys
printed, sys.stdout = sys.stdout, io.StringIO()
printed.write(str(sum(map(int, input().split()))))"""),
    ('passed', """
import sys
print(sum(map(int, input().split())), flush=True)
sys.stdout.close()"""),
    ('timeout', """
import threading
print(sum(map(int, input().split())), flush=True)
threading.Thread(target=threading.Event().wait).start()"""),
    ('wrong', 'print(5)'), ('wrong', 'pass'), ('wrong', 'print(5, 9)'),
    ('wrong', 'print(" ", sum(map(int, input().split())))'),
    ('wrong', 'print(float(sum(map(int, input().split()))))'),
    ('crash', 'print(sum(map(int, input().split())))\nexit(1)'),
    ('crash', 'print(sum(map(int, input().split())))\n1 / 0'),
    ('crash', 'print(5'), ('crash', '\0'), ('crash', 'print("\ud800")'),
    ('timeout', 'import time\ntime.sleep(60)'),
])
def test_a_script_is_judged_by_what_it_prints(verdict, program, judged):
  assert judged.script(program).name == verdict


@pytest.mark.parametrize('printed, wanted, same', [
    ('1 2\n3\n', '1 2\n3', True), ('1 2 \r\n3\n\n', '1 2\n3\n', True),
    ('', '\n', True), ('1\n\n2', '1\n2', False), (' 1', '1', False),
    ('1  2', '1 2', False), ('1', '1.0', False), ('1\n2', '1', False),
    ('1', '1\n2', False), ('YES', 'Yes', False)])
def test_outputs_are_equal_but_for_space_at_ends_of_lines(printed, wanted, same):
  assert (judge.printed(printed) == judge.printed(wanted)) == same


@pytest.mark.parametrize('form', ['calls', 'tests'])
@pytest.mark.parametrize('verdict, program', [
    ('passed', ADD), ('passed', 'print("f")\nf = lambda a, b: a + b'),
    ('passed', 'import math, collections, typing\n' + ADD),
    ('wrong', 'def f(a, b): return 5'), ('wrong', 'def f(a, b): pass'),
    ('wrong', 'def f(a, b): return str(a + b)'),
    ('crash', 'def f(a): return a'), ('crash', 'def g(a, b): return a + b'),
    ('crash', 'def f(a, b): return a / 0'), ('crash', 'import numpy'),
    ('crash', 'def f(a, b)'), ('value', 'def f(a, b): return object()'),
    ('memory', 'x = [0] * 10 ** 10'), ('timeout', 'while True: pass'),
])
def test_a_function_is_judged_by_what_it_returns(form, verdict, program, judged):
  assert getattr(judged, form)(program).name == verdict


def test_a_method_of_class_solution_is_called(judged):
  program = 'class Solution:\n  def f(self, a, b): return (a, [b])'
  assert judged.calls(program, ([1, 'x'], [1, ['x']])).name == judge.PASSED
  assert judged.calls(program, ([1, 'x'], [1, ['y']])).name == judge.WRONG


def test_the_last_line_of_an_exception_is_told(judged):
  for verdict in (judged.calls('def f(a, b): return a / 0'),
                  judged.tests('def f(a, b): return a / 0'),
                  judged.script('1 / 0')):
    assert verdict == ('crash', 'ZeroDivisionError: division by zero')


def test_tests_may_expect_an_exception(judged):
  source = ('try:\n  f(0, 0)\n  assert False\nexcept ValueError as error:\n'
            '  assert str(error) == "ValueError: zero"')
  assert judged.tests(
      'def f(a, b): raise ValueError("zero")', source).name == judge.PASSED
  assert judged.tests(
      'def f(a, b): raise KeyError("zero")', source).name == judge.CRASH
  assert judged.tests('def f(a, b): pass', source).name == judge.WRONG


def test_only_the_first_tests_are_run(make_judge):
  first = make_judge(tests=1)
  assert first.script('print(5)').name == judge.PASSED
  assert first.calls('def f(a, b): return 5').name == judge.PASSED


def test_a_problems_own_limits_come_first(judged):
  tests = dict(kind='script', cases=[('', '1')], seconds=0.5)
  assert judged('import time; time.sleep(1); print(1)', tests).name == judge.TIME
  tests = dict(kind='script', cases=[('', '1')], memory_mib=600)
  large = 'x = bytes(400 << 20); print(1)'
  assert judged(large, tests).name == judge.PASSED
  assert judged.script(large).name == judge.MEMORY


def test_all_tests_together_have_a_limit(make_judge):
  program = 'import time\ndef f(a, b):\n  time.sleep(0.4)\n  return a + b'
  cases = [([n, 1], n + 1) for n in range(9)]
  assert make_judge(total_seconds=1.0).calls(
      program, *cases).name == judge.TIME
  assert make_judge(total_seconds=1.0).calls(
      program, *cases[:1]).name == judge.PASSED


@pytest.mark.parametrize('tests', [
    {}, {'kind': 'other'}, {'kind': 'script'}, {'kind': 'script', 'cases': []},
    {'kind': 'calls', 'cases': [([1], 1)]}, {'kind': 'tests', 'source': ' '},
    {'kind': 'tests', 'source': 'assert f('},
    {'kind': 'tests', 'source': 'f()', 'setup': 'x = ('},
    {'kind': 'tests', 'source': 'f()', 'tests': 1}, {'kind': ['calls']},
    {'kind': 'tests', 'source': 1}, {'kind': 'tests', 'source': 'f()', 'names': 'f'},
    {'kind': 'script', 'cases': 1}, {'kind': 'script', 'cases': ['ab']},
    {'kind': 'script', 'cases': [['1']]}, {'kind': 'script', 'cases': [['1', 2]]},
    {'kind': 'calls', 'name': 'f', 'cases': [[1, 2]]},
    {'kind': 'calls', 'name': 1, 'cases': [[[1], 2]]},
    {'kind': 'calls', 'name': 'f', 'cases': [[[1], 2]], 'seconds': 0},
    {'kind': 'calls', 'name': 'f', 'cases': [[[1], 2]], 'seconds': float('nan')},
    {'kind': 'calls', 'name': 'f', 'cases': [[[1], 2]], 'memory_mib': '1'}])
def test_tests_that_cannot_run_are_the_suites_fault(tests):
  with pytest.raises(unit_tests.SuiteError):
    unit_tests.read(tests)


def _plain(rng, depth=3):
  """A random plain value."""
  kinds = [lambda: rng.choice([None, True, False, '', 'é\ud800\n', b'\xff']),
           lambda: rng.choice([-1, 1]) * rng.getrandbits(rng.choice([3, 200])),
           lambda: rng.choice([0.1, -0.0, math.inf, 1e300, 1j, range(2, 9, 3)])]
  if depth:
    items = lambda: [_plain(rng, depth - 1) for _ in range(rng.randrange(4))]
    hashable = lambda: [rng.randrange(9), (1, 'x'), frozenset([2])]
    kinds += [items, lambda: tuple(items()), lambda: set(hashable()),
              lambda: frozenset(hashable()),
              lambda: dict(zip(hashable(), items()))]
  return rng.choice(kinds)()


def test_plain_values_arrive_as_they_were():
  rng = random.Random(0)
  for _ in range(500):
    value = _plain(rng)
    sent = json.loads(json.dumps(inside.encode(value)))
    assert inside.decode(sent) == value
    if 'set' not in repr(value):  # whose order may change
      assert repr(inside.decode(sent)) == repr(value)
  assert list(inside.decode(inside.encode(iter('ab')))) == ['a', 'b']
  assert math.isnan(inside.decode(inside.encode(math.nan)))


@pytest.mark.parametrize('value', [
    {}, {'other': []}, {'set': [[]]}, {'int': 'x'}, {'int': 1}, {'bytes': 'x'},
    {'complex': ['x', 1]}, {'dict': [1]}, {'dict': [[[], 1]]}, {'set': []} | {'a': 1}])
def test_what_is_no_value_is_refused(value):
  with pytest.raises(inside.Unreadable):
    inside.decode(value)


@pytest.mark.parametrize('text, program', [
    ('```python\na\n```', 'a\n'), ('x\n```\na\n```\ny', 'a\n'),
    ('```py\na\n```\n```python\nb\n```', 'b\n'),
    ('```python\na\n```\n```text\nb\n```', 'a\n'),
    ('~~~python\n```\n~~~', '```\n'), ('````\n```\na\n```\n````', '```\na\n```\n'),
    ('```python\r\na\r\n```', 'a\n'),
    ('<think>```python\nb\n```</think>\n```python\na\n```', 'a\n'),
    ('<think> x </think> <answer>\n```python\na\n```\n</answer>', 'a\n'),
    ('<think>```python\nb\n```</think> a', None),
    ('<think>```python\nb\n```', None), ('```python\na', None),
    ('```python\na\n```\n```python\nb', None), ('a', None), ('', None),
    ('```python\n```', None), ('```python\n  \n```', None),
    ('```java\na\n```', None), ('a ```b``` c', None),
    ('```python\na\n```\nIt prints\n```\n5\n```', 'a\n'),
    ('```\n5\n```\n```python\na\n```', 'a\n'),
    ('```\na\n```\n```\nb\n```', 'b\n'),
    ('```python\n```\n```\n5\n```', None)])
def test_the_program_is_the_last_block_outside_the_thinking(text, program):
  assert programs.extract(text) == program
  assert programs.extract(text, finished=False) is None


def test_the_filter_is_known_for_both_machines():
  for machine in ('x86_64', 'aarch64'):
    code = system_calls.denying_filter(machine)
    assert len(code) % 8 == 0 and 40 < len(code) // 8 < 256
  assert system_calls.denying_filter('other') is None


@pytest.fixture(name='fake')
def _fake(tmp_path, monkeypatch):
  """Puts a program `bwrap` first in the path."""
  def make(text):
    path = tmp_path / 'bwrap'
    path.write_text(text)
    path.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  return make


def test_without_a_sandbox_programs_are_refused(fake):
  with pytest.raises(errors.ConfigError, match='not installed') as problem:
    sandbox.check(unsafe=False)
  assert problem.value.field == 'rewards.code.unsafe_subprocess'
  fake('#!/bin/sh\necho "bwrap: No permissions to create a namespace" >&2\n'
       'exit 1\n')
  with pytest.raises(errors.ConfigError, match='No permissions') as problem:
    sandbox.check(unsafe=False)
  assert '\n' not in str(problem.value)
  sandbox.check(unsafe=True)


def test_where_namespaces_are_not_permitted_no_program_runs(fake):
  fake('#!/bin/sh\nexit 1\n')
  runner = runner_lib.Runner(runner_lib.Limits())
  with pytest.raises(OSError, match='no process in a sandbox'):
    judge.judge(ADD, unit_tests.read(dict(
        kind='calls', name='f', cases=[([1, 2], 3)])), runner)
  runner.close()


def test_without_a_sandbox_limits_still_hold():
  runner = runner_lib.Runner(runner_lib.Limits(
      seconds=2.0, memory_mib=256, unsafe_subprocess=True))
  run = lambda program: judge.judge(program, unit_tests.read(dict(
      kind='calls', name='f', cases=[([2, 3], 5)])), runner).name
  assert run(ADD) == judge.PASSED
  assert run('while True: pass') == judge.TIME
  assert run('x = [0] * 10 ** 10') == judge.MEMORY
  assert run('import os\nos.fork()') == judge.CRASH
  process = runner.start(256, kind='script', source='while True: pass',
                         prelude='', modules=[])
  process.send({'stdin': ''}, time.monotonic() + 9)
  with pytest.raises(runner_lib.Late):
    process.receive(time.monotonic() + 0.5, 99)
  children = pathlib.Path(
      f'/proc/{process._process.pid}/task/{process._process.pid}/children')
  left = list(map(int, children.read_text().split()))
  assert len(left) == 1 and _lives(left[0])
  process.close()
  time.sleep(0.2)
  assert not _lives(left[0])
  runner.close()


RECORD = dict(prompt='Add.', answer='', task='add', verifier='code', tests=dict(
    kind='calls', name='f', cases=[([2, 3], 5)]))
BROKEN = RECORD | dict(task='broken', tests=dict(kind='tests', source='pass'))
SUM = dict(prompt='2 + 3', answer='5', task='sum', verifier='math')


def test_programs_are_scored_beside_other_answers(judged, caplog):
  del judged
  block = lambda program: f'<think> x </think>\n```python\n{program}\n```'
  texts = [block(ADD), block(ADD), block('def f(a, b): return 5 / 0'), 'none',
           block('def f(a, b): return 4'), block('def f(a, b): return 5'),
           '<answer> 5 </answer>']
  records = [RECORD] * 5 + [BROKEN, SUM]
  with rewards_lib.Scorer(
      {'accuracy': 1.}, max_tokens=9, workers=2, timeout_seconds=30.,
      answer='tags', code=runner_lib.Limits(seconds=3.)) as scorer:
    scores = scorer.score(
        records, [rewards_lib.Response(text, 5, True) for text in texts])
  assert scores.total.tolist() == [1, 1, 0, 0, 0, 0, 1]
  assert scores.counters == dict(
      errors=1, timeouts=0, refused=0, restarts=0, code_wrong=1, code_crash=1,
      code_missing=1, code_timeout=0, code_memory=0, code_output=0,
      code_value=0)
  assert [row.get('verdict') for row in scores.columns] == [
      'passed', 'passed', 'crash', 'missing', 'wrong', None, None]
  assert scores.row(2)['verdict_detail'] == (
      'ZeroDivisionError: division by zero')
  assert 'broken: suite: the tests cannot run' in caplog.text


def test_programs_do_not_outlive_their_judge(judged):
  del judged
  program = """
import os, time
from r1jax.rewards.code import runner as runner_lib
runner = runner_lib.Runner(runner_lib.Limits())
running = runner.start(
    512, kind='calls', source='while True: pass', prelude='')
print(*(each._process.pid for each in (running, *runner._ready)), flush=True)
os.kill(os.getpid(), 9)"""
  done = subprocess.run([sys.executable, '-c', program], capture_output=True,
                        text=True, check=False, timeout=60)
  left = list(map(int, done.stdout.split()))
  assert len(left) == 3
  deadline = time.monotonic() + 10
  while (left := list(filter(_lives, left))) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not left


def _lives(pid):
  """Whether a process is there, and not only its entry."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return stat.rpartition(')')[2].split()[0] not in 'ZX'


def _humaneval():
  if not HUMANEVAL.is_file():
    pytest.skip(f'{HUMANEVAL} is not there')
  return sources.PROMPTS['humaneval'](str(HUMANEVAL), 'train', 0, None)


def _passed(judged, records):
  return [judged(record['answer'], record['tests']).name for record in records]


def test_canonical_solutions_pass(judged):
  records = _humaneval()
  assert len(records) == 164
  # Those whose tests call helpers of the prompt, or themselves, among them.
  chosen = records[::16] + [records[n] for n in (32, 33, 38, 50)]
  assert set(_passed(judged, chosen)) == {judge.PASSED}


@pytest.mark.slow
def test_all_canonical_solutions_pass(make_judge):
  judged = make_judge(seconds=10., memory_mib=512)
  assert _passed(judged, _humaneval()) == [judge.PASSED] * 164


def test_a_program_that_returns_nothing_fails_humaneval(judged):
  for record in _humaneval()[::40]:
    name, = record['tests']['names']
    assert judged(f'def {name}(*args): return None',
                  record['tests']).name == judge.WRONG
