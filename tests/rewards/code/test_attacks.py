"""Programs that attack the judge, the sandbox or the machine: none passes.

Each attack is on a problem that a right program passes (test_judge.py), and
each verdict says what became of it.
"""

import errno
import os
import pathlib
import socket
import time

import pytest

from r1jax.rewards.code import judge
from r1jax.rewards.code import unit_tests

ADD = 'def f(a, b):\n  return a + b\n'

SCRIPTS = {  # {attack: (verdict, program)}
    'fork_bomb': ('crash', 'import os\nwhile True: os.fork()'),
    'caught_fork_bomb': ('timeout', """
import os
while True:
  try: os.fork()
  except OSError: pass"""),
    'thread_bomb': ('!', """
import threading, time
threading.stack_size(1 << 15)
while True: threading.Thread(target=time.sleep, args=(99,)).start()"""),
    'memory_bomb': ('memory', 'x = [0]\nwhile True: x += x'),
    'mapped_memory': ('crash', """
import mmap
kept = [mmap.mmap(-1, 1 << 27) for _ in range(64)]"""),
    'shared_memory': ('crash', """
import os
for n in range(64): os.write(os.memfd_create('m'), bytes(1 << 24))"""),
    'endless_loop': ('timeout', 'while True: pass'),
    'sleep': ('timeout', 'import time; time.sleep(99)'),
    'deaf_to_signals': ('timeout', """
import signal
for number in range(1, 65):
  try: signal.signal(number, signal.SIG_IGN)
  except (OSError, ValueError): pass
while True: pass"""),
    'stopped': ('timeout', 'import os, signal; os.kill(0, signal.SIGSTOP)'),
    'endless_output': ('output', 'while True: print("y" * 1000)'),
    'caught_endless_output': ('!', """
import os
while True:
  try: os.write(1, b'y' * 4096)
  except OSError: pass"""),
    'endless_errors': ('crash', """
import sys
while True: sys.stderr.write('y' * 1000)"""),
    'large_file': ('crash', """
with open('file', 'wb') as file:
  while True: file.write(bytes(1 << 16))"""),
    'file_over_the_limit': ('crash', """
with open('file', 'wb', buffering=0) as file:
  for _ in range(20): assert file.write(bytes(1 << 13)) == 1 << 13
print(sum(map(int, input().split())))"""),
    'many_files': ('!', """
for n in range(9999):
  with open(f'file{n}', 'wb') as file: file.write(bytes(60000))"""),
    'kills_its_parent': ('crash', 'import os; os.kill(os.getppid(), 9)'),
    'kills_all': ('crash', 'import os; os.kill(-1, 9)'),
    'exit_0': ('wrong', 'import os; os._exit(0)'),
    'forged_reply': ('wrong', """
import json, os
for file in range(3, 64):
  try: os.write(file, b'{"status": 0, "output": "5", "error": ""}\\n')
  except OSError: pass
print(json.dumps({'status': 0, 'output': '5', 'error': ''}))
print('passed')"""),
    'pairs_of_outputs': ('wrong', 'print("5 9")'),
    'all_outputs': ('wrong', 'for n in range(100): print(n)'),
    'other_input': ('wrong', """
import os
try: print(open('seen').read())
except OSError: print(5)
open('seen', 'w').write('5')"""),
    'segmentation_fault': ('crash', 'import ctypes; ctypes.string_at(0)'),
    'compiler_bomb': ('!', 'x = ' + '-' * 90_000 + '1'),
    'fills_the_stack': ('!', """
import sys
sys.setrecursionlimit(10 ** 9)
def deep(): return deep()
deep()"""),
    'starts_a_program': (
        'crash', 'import os, sys; os.execv(sys.executable, ["python"])'),
    'spawns_a_program': (
        'crash', 'import subprocess, sys; subprocess.run([sys.executable])'),
}


def _is_expected(verdict, wanted):
  """Whether it is the wanted verdict; '!' is any but passed."""
  return verdict.name == wanted or (
      wanted == '!' and verdict.name != judge.PASSED)


@pytest.mark.parametrize('attack', SCRIPTS)
def test_a_script_that_attacks_does_not_pass(attack, judged):
  wanted, program = SCRIPTS[attack]
  begun = time.monotonic()
  verdict = judged.script(program)
  assert _is_expected(verdict, wanted), verdict
  assert time.monotonic() - begun < 10
  assert judged.script(
      'print(sum(map(int, input().split())))').name == judge.PASSED


