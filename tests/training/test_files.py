"""Files of a run, whole or absent whatever a kill leaves; their digests."""

import hashlib
import json
import math
import os

import pytest

from r1jax.training import files

ROWS = [{'step': 0, 'text': '<think>\n中文\u2028</think>'}, {'step': 1},
        {'step': 1, 'eval': 0.5}, {'step': 2, 'norm': math.inf}]


def _written(tmp_path, tail=b''):
  path = tmp_path / 'rows.jsonl'
  files.append_rows(path, ROWS[:1])
  files.append_rows(path, ROWS[1:])
  with open(path, 'ab') as file:
    file.write(tail)
  return path


def test_round_trip_one_line_a_row(tmp_path):
  path = _written(tmp_path)
  assert path.read_bytes().count(b'\n') == len(ROWS)
  assert '中文' in path.read_text('utf-8')
  assert files.read_rows(path) == ROWS


def test_nan_survives(tmp_path):
  files.append_rows(tmp_path / 'x', [{'step': 0, 'loss': math.nan}])
  assert math.isnan(files.read_rows(tmp_path / 'x')[0]['loss'])


def test_no_file_has_no_rows(tmp_path):
  assert files.read_rows(tmp_path / 'none') == []
  files.truncate_rows(tmp_path / 'none', 3)
  assert not (tmp_path / 'none').exists()


def test_every_cut_through_the_file_reads_as_its_whole_lines(tmp_path):
  whole = _written(tmp_path).read_bytes()
  path = tmp_path / 'cut.jsonl'
  for end in range(len(whole) + 1):
    path.write_bytes(whole[:end])
    assert files.read_rows(path) == ROWS[:whole[:end].count(b'\n')]


@pytest.mark.parametrize('step', range(4))
def test_truncation_drops_later_steps_and_a_torn_line(tmp_path, step):
  path = _written(tmp_path, tail=b'{"step": 0, "te')
  files.truncate_rows(path, step)
  kept = [row for row in ROWS if row['step'] < step]
  assert files.read_rows(path) == kept
  files.append_rows(path, [{'step': step}])  # starts on a line of its own
  assert files.read_rows(path) == [*kept, {'step': step}]
  assert [p.name for p in tmp_path.iterdir()] == ['rows.jsonl']


def test_what_a_killed_truncation_leaves_does_no_harm(tmp_path):
  path = _written(tmp_path)
  path.with_name('rows.jsonl.tmp').write_text('{"step": 7}\n')
  files.truncate_rows(path, 1)
  assert files.read_rows(path) == ROWS[:1]


@pytest.mark.parametrize('line', [b'{"step": 1', b'\xff\xfe'])
def test_damage_before_the_last_line_is_named(tmp_path, line):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"step": 0}\n' + line + b'\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r'rows.jsonl, line 2: expected'):
    files.read_rows(path)


def _left(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('before', [None, 'old'])
def test_what_is_written_takes_its_place_whole_or_not_at_all(tmp_path, before):
  path = tmp_path / 'page.html'
  if before:
    path.write_text(before)
  path.with_name('page.html.tmp').write_text('what a kill has left')
  with pytest.raises(KeyboardInterrupt):
    with files.write_whole(path) as part:
      assert not part.exists() and part.parent == path.parent
      part.write_text('half')
      raise KeyboardInterrupt
  assert _left(tmp_path) == (['page.html'] if before else [])
  assert not before or path.read_text() == before
  with files.write_whole(path) as part:
    part.write_text('new')
    assert path.exists() == bool(before)
  assert path.read_text() == 'new' and _left(tmp_path) == ['page.html']


def test_a_folder_is_written_whole_too(tmp_path):
  folder = tmp_path / 'model'
  folder.with_name('model.tmp').mkdir()
  (folder.with_name('model.tmp') / 'of a kill').write_text('')
  with pytest.raises(ValueError):
    with files.write_whole(folder) as part:
      part.mkdir()
      raise ValueError
  assert not _left(tmp_path)
  with files.write_whole(str(folder)) as part:
    part.mkdir()
    (part / 'config.json').write_text('{}')
  assert _left(tmp_path) == ['model'] and _left(folder) == ['config.json']


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
