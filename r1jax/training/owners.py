"""Who holds a lock: a process, named among those of all machines.

On its own machine the system says whether it still lives.
"""

import json
import os
import pathlib
import socket
import time
from typing import Any, NoReturn

from r1jax import errors
from r1jax import terminal

_ONE_MACHINE = ('host', 'boot', 'processes')  # equal on one, where a pid counts

Owner = dict[str, Any]  # {} of one that cannot be read


def refused(place: Any, owner: Owner) -> errors.ConfigError:
  """The error of a workdir where another process works."""
  return errors.ConfigError(
      '--workdir', f'{place} is in use by {name(owner)}; wait for its end or '
      'stop it, or give another --workdir')


def end_as_dead(lock: Any, other: Owner) -> NoReturn:
  """Ends this process, which the other one has taken for dead."""
  terminal.say(f'error: {lock} was taken over by {name(other)}: this process '
               'ends, so that one alone works there')
  os._exit(1)


def name(owner: Owner) -> str:
  if not owner:
    return 'a process that its lock does not name'
  began = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(owner['since']))
  return f'process {owner["pid"]} on {owner["host"]}, since {began}'


def identity() -> Owner:
  """What names this process among those of all machines."""
  return {
      'host': socket.gethostname(), 'pid': os.getpid(),
      'since': round(time.time()),
      'boot': _text('/proc/sys/kernel/random/boot_id'),
      'processes': _link('/proc/self/ns/pid'),  # a container has its own
      'started': _started(os.getpid())}


def lives(owner: Owner) -> bool | None:
  """Whether an owner lives; None if this machine cannot know."""
  mine = identity()
  if not owner or any(owner[name] != mine[name] for name in _ONE_MACHINE):
    return None
  if owner['pid'] == mine['pid']:  # an earlier one's, or this very process
    return owner['started'] == mine['started']
  try:
    os.kill(owner['pid'], 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass  # another user's
  return _started(owner['pid']) == owner['started']


def read(content: bytes) -> Owner:
  """The owner that the JSON of a lock names."""
  try:
    owner, mine = json.loads(content), identity()
    return owner if owner.keys() == mine.keys() and all(
        type(owner[name]) is type(mine[name]) for name in ('host', 'pid')
    ) and owner['pid'] < 1 << 31 else {}
  except (ValueError, AttributeError):
    return {}


def _started(pid: int) -> str | None:
  """When a process began, in ticks; None where it is dead or not known."""
  stat = _text(f'/proc/{pid}/stat')
  if stat is None:
    return None
  state, *fields = stat.rpartition(')')[2].split()
  return None if state in 'ZX' else fields[18]


def _text(path: str) -> str | None:
  try:
    return pathlib.Path(path).read_text('utf-8', 'replace').strip()
  except OSError:
    return None


def _link(path: str) -> str | None:
  try:
    return os.readlink(path)
  except OSError:
    return None
