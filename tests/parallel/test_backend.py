"""An environment in which nothing would run is refused by its variable."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
from r1jax import command
with command.reported():
  command.import_jax()
  from r1jax.parallel import backend
  backend.check_environment()
  backend.check_devices()
"""


@pytest.mark.parametrize('name, value, said', [
    ('JAX_ENABLE_X64', '1', 'are of 32 bits'),
    ('JAX_ENABLE_X64', 'banana', "truth value 'banana'"),
    ('JAX_PLATFORMS', 'cuda', 'no such device is here'),
    ('JAX_PLATFORMS', 'banana', "backend 'banana'"),
    ('JAX_PLATFORM_NAME', 'banana', 'Unknown backend banana'),
    ('JAX_DEFAULT_MATMUL_PRECISION', 'banana', 'Invalid value "banana"'),
    ('JAX_NUM_CPU_DEVICES', 'banana', 'Invalid value "banana"'),
    ('XLA_FLAGS', '--xla_banana=1', 'Unknown flag in XLA_FLAGS: --xla_banana'),
    ('XLA_FLAGS', '--xla_force_host_platform_device_count=x', 'value x'),
    ('XLA_FLAGS', 'banana', 'Could not open file "banana"'),
])
def test_a_wrong_variable_is_named_in_one_line(name, value, said):
  clean = {key: text for key, text in os.environ.items()
           if not key.startswith(('JAX_', 'TF_CPP_'))}
  done = subprocess.run(
      [sys.executable, '-c', PROGRAM], cwd=ROOT, text=True, check=False,
      capture_output=True, env=clean | {name: value})
  lines = [line for line in done.stderr.splitlines()
           if 'cuda' not in line or line.startswith('error')]
  assert done.returncode == 2, done.stderr
  assert len(lines) == 1 and said in lines[0], done.stderr
  assert lines[0].startswith(f'error: {name}={value} in the environment: ')
