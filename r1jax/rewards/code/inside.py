"""What runs in the sandbox, alone: nothing of r1jax can be imported there.

One process does one job, of three kinds, which it is sent as a line of JSON:

    script  the program is run once for each input that is sent, with it as
            standard input, each time in a process of its own
    calls   the program is loaded, and its functions called with the arguments
            that are sent
    tests   a suite's own test code is run; the functions under test are
            proxies, whose calls go out and are answered from outside

Each message is a line of JSON in ASCII. Values that are passed are plain:
numbers, text, bytes, None, lists, tuples, sets, dicts, ranges and iterators of
these. Only their content is sent, so that no object of a program, whose `==`
may say anything, comes near the tests.
"""

import atexit
import builtins
import json
import os
import resource
import sys

_INT = 1 << 63  # larger ones are written as hexadecimal digits
_ITEMS = 1_000_000  # of an iterator, at most
_LINE = 300  # characters of an error that are passed on
# Of Python's own, those that tests do not see as such: the first two end a loop
# around the call, as if it had no more items; the others need more than a line.
_NOT_RAISED = (
    StopIteration, StopAsyncIteration, UnicodeError, BaseExceptionGroup)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2


class Unreadable(Exception):
  """A value that is not plain, or a message that is none."""


def encode(value):
  """A plain value as JSON."""
  if value is None or isinstance(value, (bool, float)):
    return value
  if isinstance(value, str):
    return str(value)
  if isinstance(value, int):
    return int(value) if -_INT < value < _INT else {'int': hex(value)}
  if isinstance(value, list):
    return [encode(item) for item in value]
  if isinstance(value, dict):
    return {'dict': [[encode(k), encode(v)] for k, v in value.items()]}
  if isinstance(value, (bytes, bytearray)):
    return {'bytes': value.hex()}
  if isinstance(value, complex):
    return {'complex': [value.real, value.imag]}
  if isinstance(value, range):
    return {'range': [value.start, value.stop, value.step]}
  for kind in (tuple, set, frozenset):
    if isinstance(value, kind):
      return {kind.__name__: [encode(item) for item in value]}
  if hasattr(value, '__next__'):
    return {'iter': [encode(item) for item, _ in zip(value, range(_ITEMS))]}
  raise Unreadable(f'a value of type {type(value).__name__} is not plain')


def decode(value):
  """The value that `encode` has written; Unreadable if it is not one."""
  if isinstance(value, list):
    return [decode(item) for item in value]
  if not isinstance(value, dict):
    return value
  try:
    (kind, content), = value.items()
    return _DECODERS[kind](content)
  except (KeyError, TypeError, ValueError) as problem:
    raise Unreadable(f'not a value: {str(value)[:80]}') from problem


_DECODERS = {
    'int': lambda digits: int(digits, 16), 'bytes': bytes.fromhex,
    'complex': lambda parts: complex(*parts),
    'range': lambda parts: range(*parts),
    'dict': lambda pairs: {decode(k): decode(v) for k, v in pairs},
    'tuple': lambda items: tuple(map(decode, items)),
    'set': lambda items: set(map(decode, items)),
    'frozenset': lambda items: frozenset(map(decode, items)),
    'iter': lambda items: iter([decode(item) for item in items])}


class Channel:
  """The two ends of the judge: lines in, lines out.

  Standard input and output are replaced by standard error, which goes nowhere.
  """

  def __init__(self):
    self.reads, self.writes = os.dup(0), os.dup(1)
    os.dup2(2, 0)
    os.dup2(2, 1)
    self._buffer = b''

  def receive(self):
    """The next message; None when the judge hangs up."""
    parts = [self._buffer]
    while b'\n' not in parts[-1]:
      data = os.read(self.reads, 1 << 20)
      if not data:
        return None
      parts.append(data)
    line, _, self._buffer = b''.join(parts).partition(b'\n')
    return json.loads(line)

  def send(self, message):
    data = json.dumps(message).encode() + b'\n'
    while data:
      data = data[os.write(self.writes, data):]

  def close(self):
    os.close(self.reads)
    os.close(self.writes)


