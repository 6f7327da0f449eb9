"""One process at a time in a workdir, whatever has become of the last one."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from r1jax import errors
from r1jax.training import lock
from r1jax.training import owners

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _owner(**changes):
  """A lock's content, of this process but for `changes`."""
  return owners.identity() | changes


def _left(workdir, owner):
  path = workdir / lock.NAME
  path.write_text(owner if isinstance(owner, str) else json.dumps(owner))
  return path


def _is_refused(workdir, words='is in use by process'):
  with pytest.raises(errors.ConfigError, match=words) as caught:
    with lock.held(workdir):
      pass
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_it_says_who_works_there_and_is_gone_after(tmp_path):
  with lock.held(tmp_path / 'run'):
    owner = json.loads((tmp_path / 'run/lock').read_text())
    assert owner['pid'] == os.getpid()
    assert abs(owner['since'] - time.time()) < 60
    said = _is_refused(tmp_path / 'run')
  assert f'process {os.getpid()} on {owner["host"]}, since 2' in said
  assert not (tmp_path / 'run').exists()  # nothing was written there
  with pytest.raises(KeyError), lock.held(tmp_path):
    raise KeyError
  assert not (tmp_path / 'lock').exists()


def test_the_folders_that_it_makes_are_on_disk(tmp_path, monkeypatch):
  synced, fsync = [], os.fsync
  monkeypatch.setattr(os, 'fsync', lambda number: (
      synced.append(os.readlink(f'/proc/self/fd/{number}')), fsync(number)))
  with lock.held(tmp_path / 'a/run'):
    assert {str(tmp_path), str(tmp_path / 'a')} <= set(synced)


@pytest.mark.parametrize('name', ['run.json', 'lock'])
def test_a_named_pipe_in_it_is_refused(tmp_path, name):
  (tmp_path / 'link').symlink_to('nowhere')
  os.mkfifo(tmp_path / name)
  _is_refused(tmp_path, f'{tmp_path}/{name} is a pipe; expected a file')
  (tmp_path / name).unlink()
  with lock.held(tmp_path):
    pass


def test_what_is_written_there_stays(tmp_path):
  with lock.held(tmp_path / 'run'):
    (tmp_path / 'run/file').write_text('')
  assert [path.name for path in (tmp_path / 'run').iterdir()] == ['file']


SLEEP = 'import time; print("ready", flush=True); time.sleep(60)'


@pytest.fixture(name='other')
def _other():
  process = subprocess.Popen(
      [sys.executable, '-c', SLEEP], stdout=subprocess.PIPE)
  assert process.stdout.readline()
  yield process
  process.kill()


def test_a_live_process_is_respected_a_dead_one_is_not(tmp_path, other, capsys):
  begun = owners._started(other.pid)
  owner = _owner(pid=other.pid, started=begun)
  _left(tmp_path, owner)
  assert f'process {other.pid} on' in _is_refused(tmp_path)
  assert json.loads((tmp_path / 'lock').read_text()) == owner
  _left(tmp_path, owner | dict(started='1'))  # its number has come again
  with lock.held(tmp_path):
    pass
  _left(tmp_path, owner)
  other.send_signal(signal.SIGKILL)
  time.sleep(.2)  # dead, and nobody has asked for its status
  with lock.held(tmp_path):
    assert json.loads((tmp_path / 'lock').read_text())['pid'] == os.getpid()
  other.wait()
  _left(tmp_path, owner)
  with lock.held(tmp_path):
    pass
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('owner', [
    dict(host='elsewhere'), dict(boot='before'), dict(processes='a container'),
    '', '{"pid": 1}', '[]', dict(pid='1'), dict(pid=None), dict(pid=10 ** 30)])
def test_a_lock_of_another_machine_is_watched_and_then_taken(
    tmp_path, monkeypatch, capsys, owner):
  monkeypatch.setattr(lock, '_WATCH_SECONDS', .6)
  _left(tmp_path, owner if isinstance(owner, str) else _owner(**owner))
  with lock.held(tmp_path):
    assert json.loads((tmp_path / 'lock').read_text())['pid'] == os.getpid()
  assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_lock_of_another_machine_that_is_renewed_is_respected(
    tmp_path, monkeypatch):
  path, ended = _left(tmp_path, _owner(host='elsewhere', pid=7)), (
      threading.Event())
  monkeypatch.setattr(lock, '_RENEW_SECONDS', .2)
  owner = json.loads(path.read_text())
  renewing = threading.Thread(target=lock._renew, args=(path, owner, ended))
  renewing.start()
  try:
    assert 'process 7 on elsewhere' in _is_refused(tmp_path)
  finally:
    ended.set()
    renewing.join()


def test_it_is_renewed_sooner_than_others_lose_patience():
  assert 2 * lock._RENEW_SECONDS < lock._WATCH_SECONDS


TAKEN = """
import pathlib, sys, time
from r1jax.training import lock
lock._RENEW_SECONDS = .1
with lock.held(pathlib.Path(sys.argv[1])):
  path = pathlib.Path(sys.argv[1]) / 'lock'
  path.write_text(path.read_text().replace('"host": "', '"host": "another-'))
  time.sleep(60)
"""


def test_who_was_taken_for_dead_and_is_not_ends(tmp_path):
  done = subprocess.run(
      [sys.executable, '-c', TAKEN, str(tmp_path)], cwd=ROOT, text=True,
      capture_output=True, check=False, timeout=50)
  assert done.returncode == 1
  assert 'was taken over by process' in done.stdout
  assert (tmp_path / 'lock').exists()


def test_of_many_that_find_a_dead_owner_one_begins(tmp_path, monkeypatch):
  lives = owners.lives
  def slowly(owner):  # so that all would find it before one takes it over
    found = lives(owner)
    time.sleep(.1)
    return found
  monkeypatch.setattr(owners, 'lives', slowly)
  _left(tmp_path, _owner(pid=2**22 + 1))
  begun, refused = [], []
  def begin():
    try:
      with lock.held(tmp_path):
        begun.append(1)
        until = time.monotonic() + 20
        while len(begun + refused) < 8 and time.monotonic() < until:
          time.sleep(.05)
    except errors.ConfigError:
      refused.append(1)
  threads = [threading.Thread(target=begin) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(begun), len(refused)) == (1, 7)


def test_a_lock_that_cannot_be_written_is_a_workdir_that_cannot(
    tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  _is_refused(tmp_path / 'file', '^--workdir: expected a directory that can be')
  monkeypatch.setattr(lock, '_WATCH_SECONDS', .6)
  (tmp_path / 'lock').mkdir()
  _is_refused(tmp_path, f'received {tmp_path}: {tmp_path}/lock: Is a directory')
