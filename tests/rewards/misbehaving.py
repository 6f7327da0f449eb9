"""Verifiers that hang, crash or attack: what a worker process must survive."""

import faulthandler
import os
import sys
import time


def load(kind: str, task: str):
  """A verifier (answer, reference) -> bool for `workers.Pool`."""
  del task
  return {'good': _good, 'reckless': _reckless}[kind]


def _good(answer, reference):
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
