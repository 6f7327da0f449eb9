"""Workdirs in stores of Amazon's and Google's protocols, on this machine.

moto answers as S3 does, in this process; that of gs:// is support/gs_server.py,
and slow. Where the packages are not installed these tests are skipped.
"""

import os
import pathlib
import subprocess
import sys
import time

import faults
import gs_server
import pytest

from r1jax import buckets
from r1jax import errors
from r1jax import objects
from r1jax import workdir
from r1jax.training import files
from r1jax.training import lease
from r1jax.training import mirror

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(name='s3', scope='module')
def _s3():
  """The endpoint of a server of S3's protocol."""
  pytest.importorskip('s3fs')
  server = pytest.importorskip('moto.server').ThreadedMotoServer(
      ip_address='127.0.0.1', port=0, verbose=False)
  server.start()
  yield 'http://{}:{}'.format(*server.get_host_and_port())
  server.stop()


@pytest.fixture(name='url', params=[
    's3', pytest.param('gs', marks=pytest.mark.slow)])
def _url(request, monkeypatch, tmp_path):
  """A workdir in an empty bucket of a store."""
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(objects, '_WAITS', (.1,))
  monkeypatch.setattr(lease, '_WATCH_SECONDS', 1.)
  monkeypatch.setattr(lease, '_SETTLE_SECONDS', .1)
  buckets._model.cache_clear()
  if request.param == 'gs':
    with gs_server.running(monkeypatch):
      yield 'gs://bucket/a/run'
    return
  for name, value in {
      'AWS_ENDPOINT_URL': request.getfixturevalue('s3'),
      'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b',
      'AWS_DEFAULT_REGION': 'us-east-1'}.items():
    monkeypatch.setenv(name, value)
  package = pytest.importorskip('s3fs').S3FileSystem
  package.clear_instance_cache()
  bucket = f'bucket-{time.time_ns()}'
  package().mkdir(bucket)
  yield f's3://{bucket}/a/run'
  package.clear_instance_cache()


def test_objects_are_listed_read_written_and_removed(url, tmp_path):
  folder = objects.Folder(url)
  assert folder.list() == {} and folder.read('a') is None
  folder.remove('a')
  folder.write('a', b'one')
  objects.Folder(f'{url}2').write('a', b'beside it')
  folder.write('b/c d/ü', b'')
  before = folder.list()
  assert before.keys() == {'a', 'b/c d/ü'} and before['a'].size == 3
  assert folder.list(deep=False).keys() == {'a'}
  folder.write('a', b'two')
  assert folder.list()['a'].version != before['a'].version
  assert folder.read('a') == b'two' and folder.read('b/c d/ü') == b''
  large = tmp_path / 'large'
  large.write_bytes(os.urandom(objects.BLOCK + 1))
  folder.put(large, 'large')
  folder.get('large', tmp_path / 'below/copy')
  assert (tmp_path / 'below/copy').read_bytes() == large.read_bytes()
  folder.remove('large')
  assert objects.Folder(f'{url}/a').list().keys() == {''}
  assert workdir.check(url) == url
  assert folder.list().keys() == before.keys()


def test_one_of_several_creates_an_object(url):
  made = []
  objects.together(lambda n: made.append(
      objects.Folder(url).create('lock', str(n).encode())), range(8))
  assert sorted(made) == [False] * 7 + [True]


def test_a_bucket_that_is_not_there_is_a_line(url):
  url = url.replace('bucket', 'no-bucket')
  with pytest.raises(errors.ConfigError, match='^--workdir: ') as caught:
    workdir.check(url)
  assert f'{url} cannot be written: FileNotFoundError' in str(caught.value)
  assert '\n' not in str(caught.value)


def _path():
  return os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])


KILLED = """
import pathlib, shutil, sys, time
from r1jax.training import files, mirror
with mirror.mirrored(sys.argv[1]) as folder:
  rows, saved = (pathlib.Path(folder, x) for x in ('rollouts.jsonl',
                                                   'checkpoints'))
  start = max(files.saved_steps(saved), default=-1) + 1
  files.truncate_rows(rows, start)
  for step in range(start, 10000):
    files.append_rows(rows, [{'step': step}])
    for name in 'abc':
      path = saved / f'{step}.tmp' / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(str(step))
    (saved / f'{step}.tmp').rename(saved / str(step))
    if step > 1:
      shutil.rmtree(saved / str(step - 2), ignore_errors=True)
    mirror.begin()
    if step % 3 == 2:
      mirror.settle()
      print(step, file=sys.stderr, flush=True)
"""


def test_of_a_process_that_is_killed_its_last_checkpoint_is_whole(
    url, tmp_path):
  steps = [-1]
  for number, (lines, seconds) in enumerate([(1, .02), (3, .05), (2, .13)]):
    process = subprocess.Popen(
        [sys.executable, '-c', KILLED, url], cwd=ROOT, text=True,
        stderr=subprocess.PIPE, env=os.environ | {
            'JAX_PLATFORMS': 'cpu', 'R1JAX_CACHE': str(tmp_path / f'{number}'),
            'PYTHONPATH': _path()})
    settled = [int(process.stderr.readline()) for _ in range(lines)]
    time.sleep(seconds)
    process.kill()
    process.communicate()
    with mirror.mirrored(url) as folder:
      saved = pathlib.Path(folder, 'checkpoints')
      steps.append(max(files.saved_steps(saved)))
      assert steps[-1] >= settled[-1]
      assert {path.name: path.read_text()
              for path in (saved / str(steps[-1])).iterdir()} == dict.fromkeys(
                  'abc', str(steps[-1]))
      rows = files.read_rows(pathlib.Path(folder, 'rollouts.jsonl'))
      rows = [row['step'] for row in rows]
      assert rows == [*range(len(rows))] and rows[-1] >= steps[-1]
  assert steps == sorted(set(steps))  # each went on from the one before


@pytest.mark.slow
def test_the_program_killed_again_and_again_ends_as_never_killed(
    url, tmp_path):
  case = faults.Case(tmp_path, tmp_path / 'compiled')
  case.environment['PYTHONPATH'] = _path()
  case.write_data()
  whole = case.run()
  assert whole.status == 0
  want = case.left()
  for number, rows in enumerate((3, 6)):
    case.environment['R1JAX_CACHE'] = str(tmp_path / f'machine{number}')
    case.workdir = tmp_path / f'machine{number}/runs' / buckets.place(
        'runs', url).name
    process = case.start(workdir=url)
    case.wait_until(lambda rows=rows: case.rows() >= rows, process)
    process.kill()
    process.communicate()
  case.environment['R1JAX_CACHE'] = str(tmp_path / 'machine2')
  done = case.run(workdir=url)
  assert done.status == 0, done.said
  case.workdir = tmp_path / 'machine2/runs' / case.workdir.name
  assert case.left() == want
  # A model of its own, and what is in the bucket is what is in the folder.
  case.environment['R1JAX_CACHE'] = str(tmp_path / 'machine3')
  exported = subprocess.run(
      [sys.executable, '-m', 'r1jax.export', f'--workdir={url}',
       f'--out={tmp_path}/model.npz'], cwd=ROOT, env=case.environment,
      capture_output=True, text=True, check=False)
  assert exported.returncode == 0, exported.stderr
  listed = objects.Folder(url).list()
  assert {name: found.size for name, found in listed.items()
          if name != 'mirror.json'} == {
      path.relative_to(case.workdir).as_posix(): path.stat().st_size
      for path in case.workdir.rglob('*') if path.is_file()}
