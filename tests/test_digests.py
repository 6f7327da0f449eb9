"""Digests are of the content, whatever its times say."""

import hashlib
import os
import time

from r1jax import digests


def _replace(path):
  path.with_name('aside').write_text(path.read_text())
  os.replace(path.with_name('aside'), path)


def test_a_file_is_read_again_when_it_has_changed(tmp_path, monkeypatch):
  path, reads = tmp_path / 'a.jsonl', []
  digest = hashlib.file_digest
  monkeypatch.setattr(digests.hashlib, 'file_digest', lambda file, kind: (
      reads.append(file.name) or digest(file, kind)))
  for number, change in enumerate((
      lambda: path.write_text('{}'), lambda: path.write_text('{} '),
      lambda: os.utime(path, ns=(0, 0)),
      lambda: _replace(path))):
    change()
    for _ in range(2):
      assert digests.of_file(path) == hashlib.sha256(
          path.read_bytes()).hexdigest()
    assert len(reads) == number + 1


def test_a_file_with_the_times_and_size_of_before_is_read_again(tmp_path):
  path = tmp_path / 'a'
  path.write_text('one')
  before, stat = digests.of_file(path), path.stat()
  time.sleep(.02)  # a clock of files may tick as slowly
  path.write_text('two')
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  assert digests.of_file(path) != before


def test_an_edit_of_r1jax_is_another_version_wherever_it_lies(
    tmp_path, monkeypatch):
  found = []
  for folder, text in (('a', 'x = 1'), ('b', 'x = 1'), ('c', 'x = 2')):
    (tmp_path / folder / 'training').mkdir(parents=True)
    (tmp_path / folder / 'training/module.py').write_text(text)
    monkeypatch.setattr(digests, '__file__', str(tmp_path / folder / 'x.py'))
    found.append(digests.of_code.__wrapped__())
  assert found[0] == found[1] != found[2]
