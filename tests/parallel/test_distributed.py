"""One process never waits; two find each other and agree."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest

from r1jax.parallel import distributed

ROOT = pathlib.Path(__file__).resolve().parents[2]


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


PROGRAM = """
import numpy as np, jax
from r1jax.parallel import distributed, mesh, sharding
distributed.initialize()
index = jax.process_index()
grid = mesh.make(dict(data=-1))
rows = np.full((2, 3), index, np.float32)
x = sharding.from_local(rows, grid)
total = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(grid))(x)
total = jax.device_get(jax.numpy.copy(total))
print(jax.process_count(), x.shape, float(total), distributed.is_main(),
      distributed.any_process(index == 1), distributed.any_process(False))
"""


def test_two_processes_hold_one_batch_and_agree():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '', 'JAX_NUM_PROCESSES': '2',
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}'}
  processes = [
      subprocess.Popen(
          [sys.executable, '-c', PROGRAM], cwd=ROOT, text=True,
          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
          env=environment | {'JAX_PROCESS_ID': str(index)})
      for index in range(2)]
  said = [process.communicate(timeout=120) for process in processes]
  for index, (out, err) in enumerate(said):
    assert out.splitlines()[-1:] == [
        f'2 (4, 3) 6.0 {index == 0} True False'], err
