"""Tests of reading a GGUF file's header, against the package's reader."""

import struct

import gguf
import numpy as np
import pytest

from r1jax.data.vocabs import gguf_header

import small_vocabs

_TYPES = gguf.GGUFValueType


@pytest.fixture
def path(tmp_path):
  """A file with a value of every type, and a tensor behind them."""
  writer = gguf.GGUFWriter(tmp_path / 'all.gguf', 'llama')
  for kind, value in (
      ('uint8', 200), ('int8', -100), ('uint16', 60_000), ('int16', -30_000),
      ('uint32', 2**32 - 1), ('int32', -2**31), ('uint64', 2**63 + 1),
      ('int64', -2**63), ('float32', .5), ('float64', .1), ('bool', True),
      ('string', 'naïve 北京')):
    getattr(writer, f'add_{kind}')(f'a.{kind}', value)
  writer.add_array('a.strings', ['', 'b', '∑'])
  writer.add_array('a.numbers', [1, -2, 3])
  writer.add_array('a.floats', [.5, -1.])
  writer.add_array('a.truths', [True, False])
  writer.add_tensor('t', np.ones((2, 32), np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return tmp_path / 'all.gguf'


def test_every_type_is_read_as_the_package_reads_it(path):
  fields = gguf.GGUFReader(path).fields
  assert gguf_header.read_header(path).metadata == {
      name: field.contents() for name, field in fields.items()
      if not name.startswith('GGUF.')}


def test_tensors_stand_where_the_package_finds_them(path):
  [tensor] = gguf.GGUFReader(path).tensors
  assert gguf_header.read_header(path).tensors == {'t': gguf_header.Stored(
      tuple(tensor.shape[::-1].tolist()), int(tensor.tensor_type),
      int(tensor.data_offset))}


def test_arrays_in_arrays(tmp_path):
  inner = struct.pack('<IQ2i', _TYPES.INT32, 2, 7, 8)
  value = struct.pack('<IQ', _TYPES.ARRAY, 2) + inner + inner
  _write(tmp_path / 'x', _TYPES.ARRAY, value)
  assert gguf_header.read_header(tmp_path / 'x').metadata == {
      'k': [[7, 8], [7, 8]]}


def _write(path, kind, value, version=3):
  path.write_bytes(struct.pack('<4sIQQQ1sI', b'GGUF', version, 0, 1, 1, b'k',
                               kind) + value)


@pytest.mark.parametrize('kind, version, value, message', [
    (_TYPES.STRING, 3, struct.pack('<Q', 2**40), 'cut off'),
    (_TYPES.STRING, 3, struct.pack('<Q1s', 1, b'\xff'), 'utf-8'),
    (_TYPES.ARRAY, 3, struct.pack('<IQ', _TYPES.INT32, 2**62), 'cut off'),
    (_TYPES.ARRAY, 3, struct.pack('<IQ', 99, 1), 'type 99'),
    (99, 3, b'', 'type 99'), (_TYPES.UINT32, 1, b'', 'version'),
    (_TYPES.UINT32, 3 << 24, b'', 'version')])
def test_a_broken_file_is_refused(tmp_path, kind, version, value, message):
  _write(tmp_path / 'x', kind, value, version)
  with pytest.raises(ValueError, match=message):
    gguf_header.read_header(tmp_path / 'x')


def test_what_is_there_twice_is_refused(tmp_path):
  value = struct.pack('<Q1sII', 1, b'k', _TYPES.UINT32, 7)
  (tmp_path / 'x').write_bytes(
      struct.pack('<4sIQQ', b'GGUF', 3, 0, 2) + 2 * value)
  with pytest.raises(ValueError, match='it has k twice'):
    gguf_header.read_header(tmp_path / 'x')
  tensor = struct.pack('<Q1sIQIQ', 1, b't', 1, 8, 0, 0)
  (tmp_path / 'x').write_bytes(
      struct.pack('<4sIQQ', b'GGUF', 3, 2, 0) + 2 * tensor)
  with pytest.raises(ValueError, match='it has t twice'):
    gguf_header.read_header(tmp_path / 'x')


def test_arrays_in_arrays_have_an_end(tmp_path):
  _write(tmp_path / 'x', _TYPES.ARRAY,
         struct.pack('<IQ', _TYPES.ARRAY, 1) * 10_000)
  with pytest.raises(ValueError, match='too deep'):
    gguf_header.read_header(tmp_path / 'x')


def test_a_file_cut_anywhere_is_refused(tmp_path, path):
  whole = path.read_bytes()
  read = gguf_header.read_header(path)
  for size in range(read.tensors['t'].begin - 32):
    (tmp_path / 'cut').write_bytes(whole[:size])
    with pytest.raises(ValueError):
      gguf_header.read_header(tmp_path / 'cut')
  assert len(read.metadata) == 17


def test_a_tokenizer(gguf_path):
  assert gguf_header.read_header(gguf_path).metadata == {
      'general.architecture': 'llama',
      **{k: v for k, v in small_vocabs.byte_level_fields().items()}}
