"""Programs run as the judge runs them; skipped where no sandbox can be made."""

import pytest

from r1jax.rewards.code import judge
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import sandbox
from r1jax.rewards.code import unit_tests


class Judge:
  """Judges programs of the function f(a, b) = a + b, in the three forms."""

  def __init__(self, **limits):
    self.runner = runner_lib.Runner(runner_lib.Limits(**dict(
        seconds=2.0, total_seconds=6.0, memory_mib=256, output_kib=64
        ) | limits))

  def __call__(self, program, tests):
    return judge.judge(program, unit_tests.read(tests), self.runner)

  def script(self, program, *cases):
    return self(program, dict(
        kind='script', cases=cases or (('2 3\n', '5\n'), ('4 5\n', '9\n'))))

  def calls(self, program, *cases):
    return self(program, dict(
        kind='calls', name='f', cases=cases or (([2, 3], 5), ([4, 5], 9))))

  def tests(self, program, source='assert f(2, 3) == 5\nassert f(4, 5) == 9',
            **more):
    return self(program, dict(kind='tests', names=('f',), source=source, **more))

  def printed(self, program):
    """What a script prints, whether or not it is right."""
    verdict = self.script(program, ('', 'no such output'))
    assert verdict.name == judge.WRONG, verdict
    return verdict.detail


@pytest.fixture(name='judged', scope='session')
def _judged():
  why = sandbox.problem()
  if why:
    pytest.skip(f'no sandbox: {why}')
  judged = Judge()
  yield judged
  judged.runner.close()


@pytest.fixture(name='make_judge')
def _make_judge(judged):
  """A function that makes a judge with other limits."""
  del judged
  made = []

  def make(**limits):
    made.append(Judge(**limits))
    return made[-1]

  yield make
  for each in made:
    each.runner.close()
