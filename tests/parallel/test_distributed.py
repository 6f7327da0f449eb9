"""One process never waits; two find each other and agree."""

import os

import jax
import numpy as np
import pytest

import hosts
from r1jax.parallel import distributed


@pytest.mark.parametrize('environment, count', [
    ({}, 1),
    ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'}, 1),  # salloc, not srun
    ({'SLURM_STEP_NUM_TASKS': '4'}, 4),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, 1),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c'}, 3),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, 2),
    ({'JAX_NUM_PROCESSES': '8'}, 8),
])
def test_process_count(environment, count):
  assert distributed.process_count(environment) == count


def test_a_single_machine_starts_nothing(monkeypatch):
  def start(**_):
    raise AssertionError('waits for other processes')

  monkeypatch.setattr(jax.distributed, 'initialize', start)
  for name in [*os.environ]:
    if name.startswith(('JAX_', 'SLURM_', 'TPU_', 'OMPI_', 'MEGASCALE_')):
      monkeypatch.delenv(name)
  distributed.initialize()
  with pytest.raises(AssertionError, match='waits'):
    distributed.initialize(force=True)
  assert distributed.is_main()
  assert distributed.any_process(True) and not distributed.any_process(False)


def test_one_process_speaks(monkeypatch, capsys):
  distributed.say('once')
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  distributed.say('by another')
  assert capsys.readouterr().out == 'once\n'


STOP = """
import os, pathlib, signal, sys, tempfile
import jax
sys.path[:0] = ['tests/training']
import test_loop
from r1jax.parallel import sharding
from r1jax.training import loop
index = jax.process_index()
folder = pathlib.Path(distributed.gather(tempfile.mkdtemp())[0])
replicated = sharding.replicated(sharding.make_mesh(dict(data=-1)))
steps = []
def on_step(step):
  steps.append(step)
  if (step, index) == (WHEN, 1):
    os.kill(os.getpid(), signal.SIGTERM)
  distributed.check_stopped()
whole = jax.jit(test_loop._init, out_shardings=replicated)
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=replicated), jax.eval_shape(test_loop._init))
stage = test_loop._stage(on_step=on_step)._replace(
    init=whole, abstract=abstract, evaluate=None)
ended = loop.train(stage, test_loop.SETTINGS, str(folder), test_loop.CONFIG)
distributed.gather('the lock is gone')
said = dict(ended=ended, steps=steps, saved=sorted(
    path.name for path in folder.glob('checkpoints/[0-9]*')),
    locked=(folder / 'lock').exists())
"""


@pytest.mark.parametrize('when, saved', [(0, []), (4, ['3', '4'])])
def test_a_signal_to_one_process_stops_both_at_one_step(when, saved):
  for said in hosts.run(STOP.replace('WHEN', str(when))):
    assert said == dict(ended=None, steps=[*range(when + 1)], saved=saved,
                        locked=False)


TWO = """
import jax
import numpy as np
from r1jax import errors
from r1jax.parallel import sharding
index = jax.process_index()
def tell(error, at):
  def fail():
    if error is not None and index == at:
      raise error
    return index
  try:
    return distributed.together(fail)
  except (errors.ConfigError, errors.RunError) as raised:
    return [type(raised).__name__, str(raised), raised is error]
rows = np.arange(24.).reshape(8, 3)
devices = jax.devices()
make_mesh = sharding.make_mesh
grids = [make_mesh(dict(data=-1)), make_mesh(dict(tensor=-1)),
         make_mesh(dict(data=2, context=2), [devices[i] for i in (0, 2, 1, 3)]),
         make_mesh(dict(data=-1), [devices[i] for i in (3, 0, 2, 1)])]
said = dict(
    processes=jax.process_count(), main=distributed.is_main(),
    any=[distributed.any_process(index == 1), distributed.any_process(False)],
    mine=distributed.in_main(lambda: index), told=[
        tell(errors.ConfigError('a.b', 'é'), 0), tell(errors.RunError('x'), 0),
        tell(errors.RunError('of one'), 1), tell(None, 0)],
    gathered=distributed.gather({'from': 'é' * (3 + 90 * index)}), grids=[])
for grid in grids:
  x = sharding.from_host(rows, grid)
  total = jax.jit(lambda x: x.sum(0), out_shardings=sharding.replicated(grid))
  said['grids'].append(dict(
      shape=x.shape, sum=total(x).tolist(), whole=sharding.to_host(x).tolist(),
      own={row: values.tolist()
           for row, values in sharding.own_rows(x).items()}))
"""