CALLS = {
    'exit_before_the_tests': ('crash', 'import sys; sys.exit(0)'),
    'end_before_the_tests': ('crash', 'import os; os._exit(0)'),
    'exit_in_a_call': ('crash', 'def f(a, b): raise SystemExit(0)'),
    'end_in_a_call': ('crash', 'import os\ndef f(a, b): os._exit(0)'),
    'exit_handler': ('crash', """
import atexit
atexit.register(lambda: print('passed'))
def f(a, b): raise KeyboardInterrupt"""),
    'equals_everything': ('value', """
class Any:
  def __eq__(self, other): return True
def f(a, b): return Any()"""),
    'number_that_equals_everything': ('wrong', """
class Any(int):
  def __eq__(self, other): return True
  __hash__ = int.__hash__
def f(a, b): return Any(0)"""),
    'list_that_equals_everything': ('wrong', """
class Any(list):
  def __eq__(self, other): return True
def f(a, b): return Any()"""),
    'not_a_number': ('wrong', 'def f(a, b): return float("nan")'),
    'patched_builtins': ('!', """
import builtins
builtins.AssertionError = type('Never', (Exception,), {})
builtins.isinstance = lambda *args: True
builtins.all = builtins.any = lambda items: True
def f(a, b): return 0"""),
    'patched_protocol': ('!', """
import sys
inside = sys.modules['__main__']
inside.encode = lambda value: {'bytes': 'ff'}
inside.json.dumps = lambda message: '{"passed": true, "value": 0}'
def f(a, b): return 0"""),
    'forged_marks': ('!', """
import os
for file in range(64):
  for mark in (b'{"passed": true}', b'{"loaded": true}', b'{"value": 5}'):
    try: os.write(file, mark + b'\\n')
    except OSError: pass
def f(a, b): return 5"""),
    'flood_of_replies': ('output', """
import os
while True:
  for file in range(3, 8):
    try: os.write(file, b'{' * 4096)
    except OSError: pass"""),
    'long_value': ('output', 'def f(a, b): return "x" * 900_000'),
    'endless_value': ('!', 'def f(a, b): return iter(int, 1)'),
    'deep_value': ('crash', """
def f(a, b):
  value = []
  for _ in range(100_000): value = [value]
  return value"""),
    'deep_reply': ('crash', """
import os
for file in range(3, 8):
  try: os.write(file, b'[' * 60_000 + b'\\n')
  except OSError: pass
while True: pass"""),
    'long_number': ('wrong', 'def f(a, b): return 1 << 100_000'),
    'reply_of_long_number': ('crash', """
import os
for file in range(3, 8):
  try: os.write(file, b'{"loaded": true}\\n{"value": ' + b'9' * 9000 + b'}\\n')
  except OSError: pass
def f(a, b): return 0"""),
    'closed_channel': ('crash', """
import os, time
os.closerange(0, 64)
time.sleep(1)
os._exit(0)"""),
    'looks_through_frames': ('wrong', """
import sys
def f(a, b):
  frame, seen = sys._getframe(), []
  while frame:
    seen += [frame.f_locals, frame.f_globals]
    frame = frame.f_back
  return 5 if 'assert' in str(seen) or 'wanted' in str(seen) else 0"""),
    'looks_through_memory': ('wrong', """
import gc
def f(a, b):
  for found in gc.get_objects():
    if isinstance(found, (tuple, list)) and [a, b] in list(found):
      others = [item for item in found if item == 5 or item == 9]
      if others: return others[0]
  return 0"""),
    'memory_bomb_in_a_call': ('memory', 'def f(a, b): return [0] * 10 ** 10'),
    'endless_call': ('timeout', 'def f(a, b):\n  while True: pass'),
    'kills_its_parent_in_a_call': ('!', """
import os
def f(a, b): os.kill(os.getppid(), 9)"""),
    'raises_what_tests_expect': ('crash', """
def f(a, b): raise AssertionError('passed')"""),
}


@pytest.mark.parametrize('form', ['calls', 'tests'])
@pytest.mark.parametrize('attack', CALLS)
def test_a_function_that_attacks_does_not_pass(attack, form, judged):
  wanted, program = CALLS[attack]
  verdict = getattr(judged, form)(program)
  assert _is_expected(verdict, wanted), verdict
  assert getattr(judged, form)(ADD).name == judge.PASSED


