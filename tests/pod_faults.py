"""What faults do to a run of two processes or in a bucket, as a table.

    python tests/pod_faults.py [WORD ...]   # those whose names contain a word

The runs are those of faults.py. Two processes are of `launch/local.sh`. The
bucket is in s3://, whose server is in this process: `pip install s3fs
'moto[server]'`. Another machine is this one under another name, so that nobody
knows which of its processes live: `unshare`, as root. The seconds are those
from the fault to the end of the last process.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import faults
from r1jax import buckets

OF_PROCESSES, IN_A_BUCKET = {}, {}
HANG_SECONDS = 5
# And what jax says of a process that is gone, without the stacks that follow.
_OURS = re.compile(r'^(error|stopped|warning)|leader task.*died|heartbeat')


class Timed(faults.Case):
  """A run whose end after the fault is noted.

  Attributes:
    since: when the fault was; None if that is not known.
    ended: its status, or that of each process, and the seconds since then.
  """
  since: float | None = None
  ended: tuple[str, str] | None = None

  def note(self, status: str) -> None:
    """Notes the end, unless it is that of the run that goes on."""
    seconds = self.since and time.monotonic() - self.since
    self.ended = self.ended or (status, f'{seconds:.0f}' if seconds else '')


class Hosts(Timed):
  """A run of two processes."""

  def __init__(self, folder: pathlib.Path, cache: pathlib.Path):
    super().__init__(folder, cache)
    self.environment |= {'PYTHON': sys.executable, 'DEVICES': '2',
                         'PATIENCE': '60'}

  def command(self, *flags: str, workdir: str | None = None) -> list[str]:
    return ['launch/local.sh', '--processes=2',
            *super().command(*flags, workdir=workdir)[3:]]

  def end(self, process: subprocess.Popen) -> faults.Done:
    done = super().end(process)
    launched = re.compile(r'launch: process (\d) has ended with status (\d+)')
    codes = dict(found.groups() for found in map(launched.match, done.said)
                 if found)
    self.note(', '.join(codes.get(n, '0') for n in '01'))
    return done._replace(said=list(dict.fromkeys(
        re.sub(r'^.*absl::Status: ', 'jax: ', line)
        for line in done.said if _OURS.search(line))))

  def hurt(self, index: int, number: int, *flags: str) -> faults.Done:
    """The run, of which one process gets a signal."""
    local = self.start(*flags)
    self.wait_until(lambda: self.rows() >= faults.KILLED, local)
    pid = child(local.pid, index)
    self.since = time.monotonic()
    os.kill(pid, number)
    return self.end(local)


def child(pid: int, index: int) -> int:
  """The process of this number that a local.sh has started."""
  mine = f'JAX_PROCESS_ID={index}'.encode()
  children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text('utf-8')
  return next(int(each) for each in children.split()
              if mine in pathlib.Path(f'/proc/{each}/environ').read_bytes()
              and b'r1jax.main' in
              pathlib.Path(f'/proc/{each}/cmdline').read_bytes())


class InBucket(Timed):
  """A run in a bucket, whose server can be stopped."""

  def __init__(self, folder: pathlib.Path, cache: pathlib.Path):
    super().__init__(folder, cache)
    import moto.server  # not needed by the other table
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    self.server = moto.server.ThreadedMotoServer('127.0.0.1', port, False)
    self.server.start()
    self.environment |= {
        'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
        'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b',
        'AWS_DEFAULT_REGION': 'us-east-1',
        'PYTHONPATH': os.pathsep.join([
            str(faults.ROOT), os.environ.get('PYTHONPATH', '')])}
    self.url = f's3://{folder.name}/run'
    subprocess.run(
        [sys.executable, '-c',
         f'import s3fs; s3fs.S3FileSystem().mkdir({folder.name!r})'],
        check=True, env=self.environment)
    self.go_to('one')

  def go_to(self, machine: str) -> None:
    """The next run is of another machine."""
    self.machine, cache = machine, self.folder / machine
    self.environment['R1JAX_CACHE'] = str(cache)
    self.workdir = cache / 'runs' / buckets.place('runs', self.url).name

  def command(self, *flags: str, workdir: str | None = None) -> list[str]:
    name = ['unshare', '--uts', 'sh', '-c', 'hostname $0; exec "$@"',
            self.machine]
    return name + super().command(*flags, workdir=workdir or self.url)

  def end(self, process: subprocess.Popen) -> faults.Done:
    done = super().end(process)
    self.note(str(done.status))
    return done

  def begun(self) -> subprocess.Popen:
    """The run on machine one, after some steps; the fault comes now."""
    process = self.start()
    self.wait_until(lambda: self.rows() >= faults.KILLED, process)
    self.since = time.monotonic()
    return process


@faults.fault(OF_PROCESSES, 'kill -9 of process 1')
def _(case: Hosts) -> faults.Result:
  return case.hurt(1, signal.SIGKILL), None


@faults.fault(OF_PROCESSES, 'kill -9 of process 0')
def _(case: Hosts) -> faults.Result:
  return case.hurt(0, signal.SIGKILL), None


@faults.fault(OF_PROCESSES, 'SIGTERM to process 1')
def _(case: Hosts) -> faults.Result:
  return case.hurt(1, signal.SIGTERM), None


@faults.fault(OF_PROCESSES, f'SIGSTOP of process 1, --config.hang_seconds='
              f'{HANG_SECONDS}')
def _(case: Hosts) -> faults.Result:
  case.environment['PATIENCE'] = '1'  # it cannot end by itself
  return case.hurt(
      1, signal.SIGSTOP, f'--config.hang_seconds={HANG_SECONDS}'), None


@faults.fault(OF_PROCESSES, 'the disk is full')
def _(case: Hosts) -> faults.Result:
  return faults.FRESH['the disk is full'](case)


@faults.fault(IN_A_BUCKET, 'the bucket is gone')
def _(case: InBucket) -> faults.Result:
  process = case.begun()
  case.server.stop()
  return case.end(process), case.server.start


@faults.fault(IN_A_BUCKET, 'kill -9, then begun on another machine')
def _(case: InBucket) -> faults.Result:
  process = case.begun()
  process.kill()
  process.communicate()
  case.go_to('two')
  case.since = time.monotonic()
  return case.run(), None


@faults.fault(IN_A_BUCKET, 'another machine works there')
def _(case: InBucket) -> faults.Result:
  process = case.begun()
  case.go_to('two')
  other = case.start()
  while other.poll() is None:  # slowly: it may not end before the other looks
    for number, seconds in ((signal.SIGSTOP, 3), (signal.SIGCONT, .2)):
      process.send_signal(number)
      time.sleep(seconds)
  done = case.end(other)
  process.communicate()
  return done, lambda: case.go_to('one')


def main(words: list[str]) -> None:
  with tempfile.TemporaryDirectory() as temporary:
    place = pathlib.Path(temporary)
    print('| fault | what is said | status | seconds | checkpoints kept | '
          'resumed as if undisturbed |\n| --- | --- | --- | --- | --- | --- |',
          flush=True)
    for kind, table in ((Hosts, OF_PROCESSES), (InBucket, IN_A_BUCKET)):
      chosen = {name: disturb for name, disturb in table.items()
                if not words or any(word in name for word in words)}
      whole = None
      for name, disturb in chosen.items():
        if whole is None:  # an undisturbed run of as many processes
          (place / kind.__name__).mkdir()
          undisturbed = (Hosts if kind is Hosts else faults.Case)(
              place / kind.__name__, place / 'cache')
          undisturbed.write_data()
          done = undisturbed.run()
          if done.status:
            sys.exit('\n'.join(done.said))
          whole = undisturbed.left()
        folder = place / f'{kind.__name__.lower()}{len(list(place.iterdir()))}'
        folder.mkdir()
        case = kind(folder, place / 'cache')
        name, said, _, *rest = faults.cells(name, disturb, case, False, whole)
        print(f'| {" | ".join([name, said, *case.ended, *rest])} |', flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
