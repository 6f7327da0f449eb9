"""launch/tpu_vm.sh against a cloud that is slow, preempts, refuses and breaks."""

import os
import pathlib
import shlex
import shutil
import subprocess

import fake_cluster
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLICE = ['--tpu=pod', '--zone=us-east5-a', '--project=lab']
TYPE = ['--type=v5p-256', '--spot']
RUN = ['--config=experiments/r1_zero.py:paper', '--workdir=/mnt/my runs/a',
       "--config.rules=(('embed', 'fsdp'),)"]


@pytest.fixture(name='checkout', scope='module')
def _checkout(tmp_path_factory):
  """A small checkout with the scripts in it."""
  folder = tmp_path_factory.mktemp('checkout')
  shutil.copytree(ROOT / 'launch', folder / 'launch')
  (folder / 'r1jax').mkdir()
  shutil.copy(ROOT / 'r1jax/main.py', folder / 'r1jax')
  git = ['git', '-C', folder, '-c', 'user.name=me', '-c', 'user.email=me']
  for words in (['init', '--quiet'], ['add', '--all'],
                ['commit', '--quiet', '--message=all']):
    subprocess.run([*git, *words], check=True)
  return folder


@pytest.fixture(name='cluster')
def _cluster(tmp_path, checkout):
  cluster = fake_cluster.Cluster(tmp_path)
  cluster.script = checkout / 'launch/tpu_vm.sh'
  cluster.install('gcloud', 'uv', 'curl')
  cluster.set(states=[None], created=[['ACTIVE']], node='READY', runs=[[0]])
  return cluster


def _launch(cluster, *args):
  return subprocess.run(
      [cluster.script, *args], capture_output=True, text=True,
      check=False, timeout=600,
      env=os.environ | {'PATH': cluster.path, 'POLL': '0'})


def _train(cluster, *args):
  return _launch(cluster, 'train', *SLICE, *TYPE, *args, '--', *RUN)


def _failed(done, status, words):
  """One line says what went wrong."""
  assert done.returncode == status, done.stderr
  [line] = [line for line in done.stderr.splitlines()
            if line.startswith('error: ')]
  assert words in line


def test_a_dry_run_prints_every_command_and_runs_none(cluster):
  done = _train(cluster, '--dry_run', '--hours=6')
  assert done.returncode == 0, done.stderr
  commands = [shlex.split(line) for line in done.stdout.splitlines()]
  assert [words[3:5] if words[0] == 'gcloud' else words[:2]
          for words in commands] == [
              ['queued-resources', 'create'], ['queued-resources', 'describe'],
              ['git', 'archive'], ['tpu-vm', 'scp'], ['tpu-vm', 'ssh'],
              ['tpu-vm', 'ssh']]
  assert {'pod', '--zone=us-east5-a', '--project=lab', '--node-id=pod',
          '--accelerator-type=v5p-256', '--runtime-version=v2-alpha-tpuv5',
          '--valid-until-duration=6h', '--spot'} <= set(commands[0])
  for words in commands[3:]:
    assert {'--zone=us-east5-a', '--project=lab', '--worker=all'} <= set(words)
  assert not cluster.calls('gcloud')


@pytest.mark.parametrize('command', ['create', 'run', 'train', 'delete'])
def test_each_command_has_a_dry_run(cluster, command):
  args = {'create': TYPE, 'run': ['--', *RUN], 'train': [*TYPE, '--', *RUN],
          'delete': []}[command]
  done = _launch(cluster, command, '--dry_run', *SLICE, *args)
  assert done.returncode == 0 and 'gcloud' in done.stdout, done.stderr
  assert not cluster.calls('gcloud')


def test_training_requests_installs_and_runs_on_every_host(cluster):
  """Arguments arrive as they were given, in a clone, on a terminal."""
  done = _train(cluster)
  assert done.returncode == 0, done.stderr
  assert cluster.verbs() == ['create', 'scp', 'ssh', 'ssh']
  for host in fake_cluster.HOSTS:
    folder, *ran = (cluster.home(host) / 'ran').read_text().splitlines()
    assert folder == str(cluster.home(host) / 'r1jax')
    assert ran == ['-m', 'r1jax.main', *RUN, '--config.distributed=True']
    assert (cluster.home(host) / 'r1jax/r1jax/main.py').exists()
  install = ['pip', 'install', '--python',
             str(cluster.home(0) / 'r1jax-venv/bin/python'), '-e', '.[tpu]']
  assert install in cluster.calls('uv')
  assert '--ssh-flag=-tt' in cluster.calls('gcloud')[-1]


