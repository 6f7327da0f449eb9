"""A program and its tests in, a verdict out.

The judge runs outside the sandbox and decides there. It never asks the
program's process whether a test has passed: it sends an input and compares what
comes back with what the process never sees. Where a suite brings its tests as
code, that code has a sandbox of its own, with proxies for the functions under
test; the judge passes calls and plain values between the two.

A program passes if it passes all tests, in order, up to the first that it does
not pass.
"""

import time
from typing import Any, NamedTuple

from r1jax.data import columns
from r1jax.rewards.code import inside
from r1jax.rewards.code import runner as runner_lib
from r1jax.rewards.code import unit_tests

PASSED, WRONG, TIME, CRASH, MEMORY, OUTPUT, VALUE, MISSING = VERDICTS = (
    'passed', 'wrong', 'timeout', 'crash', 'memory', 'output', 'value',
    'missing')
MEANINGS = {
    PASSED: 'all tests passed', WRONG: 'a value or output is wrong',
    TIME: 'out of time', CRASH: 'an exception, or an end before its time',
    MEMORY: 'out of memory', OUTPUT: 'too much output',
    VALUE: 'a value that is not plain', MISSING: 'the response has no program'}
_CPU_TIME = -24  # SIGXCPU


class Verdict(NamedTuple):
  """What became of a program."""
  name: str  # one of VERDICTS
  detail: str = ''  # one line


class _Stop(Exception):
  """A program has not passed."""

  def __init__(self, name: str, detail: str = ''):
    super().__init__(name)
    self.verdict = Verdict(name, detail)


def judge(program: str, tests: unit_tests.Tests, runner: runner_lib.Runner
          ) -> Verdict:
  """Runs a program on its tests.

  Raises:
    SuiteError: the tests are at fault, or have tested nothing.
    OSError: no sandbox can be started.
  """
  try:
    program.encode()
  except UnicodeEncodeError as problem:
    return Verdict(CRASH, f'SyntaxError: {problem}')
  run = _Run(runner, tests)
  try:
    _KINDS[tests.kind](run, program)
  except _Stop as stop:
    return stop.verdict
  finally:
    run.close()
  return Verdict(PASSED)


