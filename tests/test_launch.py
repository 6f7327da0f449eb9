"""The launch scripts: what they would run, and that it arrives intact."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / name for name in (
    '.ci/run', 'launch/local.sh', 'launch/tpu_vm.sh')]


def _run(script, *args, **env):
  return subprocess.run(
      [ROOT / 'launch' / script, *args], capture_output=True, text=True,
      check=False, env=os.environ | env)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_executed(script):
  assert os.access(script, os.X_OK)
  done = subprocess.run(['bash', '-n', script], capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='needs shellcheck')
def test_shellcheck_is_content():
  done = subprocess.run(['shellcheck', *SCRIPTS], capture_output=True,
                        text=True, check=False)
  assert done.returncode == 0, done.stdout


def test_tpu_vm_prints_the_command_of_every_host():
  args = ['--config=experiments/r1_zero.py:paper', '--workdir=/mnt/my runs/a',
          "--config.rules=(('embed', 'fsdp'),)"]
  done = _run('tpu_vm.sh', '--dry_run', '--tpu=pod', '--zone=us-east5-a',
              '--project=lab', '--', *args)
  assert done.returncode == 0, done.stderr
  words = shlex.split(done.stdout)
  assert words[:6] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pod']
  assert {'--zone=us-east5-a', '--worker=all', '--project=lab'} <= set(words)
  [command] = [word for word in words if word.startswith('--command=')]
  there = shlex.split(command.removeprefix('--command='))
  assert there == ['cd', 'r1jax', '&&', 'exec', 'python3', '-m', 'r1jax.main',
                   *args, '--config.distributed=True']


@pytest.mark.parametrize('args, message', [
    (['--zone=z', '--', '--config=x'], 'expected --tpu=NAME'),
    (['--tpu=t', '--', '--config=x'], 'expected --zone=ZONE'),
    (['--tpu=t', '--zone=z'], 'expected -- and the arguments'),
    (['--tpus=t'], "unknown argument '--tpus=t'"),
])
def test_tpu_vm_says_what_is_missing(args, message):
  done = _run('tpu_vm.sh', '--dry_run', *args)
  assert done.returncode == 2
  assert message in done.stderr and 'usage:' in done.stderr


def test_local_hands_its_arguments_to_main_on_fake_devices(tmp_path):
  """A stand-in interpreter writes down what it was started with."""
  python = tmp_path / 'python'
  python.write_text('#!/usr/bin/env bash\n'
                    'printf "%s\\n" "$JAX_PLATFORMS" "$NPROC" "$XLA_FLAGS" '
                    '"$@"\n')
  python.chmod(0o755)
  done = _run('local.sh', '--config=a b', PYTHON=str(python), DEVICES='4',
              XLA_FLAGS='--one')
  assert done.stdout.splitlines() == [
      'cpu', '32', '--one --xla_force_host_platform_device_count=4', '-m',
      'r1jax.main', '--config=a b']


def test_local_without_arguments_shows_its_usage():
  done = _run('local.sh', PYTHON=sys.executable)
  assert done.returncode == 2 and done.stdout.startswith('usage:')
