"""What sameness depends on is recorded, and a change is one line."""

import json
import os

import jax
import pytest

from r1jax.training import surroundings


def test_a_run_knows_its_surroundings(tmp_path):
  surroundings.note(tmp_path, resumed=False)
  found = json.loads((tmp_path / 'run.json').read_text())['surroundings']
  assert found == surroundings.found()
  assert found['jax'] == jax.__version__ and found['devices'] == 8
  assert found['cores'] == len(os.sched_getaffinity(0))
  assert found['XLA_FLAGS'] == os.environ['XLA_FLAGS']
  assert found['jax_enable_x64'] is False


def test_what_is_the_same_is_not_said(tmp_path, capsys):
  for resumed in (False, True, True):
    surroundings.note(tmp_path, resumed)
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('change', [
    dict(cores=1), dict(jax='0.1'), dict(devices=4), dict(platform='tpu'),
    dict(NPROC='3'), dict(jax_default_matmul_precision='highest')])
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


def test_a_run_of_an_older_version_has_none(tmp_path, capsys):
  surroundings.note(tmp_path, resumed=True)
  assert capsys.readouterr().out == '' and (tmp_path / 'run.json').exists()
