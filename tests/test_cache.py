"""What is kept on this machine stays within its bounds."""

import os
import pathlib
import time

import pytest

from r1jax import cache


@pytest.fixture(name='files')
def _files(tmp_path):
  """Four of ten bytes, the first used the longest ago, some in a folder."""
  (tmp_path / 'folder').mkdir()
  files = [tmp_path / name for name in ('d', 'folder/c', 'folder/b', 'a')]
  for number, path in enumerate(files):
    path.write_bytes(bytes(10))
    used = time.time() - 2 * 24 * 3600 + number
    os.utime(path, (used, used))
  return files


@pytest.mark.parametrize('most, stay', [(40, 4), (39, 3), (20, 2), (5, 0)])
def test_the_last_used_stay_within_a_bound(
    tmp_path, files, monkeypatch, most, stay):
  monkeypatch.setattr(cache, '_BYTES', most)
  cache.tidy(tmp_path)
  assert [path for path in files if path.exists()] == files[4 - stay:]


def test_what_was_used_today_stays(tmp_path, files, monkeypatch):
  """Files that do not fit together, read in turns, would else all go."""
  monkeypatch.setattr(cache, '_BYTES', 5)
  for path in files[:2]:
    os.utime(path)
  cache.tidy(tmp_path)
  assert [path for path in files if path.exists()] == files[:2]


def test_what_is_read_is_used(tmp_path, files, monkeypatch):
  monkeypatch.setattr(cache, '_BYTES', 10)
  os.utime(files[1], (time.time(), 0))  # read now, written long ago
  cache.tidy(tmp_path)
  assert [path for path in files if path.exists()] == [files[1]]


def test_what_nobody_uses_goes_after_a_month(tmp_path, files):
  for path, days in zip(files, (31, 29, 28, 1)):
    used = time.time() - days * 24 * 3600
    os.utime(path, (used, used))
  cache.tidy(tmp_path)
  assert [path for path in files if path.exists()] == files[1:]


def test_another_process_may_tidy_at_once(tmp_path, files, monkeypatch):
  monkeypatch.setattr(cache, '_BYTES', 10)
  unlink = pathlib.Path.unlink
  monkeypatch.setattr(pathlib.Path, 'unlink', lambda path: (
      unlink(path), unlink(path)))  # the other one was first
  cache.tidy(tmp_path)
  assert [path for path in files if path.exists()] == files[3:]
  cache.tidy(tmp_path / 'none')
