"""The YAML files of launch/: valid, consistent, and of fields that there are.

Their schemas are those of the published ones' fields that are used here; any
other field is refused.
"""

import copy
import importlib
import json
import math
import os
import pathlib
import re
import subprocess

import jsonschema
import pytest
import yaml

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMAS = {'jobset.yaml': 'jobset', 'sky_tpu.yaml': 'skypilot',
           'sky_gpu.yaml': 'skypilot'}
# The parts whose keys are names of a user or of a cloud.
FREE = {'annotations', 'nodeSelector', 'limits', 'envs', 'file_mounts'}


def _load(name):
  return yaml.safe_load((ROOT / 'launch' / name).read_text())


def _validator(name):
  schema = json.loads((HERE / f'{SCHEMAS[name]}.schema.json').read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  return jsonschema.Draft202012Validator(schema)


def _keys(value, path=()):
  """The paths of all keys of fields."""
  if isinstance(value, list):
    for index, item in enumerate(value):
      yield from _keys(item, (*path, index))
  elif isinstance(value, dict):
    for key, item in value.items():
      if not (path and path[-1] in FREE):
        yield *path, key
      yield from _keys(item, (*path, key))


@pytest.mark.parametrize('name', SCHEMAS)
def test_a_manifest_is_valid(name):
  _validator(name).validate(_load(name))


@pytest.mark.parametrize('name', SCHEMAS)
def test_the_schema_refuses_a_misspelt_field_anywhere(name):
  validator, manifest = _validator(name), _load(name)
  for *path, key in _keys(manifest):
    wrong = copy.deepcopy(manifest)
    place = wrong
    for part in path:
      place = place[part]
    place[f'{key}s'] = place.pop(key)
    assert not validator.is_valid(wrong), (*path, key)


def _pod():
  job = _load('jobset.yaml')['spec']['replicatedJobs'][0]['template']['spec']
  return job, job['template']['spec']


def test_the_slice_has_a_pod_for_each_host():
  job, pod = _pod()
  [container] = pod['containers']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  chips = math.prod(map(int, topology.split('x')))
  assert job['parallelism'] == job['completions'] == (
      chips / container['resources']['limits']['google.com/tpu'])


def test_a_lost_host_begins_all_anew_and_a_refusal_ends_all():
  job, pod = _pod()
  policy = _load('jobset.yaml')['spec']['failurePolicy']
  assert policy['maxRestarts'] > 0
  assert job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never'
  [rule] = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob'
  assert rule['onExitCodes'] == {
      'containerName': pod['containers'][0]['name'], 'operator': 'In',
      'values': [2]}
  assert policy['rules'][0]['action'] == 'FailJobSet'
  assert policy['rules'][0]['onJobFailureReasons'] == ['PodFailurePolicy']


def test_what_is_mounted_is_a_volume():
  _, pod = _pod()
  assert {mount['name'] for mount in pod['containers'][0]['volumeMounts']} == {
      volume['name'] for volume in pod['volumes']}


def _run(name, tmp_path, **env):
  """The arguments and the environment of the interpreter that `run` starts."""
  python = tmp_path / 'r1jax-venv/bin/python'
  python.parent.mkdir(parents=True)
  python.write_text('#!/bin/sh\nenv\nprintf "arg:%s\\n" "$@"\nexit 75\n')
  python.chmod(0o755)
  done = subprocess.run(
      ['bash', '-c', _load(name)['run']], capture_output=True, text=True,
      check=False, env=os.environ | {'HOME': str(tmp_path)} | env)
  lines = done.stdout.splitlines()
  assert done.returncode == 75, done.stderr  # which recovers, see below
  return ([line.removeprefix('arg:') for line in lines
           if line.startswith('arg:')],
          dict(line.split('=', 1) for line in lines if '=' in line))


def test_nodes_of_gpus_find_the_first_one(tmp_path):
  args, env = _run('sky_gpu.yaml', tmp_path, SKYPILOT_NODE_RANK='1',
                   SKYPILOT_NODE_IPS='10.0.0.7\n10.0.0.9',
                   SKYPILOT_NUM_NODES='2')
  assert env['JAX_COORDINATOR_ADDRESS'] == '10.0.0.7:8476'
  assert (env['JAX_NUM_PROCESSES'], env['JAX_PROCESS_ID']) == ('2', '1')
  assert args[:2] == ['-m', 'r1jax.main']


def test_hosts_of_tpus_ask_the_metadata_server(tmp_path):
  args, env = _run('sky_tpu.yaml', tmp_path)
  assert args[:2] == ['-m', 'r1jax.main']
  assert '--config.distributed=True' in args
  assert 'JAX_COORDINATOR_ADDRESS' not in env


@pytest.mark.parametrize('name', ['sky_tpu.yaml', 'sky_gpu.yaml'])
def test_a_job_recovers_from_the_bucket_that_it_wrote(name):
  task = _load(name)
  [(mounted, bucket)] = task['file_mounts'].items()
  assert bucket['mode'] == 'MOUNT'  # cached writes are lost with their host
  assert f'--workdir={mounted}/' in task['run']
  assert task['resources']['use_spot']
  assert task['resources']['job_recovery']['recover_on_exit_codes'] == [
      75, 134, 137]


@pytest.mark.parametrize('name', SCHEMAS)
def test_commands_set_fields_that_their_experiment_has(name):
  words = re.findall(r'--config[^\s\'"]+',
                     (ROOT / 'launch' / name).read_text())
  [given] = [word.removeprefix('--config=') for word in words
             if word.startswith('--config=')]
  path, _, argument = given.partition(':')
  module = importlib.import_module(
      path.removesuffix('.py').replace('/', '.'))
  config = module.get_config(argument)
  for word in words:
    if word.startswith('--config.'):
      part = config
      for field in word.removeprefix('--config.').partition('=')[0].split('.'):
        assert field in part, word
        part = part[field]
