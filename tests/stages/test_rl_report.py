"""The report of an rl stage names commands that can be typed again."""

import sys

import pytest

from r1jax.stages import rl_report


@pytest.mark.parametrize('given', [
    ['--workdir=/a b', '--config.seed=3'], ['--workdir', '/a b'], []])
def test_the_next_command_replaces_what_it_changes(monkeypatch, given):
  monkeypatch.setattr(sys, 'argv', [
      'main.py', '--config=x.py:mini', *given, '--config.rl.group=4'])
  begin = 'python -m r1jax.main --config=x.py:mini'
  assert rl_report.command({'workdir': '/c', 'config.seed': 4}) == (
      f'{begin} --config.rl.group=4 --workdir=/c --config.seed=4')
  quoted = [f"'{arg}'" if ' ' in arg else arg for arg in given]
  assert rl_report.command() == ' '.join([begin, *quoted, '--config.rl.group=4'])
