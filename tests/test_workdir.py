"""A workdir is tried before anything is imported, and nothing is left there."""

import errno
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import types

import pytest

from r1jax import errors
from r1jax import flags
from r1jax import main
from r1jax import workdir
from r1jax.training import lock

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(name='places')
def _places(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'broken').symlink_to('nowhere/at/all')
  (tmp_path / 'loop').symlink_to('loop')
  (tmp_path / 'there').mkdir()
  (tmp_path / 'link').symlink_to('there')
  return tmp_path


@pytest.mark.parametrize('name, said', [
    ('file', 'file: not a directory'),
    ('file/below/it', 'it: Not a directory'),
    ('broken', 'broken: a link to nowhere/at/all, which is not there'),
    ('broken/below', '/broken: a link to nowhere/at/all, which is not there'),
    ('loop', 'loop: a link to loop, which is not there'),
    ('x' * 300, 'File name too long'),
    ('/proc/run', '/proc/run: No such file'),
    ('/sys/run', '/sys/run: '),
    ('az://bucket/run', "received 'az://bucket/run'"),
    ('~no-such-user/run', "no user 'no-such-user'"),
    ('q\udcff', r"UTF-8, also of a path, received b'/"),
])
def test_what_cannot_be_written_is_refused_with_its_path(places, name, said):
  path = name if ':' in name or '~' in name else str(places / name)
  with pytest.raises(errors.ConfigError, match='^--workdir: ') as caught:
    workdir.check(path)
  assert said in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['there', 'link', 'new', 'there/a/b/c'])
def test_what_can_be_written_is_left_as_it_was(places, name):
  before = sorted(places.rglob('*'))
  assert workdir.check(str(places / name)) == str(places / name)
  assert sorted(places.rglob('*')) == before


def test_a_home_directory_is_what_it_stands_for(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert workdir.check('~/run') == f'{tmp_path}/run'
  flag = types.SimpleNamespace(value='~/run')
  monkeypatch.setattr(main, '_WORKDIR', flag)
  assert main._workdir({}) == f'{tmp_path}/run'
  assert workdir.expanded('~root/x', '--out') == os.path.expanduser('~root/x')
  assert workdir.expanded('./~x', '--out') == './~x'


def test_a_current_directory_that_is_no_text_is_refused(tmp_path, monkeypatch):
  os.mkdir(tmp_path / 'q\udcff')
  monkeypatch.chdir(tmp_path / 'q\udcff')
  with pytest.raises(errors.ConfigError, match=r'^--workdir: .*q.xff/run'):
    workdir.check('run')


@pytest.mark.parametrize('args', [
    ['--config.data.task=\udcff'], ['--config.data.task', 'jsonl:a\udcff'],
    ['--workdir=run', '--config.data.task=\udcff', '--help']])
def test_what_is_no_text_is_refused_before_a_config_is_made(
    capsys, monkeypatch, args):
  monkeypatch.setattr(flags, 'parse', None)
  with pytest.raises(SystemExit, match='2'):
    main.parse(['main', '--config=a.py', *args])
  line, = capsys.readouterr().err.splitlines()
  assert line.startswith('error: --config.data.task: expected text in UTF-8')


def _main(*args, **more):
  return subprocess.run(
      [sys.executable, '-X', 'importtime', '-m', 'r1jax.main', *args], cwd=ROOT,
      text=True, capture_output=True, check=False, **more)


def _lines(done):
  """(lines of a command's own, modules that it has imported)."""
  lines = done.stderr.splitlines()
  imported = [line for line in lines if line.startswith('import time:')]
  return ([line for line in lines if line not in imported],
          {line.split()[-1] for line in imported})


@pytest.mark.parametrize('config', ['r1_zero.py:mini', 'r1.py:mini'])
def test_a_command_tries_it_before_it_imports_jax(tmp_path, config):
  (tmp_path / 'file').write_text('')
  done = _main(f'--config=experiments/{config}', f'--workdir={tmp_path}/file')
  said, imported = _lines(done)
  assert done.returncode == 2 and not done.stdout
  assert said == ['error: --workdir: expected a directory that can be written, '
                  f'received {tmp_path}/file: not a directory']
  assert not imported & {'jax', 'numpy', 'tensorflow', 'experiments.common'}


@pytest.mark.parametrize('number, error', [
    (errno.ENOSPC, errors.RunError), (errno.EIO, errors.RunError),
    (errno.EMFILE, errors.RunError), (errno.EACCES, errors.ConfigError),
    (errno.EROFS, errors.ConfigError), (errno.ENOTDIR, errors.ConfigError)])
def test_a_fault_of_the_machine_is_no_wrong_workdir(
    tmp_path, monkeypatch, number, error):
  def refuse(*args, **kwargs):
    raise OSError(number, os.strerror(number))
  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  monkeypatch.setattr(os, 'open', refuse)
  for use in (lambda: workdir.check(str(tmp_path)),
              lambda: lock._take(tmp_path / 'lock')):
    with pytest.raises(error, match=os.strerror(number)):
      use()


def test_a_disk_without_room_is_seen_there(tmp_path):
  """Stands for a full disk: no file may have a byte."""
  done = _main(
      '--config=experiments/r1_zero.py:mini', f'--workdir={tmp_path}/run',
      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
  said, imported = _lines(done)
  assert done.returncode == 1 and len(said) == 1 and 'jax' not in imported
  assert said[0].startswith(
      f'error: {tmp_path}/run: File too large; raise the limit')


def test_a_plan_alone_needs_no_workdir_that_can_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  done = _main('--config=experiments/r1_zero.py:mini', '--help',
               f'--workdir={tmp_path}/file')
  assert done.returncode == 0
