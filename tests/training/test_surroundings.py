"""What sameness depends on is recorded, and a change is one line."""

from importlib import metadata
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from r1jax.training import record
from r1jax.training import surroundings

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_run_knows_its_surroundings(tmp_path):
  surroundings.note(tmp_path, resumed=False)
  found = json.loads((tmp_path / 'run.json').read_text())['surroundings']
  assert found == surroundings.found()
  assert found['jax'] == jax.__version__ and found['devices'] == 8
  assert found['cores'] == len(os.sched_getaffinity(0))
  assert found['XLA_FLAGS'] == os.environ['XLA_FLAGS']
  assert found['jax_enable_x64'] is False
  client = jax.devices()[0].client
  assert found['platform_version'] == client.platform_version


def test_what_is_the_same_is_not_said(tmp_path, capsys):
  for resumed in (False, True, True):
    surroundings.note(tmp_path, resumed)
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('change', [
    dict(cores=1), dict(jax='0.1'), dict(devices=4), dict(platform='tpu'),
    dict(NPROC='3'), dict(jax_default_matmul_precision='highest'),
    dict(platform_version='cuda 12090'), dict(r1jax='another'),
    dict(jaxlib=None)])
def test_a_change_at_a_resume_is_one_line(
    tmp_path, monkeypatch, capsys, change):
  surroundings.note(tmp_path, resumed=False)
  now = surroundings.found()
  (name, value), = change.items()
  monkeypatch.setattr(surroundings, 'found', lambda: now | change)
  surroundings.note(tmp_path, resumed=True)
  out = capsys.readouterr().out
  assert out.startswith('warning: ') and out.count('\n') == 1
  assert out.endswith(f': {name} ({now[name]} before, {value} now)\n')
  surroundings.note(tmp_path, resumed=True)  # as it is recorded now
  assert capsys.readouterr().out == ''


def test_a_run_that_begins_again_is_of_its_new_surroundings(
    tmp_path, monkeypatch, capsys):
  surroundings.note(tmp_path, resumed=False)
  now = surroundings.found()
  monkeypatch.setattr(surroundings, 'found', lambda: now | dict(cores=1))
  surroundings.note(tmp_path, resumed=False)
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('known', [None, {'numpy': np.__version__}])
def test_what_an_older_version_did_not_record_is_not_said(
    tmp_path, capsys, known):
  if known is not None:
    record.update(tmp_path, 'surroundings', known)
  surroundings.note(tmp_path, resumed=True)
  found = json.loads((tmp_path / 'run.json').read_text())['surroundings']
  assert capsys.readouterr().out == '' and found == surroundings.found()


def test_cores_that_the_process_may_not_use_do_not_count(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {7, 9, 11})
  assert surroundings.found()['cores'] == 3


def test_a_package_that_runs_from_its_source_has_no_version(monkeypatch):
  def version(name):
    raise metadata.PackageNotFoundError(name)
  monkeypatch.setattr(metadata, 'version', version)
  assert surroundings.found()['jaxlib'] is None


KEPT = """
import jax
from r1jax.training import surroundings
surroundings.keep_programs()
jax.jit(lambda x: x + 1)(1.)
"""


def _kept(folder, tmp_path, **variables):
  """What is printed, and the folders in which there are programs."""
  done = subprocess.run(
      [sys.executable, '-c', KEPT], cwd=tmp_path, text=True, check=True,
      stdout=subprocess.PIPE, env=os.environ | {
          'PYTHONPATH': str(ROOT), 'R1JAX_CACHE': folder, 'JAX_ENABLE_COMPILATION_CACHE': 'true',
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'} | variables)
  return done.stdout, [path.name for path in tmp_path.iterdir()
                       if any(file.is_file() for file in path.rglob('*'))]


def test_compiled_programs_are_kept(tmp_path):
  assert _kept('mine', tmp_path) == ('', ['mine'])


@pytest.mark.parametrize('told, least', [({}, .1), (
    {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '5'}, 5.)])
def test_programs_are_kept_that_take_a_tenth_of_a_second(tmp_path, told, least):
  done = subprocess.run(
      [sys.executable, '-c', KEPT + '''
print(jax.config.jax_persistent_cache_min_compile_time_secs)
'''], text=True, check=True, stdout=subprocess.PIPE, env=os.environ | {
          'PYTHONPATH': str(ROOT), 'R1JAX_CACHE': str(tmp_path),
          'JAX_ENABLE_COMPILATION_CACHE': 'true'} | told)
  assert float(done.stdout) == least


def test_compiled_programs_are_kept_where_jax_is_told(tmp_path):
  assert _kept('mine', tmp_path, JAX_COMPILATION_CACHE_DIR='theirs') == (
      '', ['theirs'])


def test_compiled_programs_are_not_kept_where_jax_is_told_so(
    tmp_path, monkeypatch):
  assert not jax.config.jax_enable_compilation_cache  # by conftest.py
  monkeypatch.setenv('R1JAX_CACHE', str(tmp_path / 'new'))
  surroundings.keep_programs()
  assert not (tmp_path / 'new').exists()


def test_a_folder_that_cannot_keep_programs_is_said(tmp_path):
  (tmp_path / 'file').touch()
  said, kept = _kept('file', tmp_path)
  assert said.startswith('compiled programs are not kept: ') and not kept
