"""The devices that the environment asks for: there, or refused in one line.

XLA ends the process where it meets a flag that it does not know, and jax fails
with an assertion where a platform is missing. What is asked for is tried here,
before anything is built.
"""

import contextlib
import os
import re

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
  if os.environ.get(_XLA_FLAGS):
    _check_flags()


def check_devices() -> None:
  """Finds the devices.

  Raises:
    ConfigError: names the variable that asks for some that are not there.
  """
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as problem:
    name = next(filter(os.environ.get, _PLATFORMS), _PLATFORMS[0])
    said = str(problem).partition('\n')[0] or 'no such device is here'
    raise _refused(name, f'{said}; unset it to use what there is') from problem


def _refused(name: str, problem: str) -> errors.ConfigError:
  return errors.ConfigError(
      '', f'{name}={os.environ.get(name, "")} in the environment: {problem}')


def _check_flags() -> None:
  """Lets a child parse XLA's flags: it is ended by those that are wrong."""
  ours, theirs = os.pipe()
  child = os.fork()  # no device is in use yet
  if not child:
    with contextlib.suppress(BaseException):
      os.dup2(theirs, 1)
      os.dup2(theirs, 2)
      xla_client.CompileOptions()
      os._exit(0)
    os._exit(1)
  os.close(theirs)
  with os.fdopen(ours, errors='replace') as output:
    said = _SAID.search(output.read())
  if os.waitpid(child, 0)[1]:
    raise _refused(_XLA_FLAGS, said[1] if said else 'XLA refuses a value')
