"""What the first and the second signal do, in every phase of a command.

Signals end processes, so each phase is a small program that imports no jax.
"""

import ast
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from r1jax import interrupts

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN = """
import hashlib, os, sys, time
from r1jax import interrupts
interrupts.install()
ready = lambda: print('ready', flush=True)
program = lambda: hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)  # minutes
def wait():
  for _ in range(3000):
    time.sleep(.01)
try:
"""
END = """
except interrupts.Stopped as stop:
  print(stop)
  sys.exit(interrupts.STATUS)
"""


def _signalled(body, *numbers, pause=.4, **more):
  """(status, stdout, stderr, seconds) of a program that gets these signals."""
  code = BEGIN + ''.join(f'  {line}\n' for line in body.split('; ')) + END
  process = subprocess.Popen(
      [sys.executable, '-c', code], cwd=ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, **{
          # Under nohup, tests inherit that it is ignored.
          'preexec_fn': lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
          **more})
  try:
    assert process.stdout.readline() == 'ready\n'
    began = time.monotonic()
    for place, number in enumerate(numbers):
      time.sleep(pause if place else .05)
      process.send_signal(number)
    out, err = process.communicate(timeout=20)
  finally:
    process.kill()
  return process.returncode, out, err, time.monotonic() - began


NOTHING = 'stopped; nothing was to be saved\n'
ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize('name', ['main', 'export', 'review'])
def test_a_command_begins_with_the_handlers(name):
  path = ROOT / 'r1jax' / f'{name}.py'
  _, *begin = ast.parse(path.read_text('utf-8')).body[:4]
  assert [ast.unparse(node) for node in begin] == [
      'from r1jax import interrupts', 'from r1jax import terminal',
      "if __name__ == '__main__':\n    interrupts.install()\n"
      '    terminal.secure()']


@pytest.mark.parametrize('number', ALL)
def test_while_a_command_is_imported_a_signal_ends_it(number):
  """In the middle of a compiled module, too."""
  status, out, err, seconds = _signalled('ready(); program()', number)
  assert (status, out, err) == (75, '', NOTHING) and seconds < 2


@pytest.mark.parametrize('number', ALL)
def test_with_nothing_to_save_a_signal_is_raised(number):
  status, out, err, seconds = _signalled(
      'interrupts.begin(); ready(); wait()', number)
  assert (status, out, err) == (75, NOTHING, '') and seconds < 2


@pytest.mark.parametrize('where', [
    'import gc; gc.callbacks.append(slow); gc.collect()',
    'import weakref; x = type("X", (), {})(); y = weakref.ref(x, slow); del x',
    'X = type("X", (), {"__del__": slow}); X()'])
def test_what_python_ignores_is_raised_again(where):
  status, out, err, seconds = _signalled(
      f'interrupts.begin(); slow = lambda *_: ready() or time.sleep(.5); {where}'
      '; wait()', signal.SIGTERM)
  assert (status, out.replace('ready\n', ''), err) == (75, NOTHING, '')
  assert seconds < 2


def test_a_program_that_runs_on_with_nothing_to_save_is_ended():
  status, _, err, seconds = _signalled(
      'interrupts.begin(); ready(); program()', signal.SIGTERM)
  assert status == 75 and seconds < 4
  assert err == NOTHING


NOTED = ('interrupts.begin(); keep = interrupts.noted(); keep.__enter__(); '
         'ready(); ')


@pytest.mark.parametrize('number', ALL)
def test_with_something_to_save_a_signal_is_noted(number):
  look = '[time.sleep(.01) for _ in iter(interrupts.asked, True)]'
  status, out, err, _ = _signalled(
      NOTED + look + '; keep.__exit__(None, None, None); time.sleep(2.5); '
      'print("saved")', number)
  assert (status, out, err) == (0, 'saved\n', '')


@pytest.mark.parametrize('first, second', [
    (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_the_second_signal_ends_at_once_also_within_a_program(first, second):
  status, _, err, seconds = _signalled(NOTED + 'program()', first, second)
  assert status == 75 and seconds < 3
  assert err == 'ended at once by a second signal; what was saved stays\n'


def test_a_lost_terminal_s_two_signals_are_one():
  status, out, err, _ = _signalled(
      NOTED + '[time.sleep(.01) for _ in iter(interrupts.asked, True)]; '
      'time.sleep(.5); print("saved")', signal.SIGHUP, signal.SIGHUP, pause=.02)
  assert (status, out, err) == (0, 'saved\n', '')


def test_under_nohup_a_run_outlives_its_terminal():
  ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
  status, out, _, _ = _signalled(
      'ready(); time.sleep(.5); print("on")', signal.SIGHUP, preexec_fn=ignore)
  assert (status, out) == (0, 'on\n')


def test_one_of_several_processes_never_raises_alone():
  status, out, _, _ = _signalled(
      'interrupts.join_others(); ' + NOTED + 'time.sleep(.5); '
      'assert interrupts.asked(); interrupts.check(); print("on")',
      signal.SIGTERM)
  assert (status, out) == (0, 'on\n')


def test_where_no_command_has_begun_a_run_handles_signals_itself():
  before = [signal.getsignal(number) for number in ALL]
  with interrupts.handled():
    with pytest.raises(interrupts.Stopped):
      os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.asked()
    with pytest.raises(interrupts.Stopped):
      interrupts.check()
  assert [signal.getsignal(number) for number in ALL] == before
  assert not interrupts.asked()
