"""The scripts of launch/, and what they hand on."""

import os
import pathlib
import shutil
import subprocess
import sys

import fake_cluster
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / '.ci/run', *sorted((ROOT / 'launch').glob('*.sh'))]
SHELLCHECK = shutil.which('shellcheck', path=os.pathsep.join(
    [str(pathlib.Path(sys.executable).parent), os.environ['PATH']]))


def _run(script, *args, **env):
  return subprocess.run(
      [ROOT / 'launch' / script, *args], capture_output=True, text=True,
      check=False, env=os.environ | env)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_executed(script):
  assert os.access(script, os.X_OK)
  assert 'set -euo pipefail' in script.read_text()
  done = subprocess.run(['bash', '-n', script], capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not SHELLCHECK, reason='needs shellcheck')
def test_shellcheck_is_content():
  done = subprocess.run([SHELLCHECK, *SCRIPTS], capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stdout


def test_the_readme_names_every_file():
  readme = (ROOT / 'launch/README.md').read_text()
  missing = [path.name for path in (ROOT / 'launch').iterdir()
             if f'launch/{path.name}' not in readme]
  assert missing == ['README.md']


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


@pytest.mark.parametrize('extra', ['tpu', 'cuda'])
def test_install_makes_one_environment_and_keeps_it(tmp_path, extra):
  cluster = fake_cluster.Cluster(tmp_path)
  cluster.install('uv')
  for _ in range(2):
    done = _run('install.sh', extra, PATH=cluster.path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
  python = f'{tmp_path}/r1jax-venv/bin/python'
  pip = ['pip', 'install', '--python', python, '-e', f'.[{extra}]']
  assert cluster.calls('uv') == [
      ['venv', '--python', '3.12', f'{tmp_path}/r1jax-venv'], pip, pip]


def test_install_wants_to_know_for_what():
  done = _run('install.sh')
  assert done.returncode == 2 and 'usage:' in done.stderr