def load_fence(job):
  """A function that confines this process from then on; see system_calls.

  The limits are hard: a program cannot raise them again. ctypes is loaded now:
  within them it could not be.
  """
  limits = [
      (resource.RLIMIT_AS, job['memory_bytes']),
      (resource.RLIMIT_CPU, job['cpu_seconds']),
      (resource.RLIMIT_FSIZE, job['output_bytes']),
      (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0)]
  if job['threads']:  # else they are counted with all others of this user
    limits.append((resource.RLIMIT_NPROC, job['threads']))
  filter_calls = _load_filter(bytes.fromhex(job['filter']))

  def confine():
    for what, value in limits:
      hard = resource.getrlimit(what)[1]
      if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
      # Of time, a second less: SIGXCPU comes before SIGKILL, and tells why.
      soft = value - (what == resource.RLIMIT_CPU)
      resource.setrlimit(what, (soft, value))
    filter_calls()

  return confine


def _load_filter(code):
  """A function that filters this process's system calls; b'': it does not."""
  if not code:
    return lambda: None
  import ctypes  # pylint: disable=g-import-not-at-top

  class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]

  program = Program(len(code) // 8, code)
  prctl = ctypes.CDLL(None, use_errno=True).prctl
  prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

  def install():
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0):
      raise OSError(ctypes.get_errno(), 'seccomp')

  return install


def last_line(error):
  """An exception as the last line of a traceback has it."""
  return f'{type(error).__name__}: {error}'[:_LINE]


def _describe(error):
  return {'error': [type(error).__name__, last_line(error)]}


def script(job, channel, confine):
  """Runs a program for each input: its status, what it printed, its error."""
  for name in job['modules']:  # once, not for each input
    __import__(name)
  channel.send({'ready': True})
  while (message := channel.receive()) is not None:
    files = [_file(message['stdin'].encode('utf-8', 'surrogateescape')),
             _file(), _file()]
    child = os.fork()
    if not child:
      channel.close()
      for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
      _run(job, confine)
    _, status = os.waitpid(child, 0)
    output, error = (_content(file, job['output_bytes']) for file in files[1:])
    os.close(files[0])
    channel.send({'status': os.waitstatus_to_exitcode(status),
                  'output': output, 'stderr': error[-_LINE:].strip()})


def _execute(job, space):
  """Runs a program in a namespace, after what its suite puts before it.

  Two texts: a program may begin with __future__, and its lines keep their
  numbers.
  """
  for name, file in (('prelude', 'prelude.py'), ('source', 'program.py')):
    exec(compile(job[name], file, 'exec', dont_inherit=True), space)


def _file(content=b''):
  """A file without a name, whose content is to be read or written."""
  name = f'file-{os.urandom(16).hex()}'
  file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
  os.unlink(name)
  while content:
    content = content[os.write(file, content):]
  os.lseek(file, 0, os.SEEK_SET)
  return file


def _content(file, most):
  """The text of a file, which is closed."""
  with open(file, 'rb') as stream:
    stream.seek(0)
    return stream.read(most).decode('utf-8', 'surrogateescape')


def _run(job, confine):
  """Runs a script in this process, and ends it."""
  status = 1
  try:
    main = type(sys)('__main__')
    sys.modules['__main__'] = main
    sys.argv = ['program.py']
    confine()
    try:
      _execute(job, vars(main))
      status = 0
    except SystemExit as end:
      status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as error:  # pylint: disable=broad-except
      print(last_line(error), file=sys.stderr)
    try:
      _end()
    except BaseException:  # pylint: disable=broad-except
      status = 1
  finally:
    os._exit(status & 0xff)  # pylint: disable=protected-access


def _end():
  """What Python does when a script ends: waits for its threads, and so on."""
  if 'threading' in sys.modules:
    sys.modules['threading']._shutdown()  # pylint: disable=protected-access
  atexit._run_exitfuncs()  # pylint: disable=protected-access
  for stream in (sys.stdout, sys.stderr, sys.__stdout__):
    if stream is not None and not getattr(stream, 'closed', False):
      stream.flush()


