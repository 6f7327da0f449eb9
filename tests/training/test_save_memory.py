"""Saves that are slower than the steps between them hold one copy at most."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB, SAVES = 64, 6  # of the state
PROGRAM = f"""
import json, re, sys, threading, time
import jax
import jax.numpy as jnp
from r1jax import types
from r1jax.training import checkpoint

class Slow(checkpoint.Checkpointer):  # its disk
  def _sync_written(self):
    writing.append(time.monotonic())
    time.sleep(1)
    super()._sync_written()
    written.append(time.monotonic())

def mib(name):
  status = open('/proc/self/status').read()
  return int(re.search(name + r':\\s+(\\d+)', status)[1]) / 1024

step = jax.jit(lambda x: x * 1.01)
array = step(jnp.arange({MIB} * 2**18, dtype=jnp.float32)).block_until_ready()
saver, writing, written = Slow(sys.argv[1], keep=1), [], []
open('/proc/self/clear_refs', 'w').write('5')  # the peak is from here on
before = mib('VmRSS')
for number in range({SAVES}):
  array = step(array)
  saver.save(number, types.TrainState(
      jnp.int32(number), dict(w=array), (), None, jnp.int32(0)))
saver.close()
print(json.dumps(dict(more=mib('VmHWM') - before, writing=writing,
                      written=written)))
"""


@pytest.mark.skipif(not pathlib.Path('/proc/self/clear_refs').exists(),
                    reason='needs the peak of a process')
def test_slow_saves_do_not_pile_up(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM, tmp_path], cwd=ROOT, text=True,
      capture_output=True, check=False)
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout)
  # The array after a step, and the copy of the one before it that is written.
  print(f'{said["more"]:.0f} MiB for a state of {MIB}')
  assert said['more'] < 2.5 * MIB
  for ended, began in zip(said['written'], said['writing'][1:], strict=False):
    assert ended <= began
  assert len(said['written']) == SAVES
