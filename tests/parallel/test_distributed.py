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


TWO = """
import jax
import numpy as np
from r1jax.parallel import sharding
index = jax.process_index()
rows = np.arange(24.).reshape(8, 3)
devices = jax.devices()
make_mesh = sharding.make_mesh
grids = [make_mesh(dict(data=-1)), make_mesh(dict(tensor=-1)),
         make_mesh(dict(data=2, context=2), [devices[i] for i in (0, 2, 1, 3)]),
         make_mesh(dict(data=-1), [devices[i] for i in (3, 0, 2, 1)])]
said = dict(
    processes=jax.process_count(), main=distributed.is_main(),
    any=[distributed.any_process(index == 1), distributed.any_process(False)],
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
