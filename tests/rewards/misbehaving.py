"""Verifiers that hang, crash or attack: what a worker process must survive."""

import faulthandler
import os
import sys
import time


def load(kind: str, task: str):
  """A verifier (answer, reference) -> bool for `workers.Pool`.

  A task 'FILE 2 kill' kills the first two workers that load it, which FILE
  counts; or they 'exit', or 'sleep'.
  """
  path, _, rest = task.partition(' ')
  if rest:
    times, _, action = rest.partition(' ')
    with open(path, 'a+', encoding='utf-8') as file:
      file.write('.')
    if os.path.getsize(path) <= int(times):
      {'kill': lambda: os.kill(os.getpid(), 9), 'exit': lambda: os._exit(0),
       'sleep': lambda: time.sleep(60)}[action]()
  return {'good': _good, 'reckless': _reckless, 'leaky': _leaky}[kind]


def _good(answer, reference):
  return answer == reference


_kept = []


def _leaky(answer, reference):
  """Keeps more than half of the memory that a worker may take."""
  _kept.append(bytes(600 << 20))
  return answer == reference


def _reckless(answer, reference):
  """Does what the answer says."""
  action, _, argument = answer.partition(' ')
  if action == 'sleep':
    time.sleep(float(argument))
  elif action == 'spin':
    while True:
      pass
  elif action == 'segfault':
    faulthandler._sigsegv()
  elif action == 'exit':
    sys.exit(3)
  elif action == 'swell':
    return bool(bytearray(8 << 30))
  elif action == 'recurse':
    return _reckless(answer, reference)
  elif action == 'raise':
    raise ValueError('cannot read this')
  elif action == 'raise_unknown':
    raise Exception('of no known class')
  elif action == 'system':
    os.system(f'touch {argument}')
  elif action == 'swallow':
    try:
      with open(argument, 'w', encoding='utf-8'):
        pass
    except OSError:
      return True
  return answer == reference
