"""What programs and their tests find as in a Python without a judge."""

import pathlib
import py_compile

import pytest

from r1jax.rewards.code import inside
from r1jax.rewards.code import judge
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.rewards.code import unit_tests


def test_a_program_does_not_end_the_loops_of_its_tests(judged):
  for source in ('assert all(map(f, [1, 2], [3, 4]))',
                 'assert all(n == 9 for n in map(f, [1], [1]))',
                 'assert list(iter(lambda: f(1, 2), 9)) == []'):
    for kind in ('StopIteration', 'StopAsyncIteration', 'GeneratorExit'):
      verdict = judged.tests(f'def f(a, b): raise {kind}', source)
      assert (verdict.name, verdict.detail.split(':')[0]) == (
          judge.CRASH, kind)


def test_an_argument_that_is_changed_in_place_is_changed_for_the_tests(judged):
  sort = 'def f(a, b=0): a.sort()'
  for source in ('a = [2, 1]\nf(a)\nassert a == [1, 2]',
                 'a = [2, 1]\nf(b=3, a=a)\nassert a == [1, 2]',
                 'a = [[3], [2]]\nkept = a[0]\nf([1], a)\n'
                 'assert a[0] is kept'):
    assert judged.tests(sort, source) == (judge.PASSED, ''), source
  assert judged.tests('def f(a, b=0): return sorted(a)',
                      'a = [2, 1]\nf(a)\nassert a == [1, 2]'
                      ).name == judge.WRONG
  grow = 'def f(a, b):\n  a[3] = [4]\n  b.add(5)\n  return len(a)'
  source = ('a, b = {}, {1}\nassert f(a, b) == 1\n'
            'assert (a, b) == ({3: [4]}, {1, 5})')
  assert judged.tests(grow, source).name == judge.PASSED
  # The same list twice: the copy that is left as it was does not undo it.
  assert judged.tests(sort, 'a = [2, 1]\nf(a, a)\nassert a == [1, 2]'
                      ).name == judge.PASSED
  assert judged.tests('def f(a): a[0] = print', 'f([1])').name == judge.VALUE


def test_what_is_before_a_program_is_a_text_of_its_own(judged):
  program = ('from __future__ import annotations\n'
             'def f(a: Nowhere, b): return add(a, b)')
  forms = dict(calls=dict(name='f', cases=[([2, 3], 5)]),
               tests=dict(names=('f',), source='assert f(2, 3) == 5'),
               script=dict(cases=[('', '5')]))
  for kind, tests in forms.items():
    tests |= dict(kind=kind, prelude='from operator import *\n\n\n')
    more = '\nprint(f(2, 3))' if kind == 'script' else ''
    assert judged(program + more, tests) == (judge.PASSED, '')
    assert 'line 2' in judged('x = 1\ndef f(a, b', tests).detail


def test_a_program_out_of_processor_time_is_out_of_time(make_judge):
  # More threads than a second of the clock has: the kernel ends it.
  burn = ("""
import hashlib, threading
def burn():
  while True: hashlib.sha256(bytes(1 << 20))
for _ in range(4): threading.Thread(target=burn).start()
burn()""")
  hasty = make_judge(seconds=9., total_seconds=0.9)
  hasty.runner.limits = hasty.runner.limits._replace(total_seconds=0.9)
  soft = hasty.printed('import resource\n'
                       'print(*resource.getrlimit(resource.RLIMIT_CPU))')
  assert soft == r"printed '1 2\n'"
  for form in (hasty.script, hasty.calls):
    assert form(burn).name == judge.TIME
    assert form('import os\nos.kill(os.getpid(), 24)').name == judge.TIME


def test_cases_that_cannot_be_sent_are_the_suites_fault(judged):
  deep = []
  for _ in range(100_000):
    deep = [deep]
  for case in (([object()], 5), ([2], object()), ([deep], 5)):
    with pytest.raises(unit_tests.SuiteError, match='case 1'):
      judged.calls('def f(*args): return 5', ([2, 3], 5), case)
  assert judged.calls('def f(a, b): return a, [b]',
                      ([2, 3], (2, [3]))).name == judge.PASSED


def test_what_runs_in_the_sandbox_is_the_source_as_it_is(tmp_path, monkeypatch):
  old = tmp_path / 'old.pyc'
  (tmp_path / 'old.py').write_text('raise SystemExit')
  py_compile.compile(str(tmp_path / 'old.py'), cfile=str(old))
  monkeypatch.setattr(inside, '__cached__', str(old))
  changed = tmp_path / 'inside.py'
  changed.write_text(pathlib.Path(inside.__file__).read_text().replace(
      "{'ready': True}", "{'ready': 'changed'}"))
  monkeypatch.setattr(inside, '__file__', str(changed))
  sandbox._inside.cache_clear()
  runner = runner_lib.Runner(runner_lib.Limits(unsafe_subprocess=True))
  started = []
  receive = runner_lib.Process.receive
  monkeypatch.setattr(
      runner_lib.Process, 'receive',
      lambda *args: started.append(receive(*args)) or started[-1])
  try:
    runner.start(256, kind='calls', source='', prelude='').close()
  finally:
    runner.close()
    sandbox._inside.cache_clear()
  assert started == [{'ready': 'changed'}]
