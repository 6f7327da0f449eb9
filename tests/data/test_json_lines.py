"""Rows of files in every form that people have them, and what is none."""

import datetime
import decimal
import gzip
import json
import os
import sys

import pytest

from r1jax import errors
from r1jax.data import columns
from r1jax.data import json_lines

GOOD = '{"a": "\\ud83d\\ude00 \\u6211 \\\\ud83d", "b": 1}'  # a pair is whole
ROWS = [dict(a='Is it?', b=1), dict(a='北京 "é"\n', b=[2.5, None])]
MARK = b'\xef\xbb\xbf'


def _zstandard(text):
  pyarrow = pytest.importorskip('pyarrow')
  sink = pyarrow.BufferOutputStream()
  with pyarrow.CompressedOutputStream(sink, 'zstd') as stream:
    stream.write(text)
  return sink.getvalue().to_pybytes()


def _read(path, split='train'):
  return json_lines.read_rows(str(path), split)


def _refused(path, message):
  with pytest.raises(errors.ConfigError) as caught:
    _read(path)
  line = str(caught.value)
  assert line.startswith(f'config.data.task: {path}{message}'), line
  assert '\n' not in line
  line.encode()  # can be shown


@pytest.mark.parametrize('line, said', [
    (r'{"a": "half \ud83d"}', 'surrogates not allowed'),
    (r'{"a": [{"b": ["\ude00\ud83d"]}]}', 'surrogates not allowed'),
    (r'{"\uD83D": 1}', 'surrogates not allowed'),
    ('{"a": ' + '[' * 100_000, 'recursion'),
    ('{"a": ' + '9' * 5000 + '}', 'digits'),
    ('{"a": 1e' + '9' * 30 + '}', 'out of range'),
    ('[1]', 'not a JSON object'), ('null', 'not a JSON object: None'),
    ('[["a", 1]]', 'not a JSON object'), ('"a"', 'not a JSON object'),
    ('{"a": 1', "not a JSON object: Expecting ',' delimiter, at character 8"),
    ('{"a": "b', 'not a JSON object: Unterminated'), ('{', 'not a JSON object'),
    ('{"a": 1} {"a": 2}', 'not a JSON object: followed by'),
    ('{"a": 1, "a": 2}', "not a JSON object: field 'a' is there twice"),
    ('{"a": {"b": 1, "b": 1}}', "not a JSON object: field 'b' is there twice"),
])
@pytest.mark.parametrize('array', [False, True])
def test_what_is_no_object_of_text_is_refused_with_its_place(
    tmp_path, line, said, array):
  path = tmp_path / 'a.jsonl'
  if array:
    path.write_text(f'[\n{GOOD},\n\n {line},\n{GOOD}\n]')
  else:
    path.write_text(f'{GOOD}\n\n{line}\n{GOOD}\n')
  place = f'{path}:4[1]' if array else f'{path}:3'
  with pytest.raises(errors.ConfigError) as caught:
    _read(path)
  message = str(caught.value)
  assert message.startswith(f'config.data.task: {place}: '), message
  assert '\n' not in message and (said in message or array)
  message.encode()


def test_escapes_of_whole_characters_are_read(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(GOOD + '\n')
  assert _read(path) == [(f'{path}:1', dict(a='\U0001f600 我 \\ud83d', b=1))]


_LINES = '\n'.join(json.dumps(row) for row in ROWS).encode()
_INDENTED = json.dumps(ROWS, indent=1, ensure_ascii=False).encode()
_GZIPPED = gzip.compress(_LINES, mtime=0)  # the same in each process


@pytest.mark.parametrize('content, places', [
    (_LINES, ':1 :2'), (_LINES + b'\n', ':1 :2'), (MARK + _LINES, ':1 :2'),
    (b'\n \n' + _LINES.replace(b'\n', b'\n\n\t\r\n') + b'\n\n\n', ':3 :6'),
    (_LINES.replace(b'\n', b'\r\n') + b'\r\n', ':1 :2'),
    (_LINES.replace(b'\n', b'\n' + MARK), ':1 :2'),  # files put together
    (b' ' + MARK + MARK + b' ' + _LINES, ':1 :2'),
    (json.dumps(ROWS).encode(), ':1[0] :1[1]'),
    (MARK + b'\r\n' + _INDENTED + b'\n\n', ':3[0] :7[1]'),
    (b'[\n' + _LINES.replace(b'\n', b'\n,\n') + b'\n]', ':2[0] :4[1]'),
])
@pytest.mark.parametrize('suffix, pack', [
    ('', bytes), ('.gz', gzip.compress), ('.zst', _zstandard),
    ('.gz', lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:])),
    ('.zst', lambda text: _zstandard(text[:9]) + _zstandard(text[9:])),
])
def test_a_file_is_read_in_every_form(tmp_path, content, places, suffix, pack):
  path = tmp_path / f'a.json{suffix}'
  path.write_bytes(pack(content))
  assert _read(path) == [
      (f'{path}{place}', row) for place, row in zip(places.split(), ROWS)]
  found = _read(path)
  for part in (slice(1, None), slice(1), slice(1, 2), slice(0), slice(-1, None),
               slice(None, -1), slice(1, -1)):
    ends = ['' if end is None else end for end in (part.start, part.stop)]
    assert _read(path, 'train[{}:{}]'.format(*ends)) == found[part]
  with pytest.raises(errors.ConfigError, match=r"a part.*received 'train\[-:\]'"):
    _read(path, 'train[-:]')


@pytest.mark.parametrize('content', [b'', b'\n \r\n', MARK, b'[]', b' [ \n]\n'])
def test_a_file_may_have_no_rows(tmp_path, content):
  path = tmp_path / 'a.json'
  path.write_bytes(content)
  assert not _read(path)


