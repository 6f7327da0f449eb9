"""Files of a run, whole or absent whatever a kill leaves; their digests."""

import hashlib
import json
import math
import os
import random

import pytest

from r1jax import errors
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


def test_half_a_surrogate_pair_is_no_character(tmp_path):
  files.append_rows(tmp_path / 'x', [{'text': 'a\ud800é'}])
  assert files.read_rows(tmp_path / 'x') == [{'text': 'a?é'}]


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


def test_an_output_that_was_edited_is_kept(tmp_path, caplog):
  path = tmp_path / 'kept-00000.jsonl'
  for _ in range(2):
    files.write_output(path, ROWS)
  assert [p.name for p in tmp_path.iterdir()] == [path.name] and (
      not caplog.messages)
  path.write_text('edited\n')
  files.write_output(path, ROWS)
  assert files.read_rows(path) == ROWS and str(path) in caplog.text
  assert path.with_name(f'{path.name}.old').read_text() == 'edited\n'


def test_what_a_killed_truncation_leaves_does_no_harm(tmp_path):
  path = _written(tmp_path)
  path.with_name(f'.rows.jsonl.{os.getpid()}.part').write_text('{"step": 7}\n')
  files.truncate_rows(path, 1)
  assert files.read_rows(path) == ROWS[:1]


@pytest.mark.parametrize('line', [b'{"step": 1', b'\xff\xfe', b'7', b'\0'])
def test_damage_before_the_last_line_is_named(tmp_path, line):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"step": 0}\n' + line + b'\n{"step": 2}\n')
  with pytest.raises(errors.ConfigError, match=r'rows.jsonl, line 2: expected'):
    files.read_rows(path)


@pytest.mark.parametrize('row', ['{"loss": 1}', '{"step": "1"}'])
def test_a_row_without_its_step_is_named(tmp_path, row):
  path = tmp_path / 'rows.jsonl'
  path.write_text(f'{{"step": 0}}\n{row}\n')
  with pytest.raises(errors.ConfigError, match='rows.jsonl: expected a step'):
    files.truncate_rows(path, 5)


def test_rows_are_read_backwards_and_no_more_than_asked(tmp_path, monkeypatch):
  rng = random.Random(0)
  for block in (1, 2, 7, 64, 1 << 16):
    monkeypatch.setattr(files, '_BLOCK', block)
    for _ in range(20):
      path = tmp_path / 'rows.jsonl'
      rows = [{'n': '中' * rng.randrange(9)} for _ in range(rng.randrange(6))]
      files.write_rows(path, rows)
      with open(path, 'ab') as file:
        file.write(rng.choice([b'', b'{"torn', b'{' * 200, b'\0\0']))
      assert [*files.stream_backwards(path)] == rows[::-1]
      if rows:
        longer = {'n': 'x' * 99}
        files.replace_last_row(path, longer)
        wanted = b''.join(map(files.row_line, [*rows[:-1], longer]))
        assert path.read_bytes() == wanted
  path.write_bytes(b'not read\n' * 20_000 + b'{"n": 1}\n{"n": 2}\n')
  assert next(files.stream_backwards(path)) == {'n': 2}
  assert not [*files.stream_backwards(tmp_path / 'none')]


