"""What faults of the machine do to a run, as a table in Markdown.

    python tests/faults.py             # all, half an hour on two cores
    python tests/faults.py NAME ...    # those whose names contain a word

Every row is a real run of `r1jax.main`: eight steps of GRPO from the shipped
base model on 16 problems in a file, with an evaluation before, in the middle
and after, in a directory of its own. It is disturbed, what it says and its exit
status are noted, the fault is repaired as the message says, and the same
command is started again. The last column compares what the run leaves with an
undisturbed run: digests of the last checkpoint's arrays, all rollouts, all
metrics but times, and the evaluations.
"""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, EVERY, KILLED = 8, 2, 5  # steps; between checkpoints; rows at the kill
FLAGS = [
    f'--config.steps={STEPS}', f'--config.checkpoint.every_steps={EVERY}',
    '--config.data.num_prompts=16', '--config.eval.split=train',
    '--config.eval.problems=8', '--config.eval.batch=4',
    '--config.eval.every_steps=4', '--config.rl.prompts=4',
    '--config.rl.group=4', '--config.rl.micro_batch=16',
    '--config.rl.response_tokens=16', '--config.rl.sample_chunk=16',
    '--config.log.tensorboard=False', '--config.optim.warmup_steps=0']
OF_THE_MACHINE = ('perf/', 'time/', 'timing/', 'verifier/restarts',
                  'restarts')


class Done(NamedTuple):
  """How a run ended."""
  status: int
  said: list[str]  # its last lines, without progress


class Case:
  """A run in a directory of its own."""

  def __init__(self, folder: pathlib.Path, cache: pathlib.Path):
    self.folder, self.workdir = folder, folder / 'run'
    self.data = folder / 'problems.jsonl'
    self.environment = os.environ | {
        'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'XLA_FLAGS': '--xla_backend_optimization_level=0',
        'PYTHONPATH': str(ROOT), 'TF_CPP_MIN_LOG_LEVEL': '3'}

  def write_data(self, first: int = 2) -> None:
    rows = [{'prompt': f'{n} + {n + 7} = ?', 'answer': str(2 * n + 7)}
            for n in range(first, first + 24)]
    self.data.write_text(''.join(json.dumps(row) + '\n' for row in rows))

  def command(self, *flags: str, workdir: str | None = None) -> list[str]:
    return [sys.executable, '-m', 'r1jax.main',
            '--config=experiments/r1_zero.py:mini',
            f'--workdir={workdir or self.workdir}',
            f'--config.data.task=jsonl:{self.data}', *FLAGS, *flags]

  def start(self, *flags: str, workdir: str | None = None, **options
           ) -> subprocess.Popen:
    """Starts the run; `options` are those of Popen."""
    return subprocess.Popen(
        self.command(*flags, workdir=workdir), cwd=ROOT, text=True, **{
            'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE,
            'env': self.environment, **options})

  def run(self, *flags: str, workdir: str | None = None, **options) -> Done:
    return self.end(self.start(*flags, workdir=workdir, **options))

  def end(self, process: subprocess.Popen) -> Done:
    out, err = process.communicate()
    ours = [re.sub(r'^W\d{4} .*?\] ', 'warning: ', line)
            for line in re.sub(r'(?m)^\[\d\] ', '',  # of a further process
                               f'{out or ""}\n{err or ""}').splitlines()
            if line.strip() and not line.startswith(('step ', 'steps '))
            and 'normalizer.cc' not in line
            and not re.match(r'[IWE]0000 |I\d{4} |WARNING: All log', line)]
    return Done(process.returncode, ours)

  def rows(self) -> int:
    """The steps in metrics.jsonl."""
    with contextlib.suppress(FileNotFoundError):
      return (self.workdir / 'metrics.jsonl').read_bytes().count(b'\n')
    return 0

  def wait_until(self, holds: Callable[[], bool], process) -> None:
    while not holds():
      if process.poll() is not None:
        raise RuntimeError(f'ended too soon: {self.end(process)}')
      time.sleep(.002)

  def signalled(self, holds: Callable[[], bool], *numbers: int, **options
               ) -> Done:
    """A run that gets signals, a second apart, from when `holds` does."""
    process = self.start(**options)
    self.wait_until(holds, process)
    for number in numbers:
      process.send_signal(number)
      time.sleep(1)
    return self.end(process)

  def left(self) -> dict:
    """What the run has computed, to compare with another."""
    last = max(self.checkpoints(), default=None)
    rows = [json.loads(line) for line in (
        self.workdir / 'metrics.jsonl').read_text().splitlines()]
    return {
        'checkpoint': last and json.loads((
            self.workdir / f'checkpoints/{last}/manifest/metadata').read_text()
                                         )['leaves'],
        'rollouts': (self.workdir / 'rollouts.jsonl').read_bytes(),
        'metrics': list(map(_computed, rows)),
        **{f'evaluation {when}': self.evaluation(when)
           for when in ('before', 'after')}}

  def evaluation(self, when: str) -> dict | None:
    path = self.workdir / f'evaluation_{when}.json'
    return _computed(json.loads(path.read_text())) if path.exists() else None

  def checkpoints(self) -> list[int]:
    return [int(path.name) for path in self.workdir.glob('checkpoints/*')
            if path.name.isdigit()]


