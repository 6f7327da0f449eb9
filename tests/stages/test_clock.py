"""Where a process's time goes: all of it to one part and kind."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from r1jax.stages import clock as clock_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_all_time_has_a_part_and_a_kind():
  began = time.perf_counter() - clock_lib.process_seconds()
  clock = clock_lib.Clock()
  clock.add('import', 'host')
  with clock.listening():
    function = jax.jit(lambda x: jnp.sin(x) @ x)
    for _ in range(2):
      clock.wait('program', function(jnp.ones((8, 8))))
  time.sleep(.05)
  clock.add('sleep', 'host')
  times = clock.take()
  assert sum(clock_lib.by_kind([part])['seconds'] for part in times.values()
             ) == pytest.approx(time.perf_counter() - began, abs=.1)
  assert times['sleep']['host'] >= .05 > times['sleep']['cpu']
  assert times['program'].keys() == {
      'trace', 'compile', 'dispatch', 'wait', 'cpu'}
  assert min(times['program'].values()) > 0
  assert clock.take() == {}


def test_nothing_compiles_at_the_second_call_and_nobody_listens_afterwards():
  clock = clock_lib.Clock()
  function = jax.jit(lambda x: x * 3)
  argument = jnp.ones(4)
  with clock.listening():
    clock.wait('first', function(argument))
    compiled = clock.programs
    clock.wait('second', function(argument))
  jax.jit(lambda x: x * 5)(argument)
  times = clock.take()
  assert compiled == clock.programs == 1 and clock.kept == 0
  assert times['first'].keys() - times['second'].keys() == {'trace', 'compile'}


KEPT = """
import jax
from r1jax.stages import clock
clock = clock.Clock()
with clock.listening():
  for _ in range(2):
    jax.jit(lambda x: x + 1)(1.)
    jax.clear_caches()
print(clock.programs, clock.kept)
"""


def test_programs_that_are_read_are_told_from_compiled_ones(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', KEPT], text=True, check=True,
      stdout=subprocess.PIPE, env=os.environ | {
          'PYTHONPATH': str(ROOT), 'JAX_ENABLE_COMPILATION_CACHE': 'true',
          'JAX_COMPILATION_CACHE_DIR': str(tmp_path),
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'})
  programs, kept = map(int, done.stdout.split())
  assert programs == 2 * kept > 0


def test_process_seconds_agree_with_the_system():
  try:
    told = subprocess.run(['ps', '-o', 'etimes=', '-p', str(os.getpid())],
                          capture_output=True, text=True, check=True)
  except (FileNotFoundError, subprocess.CalledProcessError):
    pytest.skip('no ps that knows etimes')
  assert abs(clock_lib.process_seconds() - int(told.stdout)) < 3