def test_host_files_are_not_there(judged, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('5')
  for path in (secret, pathlib.Path(__file__), '/etc/passwd', '/proc/self/maps',
               '/proc/1/environ', '/dev/shm', '/sys/kernel', '/home'):
    read = f'open({str(path)!r}).read()'
    for program in (
        f'{read}', f'import os\nos.symlink({str(path)!r}, "link")\n'
        'open("link").read()', f'import os\nos.chdir("/")\n{read}'):
      verdict = judged.script(program)
      assert (verdict.name, verdict.detail.partition(':')[0]) == (
          judge.CRASH, 'FileNotFoundError'), path


def test_what_is_there_is_little(judged):
  top = judged.printed('import os; print(sorted(os.listdir("/")))')
  assert set(top[len('printed '):].strip('\'"n\\[]').replace("'", '').split(
      ', ')) <= {'lib', 'lib64', 'usr', 'tmp', *(
          pathlib.Path(os.path.realpath(os.__file__)).parts[1:2])}
  assert "['lib'" in judged.printed('import os; print(os.listdir("/usr"))') or (
      "['lib64'" in judged.printed('import os; print(os.listdir("/usr"))'))
  assert judged.printed(
      'import os; print(os.getuid(), os.uname().nodename, len(os.listdir(".")))'
      ) == r"printed '65534 sandbox 0\n'"


def test_the_environment_is_empty(make_judge, monkeypatch):
  monkeypatch.setenv('SECRET_KEY', 'secret')
  said = make_judge().printed('import os; print(*os.environ)')
  assert 'SECRET' not in said and 'PATH' not in said


def test_no_connection_is_made(judged):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    for host in ('127.0.0.1', '1.1.1.1'):
      verdict = judged.script(
          f'import socket; socket.create_connection(({host!r}, {port}), 1)')
      assert verdict.detail.startswith('PermissionError'), verdict
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
      server.accept()


@pytest.mark.parametrize('path', ['/written', '/usr/lib/written',
                                  os.__file__, '/tmp/../written'])
def test_nothing_is_written_outside(path, judged):
  before = pathlib.Path(path).read_bytes() if os.path.exists(path) else None
  for program in (f'open({path!r}, "w").write("x")',
                  f'import os\nos.symlink({path!r}, "link")\n'
                  'open("link", "w").write("x")',
                  f'import os\nos.chmod({path!r}, 0o777)'):
    assert judged.script(program).name == judge.CRASH
  after = pathlib.Path(path).read_bytes() if os.path.exists(path) else None
  assert before == after


def test_files_do_not_outlive_a_program(judged):
  assert judged.script('open("left", "w").write("5")').name == judge.WRONG
  assert judged.script('print(open("left").read())').detail.startswith(
      'FileNotFoundError')


@pytest.mark.parametrize('call', [
    'ptrace(0, 0, 0, 0)', 'unshare(0x10000000)', 'setns(0, 0)',
    'mount(b"a", b"/tmp", b"tmpfs", 0, 0)', 'umount2(b"/tmp", 0)',
    'syscall(250, 0, 0, 0)', 'syscall(321, 0, 0, 0)', 'syscall(323, 0)',
    'syscall(425, 8, 0)', 'syscall(310, 1, 0, 0, 0, 0, 0)',
    'syscall(0x40000000 + 39)', 'syscall(56, 0x10000011, 0, 0, 0, 0)'])
def test_a_system_call_is_refused(call, judged):
  if 'syscall' in call and os.uname().machine != 'x86_64':
    pytest.skip('a number of x86_64')
  said = judged.printed(
      'import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n'
      f'print(libc.{call}, ctypes.get_errno())')
  assert said == rf"printed '-1 {errno.EPERM}\n'"


def test_limits_cannot_be_raised(judged):
  verdict = judged.script("""
import resource
for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
  soft, hard = resource.getrlimit(what)
  try: resource.setrlimit(what, (soft * 2, hard * 2))
  except ValueError: continue
  print('raised')
print(5)""", ('', '5'))
  assert verdict.name == judge.PASSED, verdict


def test_a_suites_own_helpers_are_not_the_programs(judged):
  setup = 'def helper(x):\n  return x\n'
  source = 'assert helper(7) == 7 and f(2, 3) == 5'
  assert judged.tests(ADD, source, setup=setup).name == judge.PASSED
  attack = 'def helper(x): return 5\ndef f(a, b): return 0\nhelper = f'
  assert judged.tests(attack, source, setup=setup).name == judge.WRONG


def test_a_suite_that_tests_nothing_is_its_fault(judged):
  for source in ('def check(f): assert f(2, 3) == 5', 'pass', 'assert 1 == 1',
                 'raise SystemExit(0)', 'import os\nos._exit(0)',
                 'import no_such_module\nassert f(2, 3) == 5',
                 'f(2, 3)\nno_such_name += 1',
                 'assert f(lambda: 0, 3) == 5'):
    with pytest.raises(unit_tests.SuiteError):
      judged.tests(ADD, source)
