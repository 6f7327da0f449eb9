"""A program that several processes run as one, each with its own devices."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOIN = """
import json
from r1jax.parallel import distributed
distributed.initialize()
"""


def start(program: str, processes=2, devices=2) -> list[subprocess.Popen]:
  """Starts the processes, which join each other and then run `program`."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  flags = [flag for flag in os.environ['XLA_FLAGS'].split()
           if 'device_count' not in flag]
  flags.append(f'--xla_force_host_platform_device_count={devices}')
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(flags),
      'JAX_NUM_PROCESSES': str(processes),
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
  return [
      subprocess.Popen(
          [sys.executable, '-c', JOIN + program], cwd=ROOT, text=True,
          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
          env=environment | {'JAX_PROCESS_ID': str(index)})
      for index in range(processes)]


def run(program: str, processes=2, devices=2) -> list:
  """What `said` was at the end of `program` in each process, as JSON has it."""
  started = start(
      f'{program}\nprint(json.dumps(said))', processes, devices)
  try:
    ended = [process.communicate(timeout=300) for process in started]
  finally:
    for process in started:
      process.kill()  # one that waits for another that failed
  for process, (_, err) in zip(started, ended):
    assert process.returncode == 0, err
  return [json.loads(out.splitlines()[-1]) for out, _ in ended]
