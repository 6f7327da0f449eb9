"""The devices that the environment asks for: there, or refused in one line.

XLA ends the process where it meets a flag that it does not know, and jax fails
with an assertion where a platform is missing. What is asked for is tried here,
before anything is built.
"""

import os
import re
import signal

import jax
from jaxlib import xla_client

from r1jax import errors

_PLATFORMS = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME')
_XLA_FLAGS = 'XLA_FLAGS'
_SAID = re.compile(r"\] ((?:Couldn't|Could not|Unknown) .*)")  # by XLA


def check_environment() -> None:
  """Refuses settings with which nothing would run; before any use of jax.

  Raises:
    ConfigError: names the variable.
  """
  if jax.config.jax_enable_x64:
    raise _refused('JAX_ENABLE_X64', 'the models and their files are of 32 bits'
                   '; unset it')
  for name, value in (('JAX_TRANSFER_GUARD', 'allow'),
                      ('JAX_NUMPY_DTYPE_PROMOTION', 'standard')):
    if os.environ.get(name, value) != value:
      raise _refused(name, f'a run needs {value!r}; unset it')
  if os.environ.get(_XLA_FLAGS):
    _check_flags()


def check_devices() -> None:
  """Finds the devices.

  Raises:
    ConfigError: names the variable that asks for some that are not there.
    RunError: no variable does, and those of this machine cannot be used.
  """
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as problem:
    name = next(filter(os.environ.get, _PLATFORMS), None)
    said = str(problem).partition('\n')[0] or 'no such device is here'
    if name is None:
      raise errors.RunError(
          f"this machine's devices cannot be used: {said}; end what else uses "
          'them, or set JAX_PLATFORMS=cpu to do without') from problem
    raise _refused(name, f'{said}; unset it to use what there is') from problem


def _refused(name: str, problem: str) -> errors.ConfigError:
  return errors.ConfigError(
      '', f'{name}={os.environ.get(name, "")} in the environment: {problem}')


def _check_flags() -> None:
  """Lets a child parse XLA's flags: it is ended by those that are wrong.

  By XLA, that is. One that the system refuses or ends, as for want of memory,
  has shown nothing, and the flags are XLA's to judge.
  """
  ours, theirs = os.pipe()
  try:
    child = os.fork()  # no device is in use yet
  except OSError:
    os.close(ours)
    os.close(theirs)
    return
  if not child:
    try:
      os.dup2(theirs, 1)
      os.dup2(theirs, 2)
      xla_client.CompileOptions()
    finally:
      os._exit(0)
  os.close(theirs)
  with os.fdopen(ours, errors='replace') as output:
    said = _SAID.search(output.read())
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  if status > 0 or status == -signal.SIGABRT:
    raise _refused(_XLA_FLAGS, said[1] if said else 'XLA refuses a value')