def test_two_processes_hold_one_batch_and_agree():
  """However rows lie: by process, on both, mixed; each is one process's."""
  rows = np.arange(24.).reshape(8, 3)
  both = hosts.run(TWO)
  for index, said in enumerate(both):
    assert said['processes'] == 2 and said['main'] == (index == 0)
    assert said['any'] == [True, False]
    assert said['mine'] == 0 and said['told'] == [
        ['ConfigError', 'config.a.b: é', index == 0],
        ['RunError', 'x', index == 0], ['RunError', 'of one', index == 1],
        [0, 1]]
    assert said['gathered'] == [{'from': 'é' * 3}, {'from': 'é' * 93}]
    for grid in said['grids']:
      assert grid['shape'] == [8, 3] and grid['sum'] == rows.sum(0).tolist()
      assert grid['whole'] == rows.tolist()
  owners = [tuple(sorted(map(int, said['own'])) for said in grids)
            for grids in zip(*(said['grids'] for said in both))]
  assert owners == [
      ([0, 1, 2, 3], [4, 5, 6, 7]), (list(range(8)), []),
      (list(range(8)), []), ([2, 3, 6, 7], [0, 1, 4, 5])]
  for said in both:
    for grid in said['grids']:
      for row, values in grid['own'].items():
        assert values == rows[int(row)].tolist()


DIFFERENT = """
import contextlib, pathlib, tempfile
import jax
import ml_collections
import numpy as np
from r1jax import errors
from r1jax import run
from r1jax.stages import inputs
from r1jax.training import lock
index = jax.process_index()
folder = pathlib.Path(distributed.gather(tempfile.mkdtemp())[0])
lock._SEEN_SECONDS = .2
inputs.digests = lambda fields: {'a.jsonl': {'': str(index)}, 'b': {'': ''}}
config = lambda **fields: ml_collections.ConfigDict(dict(
    stage='lm', mesh=dict(data=-1), lists=(1, 2), **fields))
def refused(function):
  try:
    function()
  except errors.ConfigError as raised:
    return str(raised)
def hold(name):
  with lock.held(folder / name):
    pass
said = [
    refused(lambda: run._run(
        config(optim=dict(lr=.1 * index, beta=.5)), '/w', (), ())),
    refused(lambda: run._run(config(), f'/w{index}', (), ())),
    refused(lambda: run._run(config(**{f'of{index}': 1}), '/w', (), ())),
    refused(lambda: run._run_in('/w', config(), {})),
    refused(lambda: distributed.check_rows('a', [
        np.float32([1, 2]), np.arange(3)[::2]])),
    refused(lambda: distributed.check_rows('b', [np.float32([1, index])])),
    refused(lambda: hold('same')), refused(lambda: hold(f'run{index}')),
    distributed.gather(index) and [path.name for path in folder.iterdir()],
    str(folder)]
"""


def test_processes_that_were_not_given_the_same_are_refused():
  """Before either waits for the other in another program, by the same line."""
  for *refused, seen, left, folder in hosts.run(DIFFERENT):
    begin, end = ('process 1 differs from process 0 in ',
                  '; all processes of a run need the same')
    assert refused[:4] == [
        f'{begin}{what}{end}' for what in (
            'config.optim.lr (0.1, not 0.0)', "--workdir ('/w1', not '/w0')",
            'config.of0, config.of1', 'a.jsonl')]
    assert refused[4] is None and refused[6] is None
    assert refused[5].startswith(
        f"{begin}the rows of split 'b' that config.data reads ('")
    assert seen.startswith('--workdir: process 1 on ')
    assert f' does not see {folder}/run1/lock, which process ' in seen
    assert not left  # no lock, and no folder