# What cannot be read or written, and what the line about it says.
FAULTS = {
    'a full disk': (lambda path: path.symlink_to('/dev/full'), (
        lambda path: files.append_rows(path, ROWS)),
                    'No space left on device; make room on its disk'),
    'a folder in the place of rows': (
        lambda path: path.mkdir(), files.read_rows, 'Is a directory'),
    'a folder in the place of JSON': (
        lambda path: path.mkdir(), files.read_json, 'Is a directory'),
    'a file in the place of a folder': (
        lambda path: path.write_text(''),
        lambda path: files.write_json(path / 'x', {}), 'Not a directory'),
    'a broken link': (lambda path: path.symlink_to('nowhere/x'), (
        lambda path: files.append_rows(path, ROWS)), 'No such file'),
    'a folder that is in the way': (
        lambda path: (path / 'full').mkdir(parents=True),
        lambda path: files.write_json(path, {}), 'Is a directory'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_the_system_refuses_is_one_line_with_its_path(tmp_path, fault):
  make, use, words = FAULTS[fault]
  path = tmp_path / 'name'
  make(path)
  with pytest.raises(errors.RunError) as error:
    use(path)
  assert str(error.value).startswith(f'{path}')
  assert words in str(error.value) and '\n' not in str(error.value)
  assert 'start the same command again' in str(error.value)


def test_a_file_that_a_report_needs_is_named(tmp_path):
  (tmp_path / 'empty.jsonl').write_text('')
  (tmp_path / 'other.json').write_text('{"a": 1}')
  for read in (lambda: files.need_rows(tmp_path / 'empty.jsonl'),
               lambda: files.need_rows(tmp_path / 'none.jsonl'),
               lambda: files.need_json(tmp_path / 'none.json', ['b']),
               lambda: files.need_json(tmp_path / 'other.json', ['b'])):
    with pytest.raises(errors.ConfigError, match=rf'^{tmp_path}/.*from a copy'):
      read()
  assert files.need_json(tmp_path / 'other.json', ['a']) == {'a': 1}


def test_what_is_written_is_on_disk_with_its_folders(tmp_path, monkeypatch):
  synced, fsync = [], os.fsync
  monkeypatch.setattr(os, 'fsync', lambda number: (
      synced.append(os.readlink(f'/proc/self/fd/{number}')), fsync(number)))
  files.make_folder(tmp_path / 'a/b')
  assert synced == [str(tmp_path / 'a'), str(tmp_path)]
  files.write_json(tmp_path / 'a/b/x.json', {})
  assert synced[2:] == [
      str(tmp_path / f'a/b/.x.json.{os.getpid()}.part'), str(tmp_path / 'a/b')]
  with files.write_whole(tmp_path / 'model') as part:
    (part / 'in').mkdir(parents=True)
    (part / 'in/x').write_text('')
  part = f'{tmp_path}/.model.{os.getpid()}.part'
  assert synced[4:] == [f'{part}/in/x', f'{part}/in', part, str(tmp_path)]


def _left(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('before', [None, 'old'])
def test_what_is_written_takes_its_place_whole_or_not_at_all(tmp_path, before):
  path = tmp_path / 'page.html'
  if before:
    path.write_text(before)
  path.with_name('page.html.tmp').write_text("a user's")
  path.with_name('.page.html.99999999.part').write_text('what a kill has left')
  with pytest.raises(KeyboardInterrupt):
    with files.write_whole(path) as part:
      assert not part.exists() and part.parent == path.parent
      part.write_text('half')
      raise KeyboardInterrupt
  assert _left(tmp_path) == (
      ['page.html', 'page.html.tmp'] if before else ['page.html.tmp'])
  assert not before or path.read_text() == before
  with files.write_whole(path) as part:
    part.write_text('new')
    assert path.exists() == bool(before)
  assert path.read_text() == 'new'
  assert _left(tmp_path) == ['page.html', 'page.html.tmp']


def test_a_folder_is_written_whole_too(tmp_path):
  folder = tmp_path / 'model'
  left = folder.with_name('.model.99999999.part')
  left.mkdir()
  (left / 'of a kill').write_text('')
  with pytest.raises(ValueError):
    with files.write_whole(folder) as part:
      part.mkdir()
      raise ValueError
  assert not _left(tmp_path)
  with files.write_whole(str(folder)) as part:
    part.mkdir()
    (part / 'config.json').write_text('{}')
  assert _left(tmp_path) == ['model'] and _left(folder) == ['config.json']


def test_two_processes_that_write_the_same_do_not_meet(tmp_path):
  other = tmp_path / f'.model.{os.getppid()}.part'
  other.mkdir()  # of a process that lives
  with pytest.raises(errors.RunError, match=f'^{tmp_path}/model: Directory not'):
    with files.write_whole(tmp_path / 'model') as part:
      part.mkdir()
      (tmp_path / 'model').mkdir()
      (tmp_path / 'model/config.json').write_text('of the other')
  assert _left(tmp_path) == [other.name, 'model']


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
