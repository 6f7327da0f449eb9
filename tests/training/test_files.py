"""JSON Lines: what a kill leaves behind, and what a resume drops."""

import math

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
