"""Two processes of one run in gs://: each writes its part of a checkpoint there.

The store is that of support/gs_server.py.
"""

import json
import time

import gs_server
import hosts
import pytest

from r1jax import objects

pytestmark = pytest.mark.slow

RUN = """
import contextlib, os, pathlib, sys
import jax
sys.path[:0] = ['tests/training']
import test_loop
from r1jax import command
from r1jax.parallel import roll_call, sharding
from r1jax.training import checkpoint, mirror
mesh = sharding.make_mesh(dict(data=-1))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
shapes = jax.eval_shape(test_loop._init)
places = jax.tree.map(
    lambda x: spread if x.shape else sharding.replicated(mesh), shapes)
abstract = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=place), shapes, places)
steps = []
def on_step(step):
  if step == KILLED:
    print(json.dumps(steps), flush=True)
    os._exit(0)
  steps.append(step)
stage = test_loop._stage(on_step=on_step)._replace(
    init=jax.jit(test_loop._init, out_shardings=places), abstract=abstract,
    evaluate=None)
with command.reported(), roll_call.answered(), (
    mirror.mirrored('URL')) as folder:
  test_loop._run(folder, stage)
  folder = pathlib.Path(folder)
  with contextlib.closing(checkpoint.Checkpointer(
      folder / 'checkpoints', keep=2)) as saves:
    state, step = saves.restore_latest(abstract)
  rows = folder / 'rollouts.jsonl'
  said = dict(steps=steps, step=step, here=rows.exists(),
              w=sharding.to_host(state.params['w']).tolist(),
              rows=distributed.in_main(rows.read_text))
"""


@pytest.fixture(name='url')
def _url(monkeypatch):
  """A workdir in an empty bucket."""
  with gs_server.running(monkeypatch):
    yield 'gs://bucket/run'


def _run(url, killed=-1):
  return hosts.run(RUN.replace('URL', url).replace('KILLED', str(killed)))


def _saved(url):
  """The steps of the checkpoints that are committed."""
  return sorted(int(name.split('/')[1]) for name in objects.Folder(url).list()
                if name.count('/') == 2 and objects.is_commit(name))


def test_killed_they_go_on_on_other_machines(url, tmp_path, monkeypatch):
  whole = _run(str(tmp_path / 'whole'))
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'one'))
  assert _run(url, killed=8) == [[*range(8)]] * 2
  [*_, last] = _saved(url)
  assert last in (3, 6)
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'two'))
  again = _run(url)
  for index, said in enumerate(again):
    assert said['steps'] == [*range(last, 12)] and said['step'] == 12
    assert said['w'] == whole[0]['w'] and said['rows'] == whole[0]['rows']
  listed = objects.Folder(url).list()
  assert _saved(url) == [9, 12] and {
      name.split('/')[1] for name in listed if objects.unit_of(name)} == {
          '9', '12'}
  assert {'config.json', 'metrics.jsonl', 'summary.json'} <= listed.keys()
  assert 'lock' not in listed
  parts = [name for name in listed if '12/params/ocdbt.process_' in name]
  assert {name.split('/')[3] for name in parts} == {
      'ocdbt.process_0', 'ocdbt.process_1'}
  # What is here of a checkpoint is what the main process reads of it.
  assert not list((tmp_path / 'two').rglob('ocdbt*'))
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'three'))
  assert [said['steps'] for said in _run(url)] == [[], []]
  assert json.loads(objects.Folder(url).read('summary.json'))['steps'] == 12


def test_a_bucket_that_is_gone_ends_both_with_a_line(tmp_path, monkeypatch):
  """Where one alone learns it, the other would wait for its part."""
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path))
  program = RUN.replace('URL', 'gs://bucket/run').replace('KILLED', '7')
  with gs_server.running(monkeypatch) as end_server:
    processes = hosts.start(program.replace('    os._exit(0)\n', ''))
    assert f'{[*range(7)]}\n' in iter(processes[0].stdout.readline, '')
    end_server()
    began = time.monotonic()
    ended = [process.communicate(timeout=300) for process in processes]
  assert time.monotonic() - began < 90  # tries last half a minute
  for process, (_, err) in zip(processes, ended):
    line, = (line for line in err.splitlines() if line.startswith('error: '))
    assert process.returncode == 1
    assert line.startswith('error: all processes answer: '), line
    assert 'start the same command again' in line