class _Run:
  """The processes of one program, and the time that it has left."""

  def __init__(self, runner: runner_lib.Runner, tests: unit_tests.Tests):
    self.tests = tests
    self._runner, self.limits = runner, runner.limits
    self._processes = []
    self._total = self._test = 0.0  # deadlines

  @property
  def cases(self) -> tuple[tuple[Any, Any], ...]:
    return self.tests.cases[:self.limits.tests]

  def start(self, kind: str, **job: Any) -> runner_lib.Process:
    """A process that is ready for a message; the time of the tests begins."""
    self._processes.append(self._runner.start(
        self.tests.memory_mib or self.limits.memory_mib, kind=kind,
        prelude=self.tests.prelude, **job))
    self._total = time.monotonic() + self.limits.total_seconds
    self.begin()
    return self._processes[-1]

  def begin(self) -> None:
    """The time of a test begins."""
    self._test = min(self._total, time.monotonic() + (
        self.tests.seconds or self.limits.seconds))

  def ask(self, process: runner_lib.Process, message: dict[str, Any] | None
          ) -> dict[str, Any]:
    """What the program's process replies; raises _Stop if it does not."""
    try:
      if message is not None:
        process.send(message, self._test)
      reply = process.receive(self._test, self._runner.message_bytes)
    except runner_lib.Late:
      raise _Stop(TIME) from None
    except runner_lib.TooLong:
      raise _Stop(OUTPUT) from None
    except runner_lib.Malformed:
      raise _Stop(CRASH, 'a reply is not readable') from None
    except runner_lib.Ended as end:
      raise _Stop(*_ended(end.status)) from None
    if 'error' in reply:
      if not _is_error(reply['error']):
        raise _Stop(CRASH, 'a reply is not readable')
    return reply

  def fail(self, reply: dict[str, Any]) -> None:
    """Raises the _Stop of a program's exception."""
    kind, line = reply['error']
    raise _Stop({'MemoryError': MEMORY, 'Unreadable': VALUE}.get(kind, CRASH),
                line)

  def listen(self, process: runner_lib.Process,
             reply: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a suite's tests say next."""
    try:
      if reply is not None:
        process.send(reply, self._test)
      return process.receive(self._test, self._runner.message_bytes)
    except runner_lib.Late:
      raise _Stop(TIME) from None
    except (runner_lib.TooLong, runner_lib.Malformed, runner_lib.Ended) as end:
      raise unit_tests.SuiteError(f'the tests broke off: {end!r}') from end

  def close(self) -> None:
    for process in self._processes:
      process.close()


def _is_error(error: Any) -> bool:
  return isinstance(error, list) and list(map(type, error)) == [str, str]


def _ended(status: int) -> tuple[str, str]:
  """The verdict of a process that has ended without a reply."""
  if status == _CPU_TIME:
    return TIME, ''
  return CRASH, f'the program ended, with status {status}, before its tests'


def _script(run: _Run, source: str) -> None:
  """Runs a program on each input, and compares what it prints."""
  process = run.start('script', source=source,
                      modules=unit_tests.imported(run.tests.prelude))
  for given, wanted in run.cases:
    run.begin()
    reply = run.ask(process, {'stdin': given})
    status, output, error = map(reply.get, ('status', 'output', 'stderr'))
    if list(map(type, (status, output, error))) != [int, str, str]:
      raise _Stop(CRASH, 'a reply is not readable')
    if len(output.encode('utf-8', 'surrogateescape')) >= (
        run.limits.output_bytes):
      raise _Stop(OUTPUT)
    line = (error.splitlines() or [f'status {status}'])[-1]
    if status:
      raise _Stop(MEMORY if line.startswith('MemoryError') else TIME
                  if status == _CPU_TIME else CRASH, line)
    if printed(output) != printed(wanted):
      raise _Stop(WRONG, f'printed {columns.shown(output)}')


def printed(text: str) -> list[str]:
  """The lines of an output: space at their ends and empty last lines aside."""
  return '\n'.join(line.rstrip() for line in text.split('\n')
                   ).rstrip('\n').split('\n')


def _calls(run: _Run, source: str) -> None:
  """Calls a function, and compares what it returns."""
  process = run.start('calls', source=source)
  if 'error' in (reply := run.ask(process, None)):
    run.fail(reply)
  for number, (arguments, wanted) in enumerate(run.cases):
    try:
      sent, _ = inside.encode(list(arguments)), inside.encode(wanted)
    except (inside.Unreadable, RecursionError) as problem:
      raise unit_tests.SuiteError(f'case {number}: {problem}') from problem
    run.begin()
    reply = run.ask(process, {'name': run.tests.name, 'args': sent,
                              'keywords': inside.encode({})})
    if 'error' in reply:
      run.fail(reply)
    try:
      value = inside.decode(reply.get('value'))
    except (inside.Unreadable, RecursionError) as problem:
      raise _Stop(VALUE, str(problem)) from problem
    if _as_json(value) != _as_json(wanted):
      raise _Stop(WRONG, f'returned {columns.shown(value)}')


def _as_json(value: Any) -> Any:
  """A value with lists for its tuples, as JSON has them."""
  if isinstance(value, (list, tuple)):
    return list(map(_as_json, value))
  if isinstance(value, dict):
    return {key: _as_json(item) for key, item in value.items()}
  return value


def _tests(run: _Run, source: str) -> None:
  """Runs a suite's tests in a sandbox of their own."""
  names, modules = unit_tests.open_names(run.tests.source)
  suite = run.start('tests', source=run.tests.source, setup=run.tests.setup,
                    names=run.tests.names, open=names, modules=modules)
  process = run.start('calls', source=source)
  if 'error' in (reply := run.ask(process, None)):
    run.fail(reply)
  said, called = run.listen(suite), False
  while 'call' in said:
    reply, called = run.ask(process, said['call']), True
    said = run.listen(
        suite, {name: reply[name] for name in ('error', 'value', 'changed')
                if name in reply})
  if said.get('passed') is True and called:
    return
  kind, line = said.get('error', ('', 'they called no function under test'))
  if said.get('program') is True:
    run.fail(reply if 'error' in reply else said)
  if kind in ('', 'SyntaxError', 'NameError', 'ImportError', 'Unreadable',
              'ModuleNotFoundError'):
    raise unit_tests.SuiteError(f'the tests cannot run: {line}')
  raise _Stop(WRONG, line)


_KINDS = {'script': _script, 'calls': _calls, 'tests': _tests}
