"""summary.json is whole or absent; a digest names a config and nothing else."""

import hashlib
import json
import os

import pytest

from r1jax.training import files


def test_write_replaces_whole_files_only(tmp_path):
  path = tmp_path / 'summary.json'
  files.write_json(path, {'pass@1': 0.5, 'stage': '强化'})
  assert json.loads(path.read_text('utf-8')) == {'pass@1': 0.5, 'stage': '强化'}
  with pytest.raises(TypeError):  # fails halfway through the object
    files.write_json(path, {'pass@1': 0.6, 'bad': object()})
  assert json.loads(path.read_text('utf-8'))['pass@1'] == 0.5


def test_what_a_stage_leaves(tmp_path):
  for name in ('rollouts.jsonl', 'metrics.jsonl', 'report.html'):
    (tmp_path / name).write_text(name)
  for step in ('9', '10', '11', '12.tmp'):  # 11 has lost its manifest
    folder = tmp_path / 'checkpoints' / step / 'manifest'
    folder.mkdir(parents=True)
    if step != '11':
      (folder / 'metadata').write_text(step)
  assert files.output_digests(tmp_path) == {
      'checkpoint': hashlib.sha256(b'10').hexdigest(),
      'rollouts.jsonl': hashlib.sha256(b'rollouts.jsonl').hexdigest()}
  assert not files.output_digests(tmp_path / 'nowhere')


def test_a_file_is_read_again_when_it_has_changed(tmp_path, monkeypatch):
  path, reads = tmp_path / 'a.jsonl', []
  digest = hashlib.file_digest
  monkeypatch.setattr(files.hashlib, 'file_digest', lambda file, kind: (
      reads.append(file.name) or digest(file, kind)))
  for number, change in enumerate((
      lambda: path.write_text('{}'), lambda: path.write_text('{} '),
      lambda: os.utime(path, ns=(0, 0)),
      lambda: files.write_json(path, {'x': 1}))):
    change()
    for _ in range(2):
      assert files.file_digest(path) == hashlib.sha256(
          path.read_bytes()).hexdigest()
    assert len(reads) == number + 1


CONFIG = {'seed': 0, 'optim': {'lr': 1e-4, 'b': (0.9, 0.95)}, 'ref': None}


def test_digest_is_of_the_content():
  reordered = {'ref': None, 'optim': {'b': [0.9, 0.95], 'lr': 1e-4}, 'seed': 0}
  assert files.config_digest(CONFIG) == files.config_digest(reordered)
  # Golden: it may change only with the canonical form, which renames every
  # config there is.
  assert files.config_digest({}) == (
      '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a')


@pytest.mark.parametrize('other', [
    {'seed': 1}, {'optim': {'lr': 2e-4, 'b': (0.9, 0.95)}}, {'new': 1},
    {'ref': False}])
def test_any_other_value_gives_another_digest(other):
  assert files.config_digest(CONFIG) != files.config_digest(CONFIG | other)
