"""The process that judges programs: one of a pool, see rewards/workers.py."""

import json

from r1jax.rewards import sandbox as sandbox_lib
from r1jax.rewards.code import judge
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import unit_tests


def main(fd: int, load_name: str, timeout_seconds: float):
  """Serves the parent at the other end of `fd` until it hangs up.

  load_name: the fields of runner.Limits, as JSON.
  """
  del timeout_seconds
  pipe, send = sandbox_lib.channel(fd)
  runner = runner_lib.Runner(runner_lib.Limits(**json.loads(load_name)))
  try:
    while True:
      try:
        jobs = pipe.recv()
      except EOFError:
        return
      send('ready')
      for _, _, program, tests in jobs:
        send(*_outcome(program, tests, runner))
  finally:
    runner.close()


def _outcome(program: str, tests: dict, runner: runner_lib.Runner) -> tuple:
  """(status, value, detail, columns) of one program."""
  try:
    verdict = judge.judge(program, unit_tests.read(tests), runner)
  except unit_tests.SuiteError as problem:
    return 'errors', 0.0, f'suite: {problem}'[:300]
  return ('ok', float(verdict.name == judge.PASSED), '',
          {'verdict': verdict.name, 'verdict_detail': verdict.detail[:200]})