@pytest.mark.parametrize('text, message', [
    ('[{"a": 1}\n {"a": 2}]', ":1[0]: expected ',' or ']' after it, received"),
    ('[{"a": 1}, {"a": 2}', ":1[1]: expected ',' or ']' after it, received ''"),
    ('[{"a": 1},\n]', ':2[1]: not a JSON object: Expecting value'),
    ('[{"a": 1}]\n\n[{"a": 2}]', ':3: expected nothing after the array'),
    ('["q",\n "a"]', ":1[0]: not a JSON object: 'q'"),
    ('[[["q", "a"]]]', ':1[0]: not a JSON object: '),
    ('[', ':1[0]: not a JSON object: Expecting value'),
    ('{\n "a": 1\n}', ':1: not a JSON object: Expecting property name'),
])
def test_an_array_that_is_none_is_refused(tmp_path, text, message):
  path = tmp_path / 'a.json'
  path.write_text(text)
  _refused(path, message)


def test_what_is_no_part_of_a_split_is_read_too(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n[]')
  rows = json_lines.stream_rows(str(path), 'train[1:2]')
  assert next(rows) == (f'{path}:2', {'a': 2})
  with pytest.raises(errors.ConfigError, match=f'{path}:4: not a JSON object'):
    next(rows)


def test_two_fields_are_no_pair(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('[{"question": "1+1?", "answer": "2"}]')
  assert _read(path) == [(f'{path}:1[0]', dict(question='1+1?', answer='2'))]


@pytest.mark.parametrize('name, content, message', [
    ('a.jsonl', _LINES + b'\n{"a": "\xff"}', ':3: not UTF-8: invalid start'),
    ('a.jsonl', MARK + b'\n{"a": "\xe5\x8c"}', ':2: not UTF-8: invalid cont'),
    ('a.jsonl', _LINES.decode().encode('utf-16'), ':1: not UTF-8: '),
    ('a.gz', _GZIPPED[:-9], ' cannot be read: Compressed file'),
    ('a.gz', _LINES, ' cannot be read: Not a gzipped file'),
    ('a.gz', _GZIPPED[:20] + b'\0' * 20, ' cannot be read: '),
    ('a.zst', _zstandard(_LINES)[:-4], ' cannot be read: Truncated'),
    ('a.zst', _LINES, ' cannot be read: ZSTD'),
    ('a.parquet', _LINES, ' cannot be read: Parquet'),
    ('a.parquet', b'', ' cannot be read: Parquet'),
])
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path, name, content, message):
  path = tmp_path / name
  path.write_bytes(content)
  _refused(path, message)


@pytest.mark.parametrize('make, kind', [
    (os.mkdir, 'a folder'), (os.mkfifo, 'a pipe'),
    (lambda path: path.symlink_to('/dev/null'), 'a device')])
@pytest.mark.parametrize('name', ['b.jsonl', '*.jsonl'])
def test_what_is_no_file_is_said_to_be_that(tmp_path, name, make, kind):
  """It is not read either, for which a pipe would wait."""
  (tmp_path / 'a.jsonl').write_bytes(_LINES)
  make(tmp_path / 'b.jsonl')
  with pytest.raises(errors.ConfigError, match=f'b.jsonl is {kind}; expected'):
    _read(tmp_path / name)


def test_parquet_has_rows_as_json(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet
  asked = [{'role': 'user', 'content': '1+1?'}]
  rows = [dict(prompt=asked, reward_model={'ground_truth': '2'}, when=None,
               exact=decimal.Decimal('0.10'), raw=b'a'),
          dict(prompt=asked, reward_model={'ground_truth': None},
               when=datetime.date(2026, 1, 2), exact=decimal.Decimal('12.00'),
               raw=None)]
  path = tmp_path / 'train-00000-of-00001.parquet'
  parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)
  found = _read(path)
  assert [place for place, _ in found] == [f'{path}[0]', f'{path}[1]']
  assert found[0][1] == rows[0] | dict(exact=0.1)
  assert found[1][1] == rows[1] | dict(exact=12.0, when='2026-01-02')
  assert columns.written(found[1][1]['exact']) == '12'
  assert _read(path, 'train[1:]') == found[1:]


def test_a_float32_of_parquet_is_written_as_it_was(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet
  kind = pyarrow.float32()
  table = pyarrow.table({'a': pyarrow.array([0.1], kind), 'b': pyarrow.array(
      [[0.1, None]], pyarrow.list_(kind)), 'c': pyarrow.array([0.1])})
  parquet.write_table(table, tmp_path / 'a.parquet')
  assert _read(tmp_path / 'a.parquet') == [
      (f'{tmp_path}/a.parquet[0]', dict(a=0.1, b=[0.1, None], c=0.1))]


def test_parquet_of_two_columns_of_one_name_is_refused(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet
  table = pyarrow.Table.from_arrays(
      [pyarrow.array(['a']), pyarrow.array(['b'])], names=['q', 'q'])
  parquet.write_table(table, tmp_path / 'a.parquet')
  _refused(tmp_path / 'a.parquet', ' cannot be read: two columns')


@pytest.mark.parametrize('name', ['a.parquet', 'a.jsonl.zst'])
def test_without_the_extra_its_name_is_said(tmp_path, monkeypatch, name):
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  (tmp_path / name).write_bytes(b'')
  _refused(tmp_path / name, ' needs pyarrow: pip install "r1jax[parquet]"')


def test_what_is_not_finite_is_read_where_nothing_uses_it(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"a": NaN, "b": -Infinity, "c": 1e999}')
  (_, row), = _read(path)
  for name in row:
    with pytest.raises(errors.ConfigError, match=":1: .* in '[abc]', rec"):
      columns.Column(columns.reference, (name,)).read(row, f'{path}:1')
