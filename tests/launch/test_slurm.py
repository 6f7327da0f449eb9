"""launch/slurm.sh: what it asks of SLURM, and when it is run again."""

import os
import pathlib
import re
import shlex
import subprocess

import fake_cluster
import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'launch/slurm.sh'
OPTIONS = dict(re.findall(r'^#SBATCH --([\w-]+)=?(.*)$', SCRIPT.read_text(),
                          re.MULTILINE))
RUN = ['--config=experiments/r1_zero.py:paper', '--workdir=/mnt/my runs/a']


def _slurm(tmp_path, *args, status=0, **env):
  """What ended, and the programs of a cluster on whose srun it ran."""
  cluster = fake_cluster.Cluster(tmp_path)
  cluster.install('srun', 'scontrol')
  cluster.set(srun=status)
  around = {name: value for name, value in os.environ.items()
            if not name.startswith('SLURM_')}
  done = subprocess.run(
      ['bash', SCRIPT, *args], capture_output=True, text=True, check=False,
      env=around | {'PATH': cluster.path} | env)
  return done, cluster


def test_a_run_is_a_step_of_all_processes(tmp_path):
  done, cluster = _slurm(tmp_path, *RUN, SLURM_JOB_ID='77',
                         SLURM_CPUS_PER_TASK='12')
  assert done.returncode == 0, done.stderr
  [call] = cluster.calls('srun')
  assert call[-5:] == ['python', '-m', 'r1jax.main', *RUN]
  assert '--cpus-per-task=12' in call  # srun does not take it from sbatch
  assert not cluster.calls('scontrol')


def test_each_process_sees_all_gpus_of_its_node(tmp_path):
  """jax takes the one of SLURM_LOCALID among those that it sees."""
  assert OPTIONS['ntasks-per-node'] == OPTIONS['gpus-per-node']
  assert 'gpus-per-task' not in OPTIONS
  _, cluster = _slurm(tmp_path, *RUN, SLURM_JOB_ID='77')
  assert '--gpu-bind=none' in cluster.calls('srun')[0]


def test_the_end_of_its_time_reaches_the_processes_and_not_the_script():
  assert re.fullmatch(r'TERM@\d+', OPTIONS['signal'])  # B: would be the script
  assert {'requeue', 'open-mode'} <= set(OPTIONS)


@pytest.mark.parametrize('status, before', [(75, 9), (134, 2), (137, 2)])
def test_a_run_that_was_stopped_or_lost_a_process_is_requeued(
    tmp_path, status, before):
  done, cluster = _slurm(tmp_path, *RUN, status=status, SLURM_JOB_ID='77',
                         SLURM_RESTART_COUNT=str(before))
  assert done.returncode == 0, done.stderr
  assert cluster.calls('scontrol') == [['requeue', '77']]


@pytest.mark.parametrize('status', [134, 137])
def test_what_kills_a_process_at_once_four_times_is_an_end(tmp_path, status):
  done, cluster = _slurm(tmp_path, *RUN, status=status, SLURM_JOB_ID='77',
                         SLURM_RESTART_COUNT='3')
  assert done.returncode == status and not cluster.calls('scontrol')


@pytest.mark.parametrize('status', [1, 2])
def test_any_other_end_is_an_end(tmp_path, status):
  done, cluster = _slurm(tmp_path, *RUN, status=status, SLURM_JOB_ID='77')
  assert done.returncode == status
  assert done.stderr == f'error: exit status {status}, not requeued\n'
  assert not cluster.calls('scontrol')


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path):
  done, cluster = _slurm(tmp_path, '--dry_run', *RUN)
  assert done.returncode == 0, done.stderr
  run, requeue = [shlex.split(line) for line in done.stdout.splitlines()
                  if not line.startswith('#')]
  assert run[0] == 'srun' and run[-2:] == RUN
  assert requeue == ['scontrol', 'requeue', 'JOB']
  assert not cluster.calls('srun')


def test_outside_of_a_job_it_says_how_to_submit_it(tmp_path):
  done, cluster = _slurm(tmp_path, *RUN)
  assert done.returncode == 2
  assert done.stderr == (
      'error: not in a job of SLURM; submit it with sbatch\n')
  assert not cluster.calls('srun')


def test_without_arguments_it_shows_its_usage(tmp_path):
  done, _ = _slurm(tmp_path)
  assert done.returncode == 2 and done.stdout.startswith('usage: sbatch')
