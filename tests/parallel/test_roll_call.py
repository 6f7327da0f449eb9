"""A process that is lost, or a step that hangs, ends the others with a line.

A toy stage in three processes, which its main one would wait for for ever.
"""

import json
import signal
import time

import pytest

import hosts
from r1jax.parallel import roll_call

STAGE = """
import os, pathlib, sys, threading
sys.path[:0] = ['tests/training']
from r1jax import interrupts
interrupts.install()
import jax
import test_loop
from r1jax import command
from r1jax.parallel import roll_call
from r1jax.parallel import sharding
from r1jax.training import loop
index = jax.process_index()
replicated = sharding.replicated(sharding.make_mesh(dict(data=-1)))
init = jax.jit(test_loop._init, out_shardings=replicated)
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=replicated), jax.eval_shape(test_loop._init))
def on_step(step):
  distributed.check_stopped()
  if step == AT and index == 1:
    print('there', flush=True)
    DO
stage = test_loop._stage(on_step=on_step)._replace(
    init=init, abstract=abstract, evaluate=None)
settings = test_loop.SETTINGS._replace(hang_seconds=2.)
with command.reported(), roll_call.answered():
  summary = loop.train(stage, settings, 'FOLDER', test_loop.CONFIG)
print(json.dumps(summary and summary['steps']))
"""
WAIT = 'threading.Event().wait()'


def _start(folder, at=6, do=WAIT):
  program = STAGE
  for name, value in dict(AT=at, DO=do, FOLDER=folder).items():
    program = program.replace(name, str(value))
  return hosts.start(program, processes=3, devices=1)


def _end(processes):
  """(status, the lines of errors) of each."""
  try:
    ended = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [(process.returncode, [
      line for line in err.splitlines() if line.startswith('error')])
          for process, (_, err) in zip(processes, ended)]


def _disturbed(folder, number):
  """How the others end when the second is sent a signal within a step."""
  processes = _start(folder)
  assert 'there\n' in iter(processes[1].stdout.readline, '')
  processes[1].send_signal(number)
  began = time.monotonic()
  ended = _end([processes[0], processes[2]])
  processes[1].kill()
  processes[1].communicate()
  return ended, time.monotonic() - began


def _check(ended, words):
  for status, lines in ended:
    assert status == 75
    line, = lines
    assert line.startswith('error: process 1 (pid ') and words in line
    assert line.endswith(roll_call._AGAIN)


def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path):
  ended, seconds = _disturbed(tmp_path / 'run', signal.SIGKILL)
  _check(ended, ') does not answer; process ')
  assert seconds < 60
  assert (tmp_path / 'run/lock').exists()  # of a dead process
  assert any((tmp_path / 'run/checkpoints' / at).exists() for at in '36')
  again = _start(tmp_path / 'run', at=-1)
  out = [process.communicate(timeout=120)[0] for process in again]
  assert [json.loads(text.splitlines()[-1]) for text in out] == [12] * 3


@pytest.mark.slow
def test_a_stopped_process_ends_the_others(tmp_path):
  ended, seconds = _disturbed(tmp_path, signal.SIGSTOP)
  _check(ended, ') does not answer; process ')
  assert 'step 7, begun at ' in ended[0][1][0] and seconds < 60


@pytest.mark.slow
def test_a_step_that_hangs_ends_all_and_says_where_they_are(tmp_path):
  for status, lines in _end(_start(tmp_path)):
    assert status == 75
    line, = lines
    assert line.startswith('error: all processes answer: 1 at r1jax/training/'
                           'loop.py:')
    assert ', 0, 2 at r1jax/parallel/distributed.py:' in line
    assert ' s (config.hang_seconds); ' in line


@pytest.mark.slow
def test_what_one_alone_cannot_do_ends_all_with_a_line(tmp_path):
  """A fault of its machine, as a disk that is full."""
  ended = _end(_start(tmp_path, do=(
      "with roll_call.alone(): raise command.errors.RunError('no room')")))
  for status, (line,) in ended:
    assert status == 1 and line.startswith('error: all processes answer: ')
    assert line.endswith('; process 1: no room')


@pytest.mark.slow
def test_an_error_of_one_ends_all_and_keeps_its_traceback(tmp_path):
  """It is a mistake in the code, and must not be tried for ever."""
  processes = _start(tmp_path, do="raise KeyError('a mistake')")
  err = ''.join(iter(processes[1].stderr.readline, ''))
  assert 'Traceback' in err and "\nKeyError: 'a mistake'\n" in err
  for status, lines in _end([processes[0], processes[2]]):
    line, = lines
    assert status == 1 and line.startswith('error: all processes answer: ')
    assert line.endswith("; process 1: KeyError: 'a mistake'")
  assert processes[1].wait() == 1


def test_words():
  names = {1: 'pid 7 on a', 2: 'pid 8 on b'}
  assert roll_call._missing([], names) == ''
  assert roll_call._missing([1], names) == (
      'process 1 (pid 7 on a) does not answer')
  assert roll_call._missing([1, 2], names) == (
      'process 1 (pid 7 on a), process 2 (pid 8 on b) do not answer')
  assert roll_call._missing([*range(3, 9)], names).endswith(
      'process 6 (never named) and 2 more do not answer')
  assert roll_call._places({0: 'x:1', 1: 'y:2', 2: 'x:1'}) == (
      'all processes answer: 1 at y:2, 0, 2 at x:1')
  assert roll_call._places(dict.fromkeys(range(9), 'x:1')) == (
      'all processes answer: 0, 1, 2, 3, ... at x:1')
