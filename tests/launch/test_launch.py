"""The scripts of launch/, and what they hand on."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

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


PROCESS = """#!/usr/bin/env bash
[[ $1 == -m ]] || exec {python} "$@"  # for a free port
echo "$JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS $NPROC ${{XLA_FLAGS##*=}} $*"
{body}
"""


@pytest.fixture(name='processes')
def _processes(tmp_path):
  """Starts three stand-ins for r1jax.main, each of which does the same."""
  def start(body, **env):
    python = tmp_path / 'python'
    python.write_text(PROCESS.format(python=sys.executable, body=body))
    python.chmod(0o755)
    return subprocess.Popen(
        [ROOT / 'launch/local.sh', '--processes=3', '--config=a b'], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | dict(PYTHON=str(python), DEVICES='6', **env))
  return start


def test_local_tells_each_process_of_the_others(processes):
  out, err = processes('echo "$JAX_PROCESS_ID" >&2').communicate(timeout=30)
  lines = sorted(out.splitlines())
  port = lines[0].split(':')[1].split()[0]
  assert lines == sorted(f'{prefix}3 localhost:{port} 16 2 -m r1jax.main '
                         '--config=a b' for prefix in ('', '[1] ', '[2] '))
  assert sorted(err.splitlines()) == ['0', '[1] 1', '[2] 2']


def test_local_ends_as_the_first_that_ends_ill(processes):
  """And kills what outlives it."""
  local = processes(
      'case $JAX_PROCESS_ID in 0) exec sleep 60;; 1) exit 9;; esac',
      PATIENCE='1')
  _, err = local.communicate(timeout=30)
  assert local.returncode == 9 and err.splitlines() == [
      'launch: process 1 has ended with status 9',
      'launch: process 0 has ended with status 137']


def test_local_hands_a_signal_to_each_process_once(processes, tmp_path):
  local = processes(f"""
got=0 folder={tmp_path}
trap 'got=$((got + 1))' TERM
touch $folder/ready$JAX_PROCESS_ID
until ((got)); do sleep .1; done
sleep .5
echo "got $got"
exit 75""")
  while len([*tmp_path.glob('ready*')]) < 3:
    time.sleep(.05)
  os.killpg(local.pid, signal.SIGTERM)  # as a terminal does
  out, _ = local.communicate(timeout=30)
  assert local.returncode == 75
  assert sorted(line for line in out.splitlines() if 'got' in line) == [
      '[1] got 1', '[2] got 1', 'got 1']


@pytest.mark.parametrize('number', ['0', '3', 'four'])
def test_local_divides_the_devices_among_the_processes(number):
  done = _run('local.sh', f'--processes={number}', '--config=a')
  assert done.returncode == 2 and done.stderr == (
      'error: expected --processes=N, a divisor of DEVICES=8, received '
      f"'{number}'\n")


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