def _computed(figures: dict) -> dict:
  """The figures that are the same on every machine."""
  return {name: _computed(value) if isinstance(value, dict) else value
          for name, value in figures.items()
          if not name.startswith(OF_THE_MACHINE)}


def _edit(path: pathlib.Path, change: Callable[[bytes], bytes]) -> None:
  path.write_bytes(change(path.read_bytes()))


def _half(path: pathlib.Path) -> Callable[[], None]:
  """Cuts a file in half; returns what repairs it."""
  whole = path.read_bytes()
  path.write_bytes(whole[:len(whole) // 2])
  return lambda: path.write_bytes(whole)


def _without_lines(path: pathlib.Path, first: int, last: int
                  ) -> Callable[[], None]:
  whole = path.read_bytes()
  lines = whole.splitlines(keepends=True)
  path.write_bytes(b''.join(lines[:first] + lines[last:]))
  return lambda: path.write_bytes(whole)


def _damaged(checkpoint: pathlib.Path) -> None:
  """Cuts every large file of a checkpoint."""
  for path in checkpoint.rglob('*'):
    if path.is_file() and path.stat().st_size > 4096:
      _edit(path, lambda data: data[:len(data) // 2])


def _owner(lock: pathlib.Path) -> int | None:
  """The process whose lock it is; none while it is taken over."""
  with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
    return json.loads(lock.read_text())['pid']
  return None


def _workers(pid: int) -> list[int]:
  """The processes that a run has started to verify answers."""
  found = []
  for task in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
    with contextlib.suppress(OSError):
      found += [int(child) for child in task.read_text().split() if (
          b'rewards.sandbox' in pathlib.Path(
              f'/proc/{child}/cmdline').read_bytes())]
  return found


# Each fault takes a case and returns how the run ended, and the repair. The
# case of a fault `at rest` was killed by SIGKILL between two checkpoints.
Result = tuple[Done, Callable[[], None] | None]
FRESH, AT_REST = {}, {}


def fault(table: dict, name: str):
  return lambda function: table.setdefault(name, function)


@fault(FRESH, 'kill -9 in a step')
def _(case: Case) -> Result:
  return case.signalled(lambda: case.rows() >= KILLED, signal.SIGKILL), None


@fault(FRESH, 'SIGTERM in a step')
def _(case: Case) -> Result:
  return case.signalled(lambda: case.rows() >= KILLED, signal.SIGTERM), None


@fault(FRESH, 'SIGHUP in a step')
def _(case: Case) -> Result:
  return case.signalled(lambda: case.rows() >= KILLED, signal.SIGHUP), None


@fault(FRESH, 'Ctrl-C while it is imported')
def _(case: Case) -> Result:
  begun = time.monotonic()
  return case.signalled(
      lambda: time.monotonic() > begun + 1, signal.SIGINT), None


@fault(FRESH, 'SIGTERM in the evaluation before')
def _(case: Case) -> Result:
  return case.signalled((case.workdir / 'config.json').exists,
                        signal.SIGTERM), None


@fault(FRESH, 'Ctrl-C twice')
def _(case: Case) -> Result:
  return case.signalled((case.workdir / 'config.json').exists,
                        signal.SIGINT, signal.SIGINT), None


@fault(FRESH, 'a verifier is killed')
def _(case: Case) -> Result:
  process = case.start()
  case.wait_until(lambda: _workers(process.pid), process)
  os.kill(_workers(process.pid)[0], signal.SIGKILL)
  return case.end(process), None


@fault(FRESH, 'stdout is closed (a dead tee)')
def _(case: Case) -> Result:
  process = case.start()
  process.stdout.close()
  process.stderr.close()
  process.stdout = process.stderr = None
  return case.end(process), None


@fault(FRESH, 'stdout on a full disk')
def _(case: Case) -> Result:
  with open('/dev/full', 'w', encoding='utf-8') as full:
    return case.run(stdout=full), None


@fault(FRESH, 'an output that is not UTF-8')
def _(case: Case) -> Result:
  return case.run(env=case.environment | {
      'PYTHONIOENCODING': 'ascii', 'PYTHONUTF8': '0', 'LC_ALL': 'C'}), None


@fault(FRESH, 'the disk is full')
def _(case: Case) -> Result:
  case.workdir.mkdir()
  mounted = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', case.workdir],
      check=False, capture_output=True).returncode == 0
  if mounted:
    return case.run(), lambda: subprocess.run(
        ['mount', '-o', 'remount,size=1g', case.workdir], check=True)
  limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
  return case.run(preexec_fn=limit), None


@fault(FRESH, 'out of memory')
def _(case: Case) -> Result:
  process = case.start('--config.eval.batch=131072')
  case.wait_until((case.workdir / 'config.json').exists, process)
  pages = int(pathlib.Path(f'/proc/{process.pid}/statm').read_text().split()[0])
  limit = pages * resource.getpagesize() + (3 << 30)
  resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
  return case.end(process), None


@fault(FRESH, 'JAX_PLATFORMS=cuda without a GPU')
def _(case: Case) -> Result:
  return case.run(env=case.environment | {'JAX_PLATFORMS': 'cuda'}), None


@fault(FRESH, 'JAX_ENABLE_X64=1')
def _(case: Case) -> Result:
  return case.run(env=case.environment | {'JAX_ENABLE_X64': '1'}), None


@fault(FRESH, 'the workdir is a file')
def _(case: Case) -> Result:
  case.workdir.write_text('')
  return case.run(), case.workdir.unlink


@fault(FRESH, 'the workdir is a broken link')
def _(case: Case) -> Result:
  case.workdir.symlink_to(case.folder / 'gone' / 'far')
  return case.run(), case.workdir.unlink


@fault(FRESH, 'the workdir cannot be written')
def _(case: Case) -> Result:
  return case.run(workdir='/proc/run'), None


@fault(AT_REST, 'another process has the workdir')
def _(case: Case) -> Result:
  other = case.start()
  case.wait_until(lambda: _owner(case.workdir / 'lock') == other.pid, other)
  other.send_signal(signal.SIGSTOP)  # it may not end before the other looks
  done = case.run()
  other.send_signal(signal.SIGCONT)
  return done, lambda: case.end(other)


for _name in ('config.json', 'seconds.json', 'evaluation_before.json',
              'run.json'):
  @fault(AT_REST, f'{_name} is half written')
  def _(case: Case, name=_name) -> Result:
    repair = _half(case.workdir / name)
    return case.run(), repair


@fault(AT_REST, 'config.json is gone, another --config is given')
def _(case: Case) -> Result:
  (case.workdir / 'config.json').unlink()
  return case.run('--config.optim.lr=1e-6'), None


@fault(AT_REST, 'evaluation_before.json is gone')
def _(case: Case) -> Result:
  (case.workdir / 'evaluation_before.json').unlink()
  return case.run(), None


@fault(AT_REST, 'rows of metrics.jsonl are gone')
def _(case: Case) -> Result:
  repair = _without_lines(case.workdir / 'metrics.jsonl', 1, 3)
  done = case.run()
  return done, repair if done.status else None


@fault(AT_REST, 'rows of rollouts.jsonl are gone')
def _(case: Case) -> Result:
  repair = _without_lines(case.workdir / 'rollouts.jsonl', 3, 20)
  done = case.run()
  return done, repair if done.status else None


@fault(AT_REST, 'a bad line in metrics.jsonl')
def _(case: Case) -> Result:
  path = case.workdir / 'metrics.jsonl'
  whole = path.read_bytes()
  path.write_bytes(b'x' + whole[1:])
  done = case.run()
  return done, (lambda: path.write_bytes(whole)) if done.status else None


@fault(AT_REST, 'the last checkpoint is damaged')
def _(case: Case) -> Result:
  _damaged(case.workdir / f'checkpoints/{max(case.checkpoints())}')
  return case.run(), None


@fault(AT_REST, 'all checkpoints are damaged')
def _(case: Case) -> Result:
  copy = shutil.copytree(case.workdir / 'checkpoints', case.folder / 'copy')
  for step in case.checkpoints():
    _damaged(case.workdir / f'checkpoints/{step}')

  def restore():
    shutil.rmtree(case.workdir / 'checkpoints')
    copy.rename(case.workdir / 'checkpoints')
  return case.run(), restore


@fault(AT_REST, 'a checkpoint has another name')
def _(case: Case) -> Result:
  last = max(case.checkpoints())
  folder = case.workdir / 'checkpoints'
  (folder / str(last)).rename(folder / str(last + 2))
  return case.run(), None


@fault(AT_REST, 'the data file is another')
def _(case: Case) -> Result:
  case.write_data(first=50)
  return case.run(), case.write_data


@fault(AT_REST, 'one core in place of two')
def _(case: Case) -> Result:
  core = min(os.sched_getaffinity(0))
  return case.run(preexec_fn=lambda: os.sched_setaffinity(0, {core})), None


def cells(name: str, disturb: Callable[[Case], Result], case: Case,
          at_rest: bool, whole: dict) -> list[str]:
  """The cells of a fault in the table."""
  case.write_data()
  if at_rest:
    case.signalled(lambda: case.rows() >= KILLED, signal.SIGKILL)
  done, repair = disturb(case)
  kept = sorted(case.checkpoints()) if case.workdir.is_dir() else []
  if repair:
    repair()
  again = case.run() if done.status or repair else done
  same = 'no'
  if again.status:
    same = f'status {again.status}: {again.said[-1:]}'
  else:
    left = case.left()
    other = [part for part in whole if left[part] != whole[part]]
    same = f'all but {", ".join(other)}' if other else 'yes'
  subprocess.run(['umount', '-q', case.workdir], check=False,
                 capture_output=True)
  problem = [line for line in done.said if not done.status or line.startswith(
      ('error', 'stopped', 'warning'))] or done.said
  said = ' / '.join(problem[-2:] if done.status else [
      line for line in problem if 'warning' in line]) or 'nothing'
  said = said.replace(str(case.folder), '').replace('|', '\\|')
  return [name, f'{said} ({len(done.said)} lines)', f'{done.status}',
          ', '.join(map(str, kept)) or 'none', same]


def main(words: list[str]) -> None:
  for number in (signal.SIGHUP, signal.SIGINT):  # also under nohup
    signal.signal(number, signal.SIG_DFL)
  with tempfile.TemporaryDirectory() as temporary:
    place = pathlib.Path(temporary)
    cache = place / 'cache'
    (place / 'whole').mkdir()
    undisturbed = Case(place / 'whole', cache)
    undisturbed.write_data()
    done = undisturbed.run()
    if done.status:
      sys.exit('\n'.join(done.said))
    whole = undisturbed.left()
    print('| fault | what is said | status | checkpoints kept | resumed as if '
          'undisturbed |\n| --- | --- | --- | --- | --- |', flush=True)
    for at_rest, table in ((False, FRESH), (True, AT_REST)):
      for number, (name, disturb) in enumerate(table.items()):
        if words and not any(word in name for word in words):
          continue
        folder = place / f'{"rest" if at_rest else "fresh"}{number}'
        folder.mkdir()
        case = Case(folder, cache)
        print(f'| {" | ".join(cells(name, disturb, case, at_rest, whole))} |',
              flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
