"""Programs for the PATH that pose as a cloud's and a cluster's, and note calls.

gcloud reaches a slice of two hosts, each a home folder of this machine. What
ssh sends to a host is run there by bash, so that quoting and order are tried,
too. What happens, and when, stands in files that `Cluster` writes.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

HOSTS = (0, 1)


class Cluster:
  """A folder with programs, what they find and what they are asked for."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.path = f'{folder / "bin"}:{os.environ["PATH"]}'  # for the tested

  def install(self, *names: str) -> None:
    """Puts programs called `names` where `path` finds them first."""
    (self.folder / 'bin').mkdir(exist_ok=True)
    for name in names:
      program = self.folder / 'bin' / name
      program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} '
                         f'{self.folder} {name} "$@"\n')
      program.chmod(0o755)

  def set(self, **values) -> None:
    """What the programs find.

    states: what the next looks at the request say; the last one stays. None:
      there is no request.
    created: the states that the next requests go through, for each a list.
    node: the state of the slice's node.
    runs: what the next runs do, each an exit status and the states after it.
    lost: hosts that cannot be reached.
    fault: what every look ends with instead.
    NAME: the exit status of another program.
    """
    for name, value in values.items():
      (self.folder / f'{name}.json').write_text(json.dumps(value))

  def get(self, name: str, default=None):
    """A value that was set."""
    path = self.folder / f'{name}.json'
    return json.loads(path.read_text()) if path.exists() else default

  def take(self, name: str):
    """The first of the values; all but the last are used up."""
    first, *rest = self.get(name)
    if rest:
      self.set(**{name: rest})
    return first

  def calls(self, name: str) -> list[list[str]]:
    """The arguments of each call of a program, in order."""
    path = self.folder / f'{name}.calls'
    return [json.loads(line) for line in path.read_text().splitlines()
            ] if path.exists() else []

  def home(self, host: int) -> pathlib.Path:
    """The home folder of a host; a new slice has new hosts."""
    return self.folder / f'host{host}'

  def verbs(self) -> list[str]:
    """What gcloud was asked to do: create, scp, ssh, ...; without looks."""
    verbs = [call[3] for call in self.calls('gcloud')]
    return [verb for verb in verbs if verb != 'describe']


def _gcloud(cluster, args):
  kind, verb = args[2:4]
  if verb == 'describe':
    return _describe(cluster, kind, args)
  if verb == 'create':
    cluster.set(states=cluster.take('created'), node='READY')
    for host in HOSTS:
      shutil.rmtree(cluster.home(host), ignore_errors=True)
  elif verb == 'delete':
    cluster.set(states=[None])
  else:
    reach = {'scp': _scp, 'ssh': _ssh}[verb](cluster, args)
    return next(filter(None, [
        255 if host in cluster.get('lost', ()) else reach(cluster.home(host))
        for host in HOSTS]), 0)
  return 0


def _describe(cluster, kind, args):
  state = cluster.get('node') if kind == 'tpu-vm' else cluster.take('states')
  if fault := cluster.get('fault'):
    print(f'ERROR: {fault}', file=sys.stderr)
    return 1
  if state is None:
    print(f'ERROR: NOT_FOUND: no {args[4]}', file=sys.stderr)
    return 1
  print('there is no more of it' if 'error.message' in args[-1] else state)
  return 0


def _scp(cluster, args):
  del cluster

  def reach(home):
    home.mkdir(exist_ok=True)
    shutil.copy(args[4], home)
    return 0

  return reach


def _ssh(cluster, args):
  [command] = [arg.removeprefix('--command=') for arg in args
               if arg.startswith('--command=')]
  status, *states = cluster.take('runs') if 'r1jax.main' in command else [0]
  if states:
    cluster.set(states=states)

  def reach(home):
    return status or subprocess.run(
        ['bash', '-c', command], cwd=home, check=False,
        env=os.environ | {'HOME': str(home)}).returncode

  return reach


def _uv(cluster, args):
  """uv venv makes an interpreter that notes what it is asked to run."""
  del cluster
  if args[0] == 'venv':
    python = pathlib.Path(args[-1]) / 'bin/python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\npwd >"$HOME/ran"\n'
                      'printf "%s\\n" "$@" >>"$HOME/ran"\n')
    python.chmod(0o755)
  return 0


def _main(folder, name, *args):
  cluster = Cluster(pathlib.Path(folder))
  with (cluster.folder / f'{name}.calls').open('a', encoding='utf-8') as file:
    file.write(json.dumps(args) + '\n')
  known = {'gcloud': _gcloud, 'uv': _uv}.get(name)
  return known(cluster, args) if known else cluster.get(name, 0)


if __name__ == '__main__':
  sys.exit(_main(*sys.argv[1:]))
