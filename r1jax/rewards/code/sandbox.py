"""Bubblewrap's command: what a program finds around it, which is very little.

New namespaces of every kind: no network but a loopback of its own, no process
but its own, no host name. Nobody's user, no capability. Read-only: Python, its
standard library and the system's libraries. Writable: /tmp, empty, in memory,
of limited size. No /proc, no /dev, no /home, no environment.
"""

import functools
import marshal
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

from r1jax import errors
from r1jax.rewards.code import inside
from r1jax.rewards.code import system_calls

FILE_BYTES = 64 << 20  # of a program's files, together
FIELD = 'rewards.code.unsafe_subprocess'
_SECONDS = 60.0  # for a first sandbox


def command(unsafe: bool) -> list[str]:
  """The command that starts `inside`, in a sandbox unless `unsafe`."""
  # No environment, no site-packages, no bytecode written, text in UTF-8.
  python = [_python(), '-I', '-S', '-B', '-X', 'utf8', '-c', _inside()]
  if unsafe:
    return python
  return [
      shutil.which('bwrap') or 'bwrap', '--unshare-all', '--die-with-parent',
      '--new-session', '--clearenv', '--cap-drop', 'ALL', '--uid', '65534',
      '--gid', '65534', '--hostname', 'sandbox', *_libraries(),
      '--size', str(FILE_BYTES), '--tmpfs', '/tmp', '--remount-ro', '/',
      '--chdir', '/tmp', '--', *python]


@functools.cache
def _inside() -> str:
  """The text of a program that runs `inside`, compiled: it starts sooner.

  Made once, of the source as it is: the cache that imports leave may be of
  another version, and both may change while programs are judged.
  """
  source = pathlib.Path(inside.__file__).read_text('utf-8')
  code = marshal.dumps(compile(source, 'inside.py', 'exec'))
  return f'import marshal\nexec(marshal.loads(bytes.fromhex("{code.hex()}")))'


def _python() -> str:
  """The interpreter itself, not a virtual environment's link to it."""
  return os.path.realpath(sys.executable)


def _libraries() -> list[str]:
  """Arguments that show the interpreter and what it loads."""
  prefix = os.path.realpath(sys.base_prefix)
  folders = ['/usr/lib', '/usr/lib64', f'{prefix}/lib', f'{prefix}/lib64']
  packages = os.path.join(
      os.path.realpath(sysconfig.get_path('stdlib')), 'site-packages')
  arguments = []
  for folder in dict.fromkeys(filter(os.path.isdir, folders)):
    arguments += ['--ro-bind', folder, folder]
  for folder in ('/lib', '/lib64'):
    if os.path.islink(folder):
      arguments += ['--symlink', os.readlink(folder), folder]
    elif os.path.isdir(folder):
      arguments += ['--ro-bind', folder, folder]
  if os.path.isdir(packages):
    arguments += ['--tmpfs', packages]
  return [*arguments, '--ro-bind', _python(), _python()]


def problem() -> str | None:
  """Why no sandbox can be made here, in one line; None: it can."""
  if not shutil.which('bwrap'):
    return 'bubblewrap is not installed (apt-get install bubblewrap)'
  if system_calls.denying_filter() is None:
    return 'no filter of system calls is known for this machine'
  try:
    done = subprocess.run(
        [*command(False)[:-1], 'pass'], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False)
  except subprocess.TimeoutExpired:
    return f'bubblewrap did not end within {_SECONDS:g} s'
  if done.returncode:
    said = done.stderr.strip().splitlines() or [f'status {done.returncode}']
    return f'bubblewrap cannot make one here: {said[-1][:200]}'
  return None


def check(unsafe: bool) -> None:
  """Raises ConfigError where programs could not be run as the config says."""
  if unsafe:
    return
  why = problem()
  if why:
    raise errors.ConfigError(
        FIELD, f'programs run in a sandbox alone, and {why}; True runs them '
        'without one: they could read and change what this user can')