def calls(job, channel, confine):
  """Loads a program and calls its functions."""
  program = type(sys)('program')
  sys.modules['program'] = program
  confine()
  channel.send({'ready': True})
  try:
    _execute(job, vars(program))
  except BaseException as error:  # pylint: disable=broad-except
    channel.send(_describe(error))
    return
  channel.send({'loaded': True})
  while (message := channel.receive()) is not None:
    try:
      function = _function(vars(program), message['name'])
      args, keywords = decode(message['args']), decode(message['keywords'])
      value = function(*args, **keywords)
      answer = {'value': encode(value)}
      if 'changed' in message:
        answer['changed'] = encode(
            _changed(message, [*args, *keywords.values()]))
    except BaseException as error:  # pylint: disable=broad-except
      answer = _describe(error)
    channel.send(answer)


def _changed(message, given):
  """The arguments of a call that are no longer what was sent: {number: value}.
  """
  sent = message['args'] + [
      value for _, value in message['keywords']['dict']]
  return {number: value for number, value in enumerate(given)
          if isinstance(value, (list, dict, set))
          and encode(value) != sent[number]}


def _change(old, new):
  """Makes an argument what it has become where it was called."""
  if isinstance(old, list) and isinstance(new, list):
    old[:] = new
  elif isinstance(old, dict) and isinstance(new, dict) or (
      isinstance(old, set) and isinstance(new, set)):
    old.clear()
    old.update(new)


def _function(program, name):
  """The method of a program's class Solution, or a function of its own."""
  if hasattr(program.get('Solution'), name):
    return getattr(program['Solution'](), name)
  if name not in program:
    raise NameError(f'the program does not define {name!r}')
  return program[name]


class FromProgram(Exception):
  """What a program has raised, where tests do not see its own kind."""


def tests(job, channel, confine):
  """Runs a suite's tests on functions that are elsewhere."""
  raised = []

  def proxy(name):
    def call(*args, **keywords):
      channel.send({'call': {'name': name, 'args': encode(list(args)),
                             'keywords': encode(keywords), 'changed': True}})
      answer = channel.receive()
      if answer is None:
        raise SystemExit
      if 'error' in answer:
        kind, line = answer['error']
        known = getattr(builtins, kind, None)
        if not (isinstance(known, type) and issubclass(known, Exception)
                and not issubclass(known, _NOT_RAISED)):
          known = FromProgram
        raised.append(known(line))
        raise raised[-1]
      try:
        value, changed = map(
            decode, (answer.get('value'), answer.get('changed')))
        if not isinstance(changed, dict):
          raise Unreadable('a reply without arguments')
      except Unreadable as problem:
        raised.append(problem)
        raise
      for number, old in enumerate((*args, *keywords.values())):
        if number in changed:
          _change(old, changed[number])
      return value
    call.__name__ = name
    return call

  confine()
  channel.send({'ready': True})
  space = {'__name__': 'tests'}
  try:
    exec(compile(job['setup'], 'setup.py', 'exec'), space)
    for name in set(job['open']).difference(space):
      space[name] = (
          __import__(name) if name in job['modules'] else proxy(name))
    space.update({name: proxy(name) for name in job['names']})
    exec(compile(job['source'], 'tests.py', 'exec'), space)
    channel.send({'passed': True})
  except Exception as error:  # pylint: disable=broad-except
    channel.send(_describe(error) | {
        'program': any(error is each for each in raised)})


def main():
  builtins.exit = builtins.quit = sys.exit  # which `site` would define
  channel = Channel()
  job = channel.receive()
  if job is None:
    return
  confine = load_fence(job)
  sys.dont_write_bytecode = True
  {'script': script, 'calls': calls, 'tests': tests}[job['kind']](
      job, channel, confine)


if __name__ == '__main__':
  main()