def test_changes_are_copied_and_what_git_lacks_is_said(
    cluster, checkout, tmp_path):
  clone = shutil.copytree(checkout, tmp_path / 'clone')
  (clone / 'launch/README.md').write_text('changed')
  (clone / 'mine.py').touch()
  cluster.script = clone / 'launch/tpu_vm.sh'
  done = _launch(cluster, 'run', *SLICE, '--', *RUN)
  assert done.returncode == 0, done.stderr
  there = cluster.home(1) / 'r1jax'
  assert (there / 'launch/README.md').read_text() == 'changed'
  assert not (there / 'mine.py').exists()
  assert 'not copied: 1' in done.stdout


def test_a_script_of_the_user_runs_on_every_host_before_the_run(cluster):
  done = _train(cluster, '--setup=launch/install.sh')  # it wants an argument
  _failed(done, 2, 'refused')
  assert 'usage: launch/install.sh' in done.stderr
  assert not (cluster.home(0) / 'ran').exists()


def test_a_slice_that_is_there_is_used(cluster):
  cluster.set(states=['ACTIVE'])
  assert _train(cluster).returncode == 0
  assert cluster.verbs() == ['scp', 'ssh', 'ssh']


def test_waiting_says_each_state_once(cluster):
  cluster.set(created=[['WAITING_FOR_RESOURCES', 'WAITING_FOR_RESOURCES',
                        'PROVISIONING', 'ACTIVE']])
  done = _launch(cluster, 'create', *SLICE, *TYPE)
  assert done.returncode == 0, done.stderr
  said = [line for line in done.stdout.splitlines()
          if line.startswith('launch: ')]
  assert said == [f'launch: pod is {state}' for state in (
      'ABSENT', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')]


def test_waiting_has_a_bound(cluster, tmp_path):
  cluster.set(created=[['WAITING_FOR_RESOURCES']])
  script = cluster.script.read_text()
  assert 'hours * 3600' in script
  cluster.script = tmp_path / 'launch/hurried.sh'  # its hours are over at once
  cluster.script.parent.mkdir()
  cluster.script.write_text(script.replace('hours * 3600', 'hours * 0'))
  cluster.script.chmod(0o755)
  done = _launch(cluster, 'create', *SLICE, *TYPE, '--hours=2')
  _failed(done, 1, 'pod is WAITING_FOR_RESOURCES after 2 hours')


def test_a_request_that_fails_is_given_up_with_its_reason(cluster):
  cluster.set(created=[['PROVISIONING', 'FAILED']])
  _failed(_train(cluster), 1,
          'the request of pod has FAILED: there is no more of it')
  assert cluster.verbs() == ['create']


@pytest.mark.parametrize('state', ['SUSPENDED', 'FAILED'])
def test_what_is_left_of_an_earlier_slice_is_requested_anew(cluster, state):
  cluster.set(states=[state])
  done = _launch(cluster, 'create', *SLICE, *TYPE)
  assert done.returncode == 0, done.stderr
  assert f'pod is {state}' in done.stdout
  assert cluster.verbs() == ['delete', 'create']


@pytest.mark.parametrize('status, states', [
    (255, ['SUSPENDING', 'SUSPENDED']),
    (75, ['ACTIVE', 'ACTIVE', 'SUSPENDED']),  # it shows only after a while
    (1, ['FAILED']),
])
def test_after_a_preemption_the_same_command_runs_again(
    cluster, status, states):
  cluster.set(runs=[[status, *states], [0]])
  done = _train(cluster)
  assert done.returncode == 0, done.stderr
  assert cluster.verbs() == ['create', 'scp', 'ssh', 'ssh', 'delete',
                             'create', 'scp', 'ssh', 'ssh']
  first, again = [call for call in cluster.calls('gcloud')
                  if 'r1jax.main' in call[-1]]
  assert first == again
  [state] = set(states) & set(['SUSPENDING', 'FAILED']) or {'SUSPENDED'}
  assert f'exit status {status}, pod is {state}: once more' in done.stdout


def test_a_request_that_fails_after_a_preemption_is_made_again(cluster):
  """Spot slices are taken back while they are provisioned."""
  cluster.set(created=[['ACTIVE'], ['PROVISIONING', 'FAILED'], ['ACTIVE']],
              runs=[[1, 'SUSPENDED'], [0]])
  assert _train(cluster).returncode == 0
  assert cluster.verbs() == ['create', 'scp', 'ssh', 'ssh',
                             *2 * ['delete', 'create'], 'scp', 'ssh', 'ssh']


def test_a_node_that_was_preempted_speaks_for_its_request(cluster):
  cluster.set(states=['ACTIVE'], node='PREEMPTED')
  assert _train(cluster).returncode == 0
  assert cluster.verbs()[:2] == ['delete', 'create']


@pytest.mark.parametrize('status, words', [
    (2, 'refused'),
    (1, 'exit status 1, and pod is ACTIVE: no preemption'),
])
def test_what_would_happen_again_is_not_tried_again(cluster, status, words):
  cluster.set(runs=[[status]])
  _failed(_train(cluster), status, words)
  assert cluster.verbs() == ['create', 'scp', 'ssh', 'ssh']


@pytest.mark.parametrize('status', [75, 134, 137])
def test_a_run_that_was_stopped_or_lost_a_process_on_a_good_slice_goes_on(
    cluster, status):
  cluster.set(runs=[[status], [0]])
  assert _train(cluster).returncode == 0
  assert cluster.verbs() == ['create', *2 * ['scp', 'ssh', 'ssh']]


def test_a_host_that_cannot_be_reached_is_given_up_after_four_times(cluster):
  cluster.set(lost=[1])
  _failed(_train(cluster), 255, 'exit status 255 for the fourth time on pod')
  assert cluster.verbs() == ['create', *4 * ['scp']]


def test_a_slice_that_was_deleted_is_not_requested_again(cluster):
  cluster.set(runs=[[255, None]])
  _failed(_train(cluster), 255, 'pod has been deleted')
  assert cluster.verbs() == ['create', 'scp', 'ssh', 'ssh']


def test_a_fault_of_the_network_deletes_nothing(cluster):
  cluster.set(states=['ACTIVE'], fault='the network is unreachable')
  _failed(_train(cluster), 1,
          'gcloud cannot describe pod: ERROR: the network is unreachable')
  assert not cluster.verbs()


@pytest.mark.parametrize('lost, status', [([], 0), ([0], 255), ([1], 255)])
def test_run_neither_requests_nor_repeats(cluster, lost, status):
  cluster.set(lost=lost)
  assert _launch(cluster, 'run', *SLICE, '--', *RUN).returncode == status
  assert cluster.verbs() == (['scp'] if lost else ['scp', 'ssh', 'ssh'])


def test_delete_gives_back_the_nodes_too_and_asks_nothing(cluster):
  assert _launch(cluster, 'delete', *SLICE).returncode == 0
  [call] = cluster.calls('gcloud')
  assert call[2:5] == ['queued-resources', 'delete', 'pod']
  assert {'--force', '--quiet', '--zone=us-east5-a'} <= set(call)


@pytest.mark.parametrize('kind, image', [
    ('v4-32', 'tpu-ubuntu2204-base'), ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v5p-8', 'v2-alpha-tpuv5'), ('v6e-256', 'v2-alpha-tpuv6e')])
def test_the_image_of_the_hosts_follows_from_the_type(cluster, kind, image):
  done = _launch(cluster, 'create', '--dry_run', *SLICE, f'--type={kind}')
  words = shlex.split(done.stdout.splitlines()[0])
  assert f'--runtime-version={image}' in words
  assert not {'--spot', '--reserved'} & set(words)


@pytest.mark.parametrize('args, message', [
    ([], 'expected create, run, train or delete'),
    (['up', '--tpu=t'], "received 'up'"),
    (['run', '--zone=z', '--', '--config=x'], 'expected --tpu=NAME'),
    (['run', '--tpu=t', '--', '--config=x'], 'expected --zone=ZONE'),
    (['run', *SLICE], 'expected -- and the arguments'),
    (['delete', *SLICE, '--', '--config=x'], 'takes nothing after --'),
    (['create', *SLICE], 'expected --type=TYPE'),
    (['create', *SLICE, '--type=v5p:4x4x8'], "received 'v5p:4x4x8'"),
    (['create', *SLICE, '--hours=1.5', *TYPE], 'expected --hours=N'),
    (['create', *SLICE, *TYPE, '--reserved'], 'expected --spot or --reserved, not both'),
    (['run', *SLICE, '--setup=no.sh', '--', 'x'], 'not in this checkout'),
    (['run', '--tpus=t'], "unknown argument '--tpus=t'"),
])
def test_a_wrong_command_line_is_refused(cluster, args, message):
  done = _launch(cluster, *args)
  _failed(done, 2, message)
  assert 'usage:' in done.stderr
  assert not cluster.calls('gcloud')
