"""An environment in which nothing would run is refused by its variable."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest

from r1jax import errors
from r1jax.parallel import backend

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
    ('JAX_TRANSFER_GUARD', 'disallow', "needs 'allow'; unset it"),
    ('JAX_NUMPY_DTYPE_PROMOTION', 'strict', "needs 'standard'; unset it"),
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
  _refused(['-c', PROGRAM], name, value, said)


@pytest.mark.parametrize('name, value, said', [
    ('JAX_ENABLE_X64', 'banana', "truth value 'banana'"),
    ('JAX_PLATFORMS', 'banana', "backend 'banana'")])
def test_an_export_looks_at_the_environment_first(name, value, said):
  _refused(['-m', 'r1jax.export', '--workdir=x', '--out=x'], name, value, said)


def _refused(command, name, value, said):
  clean = {key: text for key, text in os.environ.items()
           if not key.startswith(('JAX_', 'TF_CPP_'))}
  done = subprocess.run(
      [sys.executable, *command], cwd=ROOT, text=True, check=False,
      capture_output=True, env=clean | {name: value})
  lines = [line for line in done.stderr.splitlines()
           if 'cuda' not in line or line.startswith('error')]
  assert done.returncode == 2, done.stderr
  assert len(lines) == 1 and said in lines[0], done.stderr
  assert lines[0].startswith(f'error: {name}={value} in the environment: ')


def _ends_by(number):
  def options():
    if number != signal.SIGKILL:
      signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
  return options


def _refuses(*_):
  raise BlockingIOError(11, 'Resource temporarily unavailable')


def _lacks_memory():
  raise MemoryError


@pytest.mark.parametrize('name, by', [
    ('CompileOptions', _ends_by(signal.SIGKILL)),
    ('CompileOptions', _ends_by(signal.SIGTERM)),
    ('CompileOptions', _lacks_memory), ('fork', _refuses)])
def test_flags_that_no_one_could_try_are_not_refused(monkeypatch, name, by):
  """The system has ended the child, not XLA."""
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_use_acl=false')
  where = os if name == 'fork' else backend.xla_client
  monkeypatch.setattr(where, name, by)
  backend.check_environment()
  if name == 'CompileOptions':  # as XLA ends a process, in other versions
    monkeypatch.setattr(where, name, _ends_by(signal.SIGABRT))
    with pytest.raises(errors.ConfigError, match='XLA refuses a value'):
      backend.check_environment()


def test_devices_that_nobody_asked_for_blame_no_variable(monkeypatch):
  def devices():
    raise RuntimeError('The TPU is in use by process 7')
  monkeypatch.setattr(jax, 'devices', devices)
  for name in ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME'):
    monkeypatch.delenv(name, raising=False)
  with pytest.raises(errors.RunError, match='be used: The TPU is in use') as it:
    backend.check_devices()
  assert 'in the environment' not in str(it.value)
  monkeypatch.setenv('JAX_PLATFORM_NAME', 'tpu')
  with pytest.raises(errors.ConfigError, match='^JAX_PLATFORM_NAME=tpu in the'):
    backend.check_devices()
