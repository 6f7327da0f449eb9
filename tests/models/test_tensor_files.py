"""safetensors files: what is no such file, or half of one, is refused by name.
"""

import json
import random

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import released
from r1jax import errors
from r1jax.models import tensor_files


_ENTRY = dict(dtype='F32', shape=[2], data_offsets=[0, 8])


def _refused(folder, *words):
  with pytest.raises(errors.ConfigError) as refusal:
    found = tensor_files.open_folder(folder)
    for name in found.shapes:
      found.read(name)
  for word in words:
    assert word in str(refusal.value)


@pytest.mark.parametrize('name', ['llama', 'qwen2', 'qwen3'])
def test_tensors_are_those_that_were_written(name):
  """In float32, in bfloat16 and in several files."""
  folder = released.FOLDER / name
  found, wanted = tensor_files.open_folder(folder), released.tensors(folder)
  assert set(found.shapes) == set(wanted)
  for name, x in wanted.items():
    assert found.shapes[name] == x.shape
    assert found.read(name).dtype == x.dtype
    np.testing.assert_array_equal(found.read(name), x)


@pytest.mark.parametrize('dtype', [
    np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_dtypes_and_empty_and_scalar_shapes(tmp_path, dtype):
  tensors = {'one': np.ones((), dtype), 'none': np.ones((0, 3), dtype),
             'some': np.arange(6).astype(dtype).reshape(2, 3)}
  safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
  found = tensor_files.open_folder(tmp_path)
  for name, x in tensors.items():
    assert found.read(name).dtype == x.dtype
    np.testing.assert_array_equal(found.read(name), x)


@pytest.mark.parametrize('dtype, name', [
    (np.int64, 'I64'), (np.uint8, 'U8'), (bool, 'BOOL'), (np.int8, 'I8'),
    (ml_dtypes.float8_e5m2, 'F8_E5M2')])
def test_a_dtype_that_no_weight_has_is_refused_when_it_is_read(
    tmp_path, dtype, name):
  """What stands beside it is read."""
  released.write(tmp_path / 'model.safetensors', dict(
      x=_ENTRY, ids=dict(dtype=name, shape=[3], data_offsets=[
          8, 8 + 3 * np.dtype(dtype).itemsize])),
                 bytes(8 + 3 * np.dtype(dtype).itemsize))
  found = tensor_files.open_folder(tmp_path)
  np.testing.assert_array_equal(found.read('x'), [0, 0])
  assert found.dtypes['ids'] == name and found.shapes['ids'] == (3,)
  _refused(tmp_path, 'model.safetensors', 'ids', name)


@pytest.mark.parametrize('change, word', [
    (lambda data: data[:-8], 'cut short'), (lambda data: data[:7], 'cut short'),
    (lambda data: data + bytes(4), '4 bytes that belong to no tensor'),
    (lambda data: data.replace(b'"F32"', b'"F16"', 1), 'damaged header'),
    (lambda data: data.replace(b'{', b'[', 1), 'no safetensors file'),
    (lambda data: bytes(8) + data, 'no safetensors file')])
def test_the_cause_is_named(tmp_path, change, word):
  path = tmp_path / 'model.safetensors'
  released.write(path, dict(x=_ENTRY), bytes(8))
  path.write_bytes(change(path.read_bytes()))
  _refused(tmp_path, str(path), word)


def test_a_key_that_is_there_twice(tmp_path):
  path = tmp_path / 'model.safetensors'
  entry = json.dumps(_ENTRY)
  text = f'{{"x": {entry}, "x": {entry.replace("F32", "I32")}}}'.encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + bytes(8))
  _refused(tmp_path, str(path), "'x' twice")
  path = tmp_path / 'config.json'
  path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
  with pytest.raises(errors.ConfigError, match="config.json: .*'c' twice"):
    tensor_files.read_json(path)
  path.write_text('{"a": 1, "a": 1}')
  assert tensor_files.read_json(path) == {'a': 1}


def test_any_change_of_bytes_is_read_or_refused_in_one_line(tmp_path):
  path, rng = tmp_path / 'model.safetensors', random.Random(0)
  released.write(path, dict(x=_ENTRY, y=dict(
      dtype='F16', shape=[2, 2], data_offsets=[8, 16])), bytes(16))
  whole = path.read_bytes()
  for number in range(300):
    data = bytearray(whole)
    if number % 3:
      for _ in range(rng.choice([1, 1, 3])):
        data[rng.randrange(len(whole))] = rng.choice([0, 34, 49, 91, 125, 255])
    else:
      data = data[:rng.randrange(len(whole))]
    path.write_bytes(data)
    try:
      found = tensor_files.open_folder(tmp_path)
      for name in found.shapes:
        found.read(name)
    except errors.ConfigError as refusal:
      assert str(path) in str(refusal) and '\n' not in str(refusal)


@pytest.mark.parametrize('left', [0, 4, 8, 100, 3000, 40_000, 82_000])
def test_a_file_that_is_cut_short(tmp_path, left):
  folder = released.copy('llama', tmp_path)
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:left])
  _refused(folder, str(path))


@pytest.mark.parametrize('header', [
    [], 'text', dict(x=_ENTRY | dict(shape=[3])),
    dict(x=_ENTRY | dict(data_offsets=[0, 12])),
    dict(x=_ENTRY | dict(data_offsets=[-8, 8])),
    dict(x=_ENTRY | dict(data_offsets=[8, 0])),
    dict(x=_ENTRY | dict(data_offsets=[0])),
    dict(x=_ENTRY | dict(data_offsets=None)),
    dict(x=_ENTRY | dict(shape=[-2])), dict(x=_ENTRY | dict(shape=2)),
    dict(x=_ENTRY | dict(shape=['2'])), dict(x=_ENTRY | dict(dtype=[1])),
    dict(x=dict(dtype='F32', shape=[2])), dict(x=3),
    dict(x=_ENTRY | dict(shape=[True, 2])), dict(x=_ENTRY | dict(more=1)),
    dict(x=_ENTRY | dict(data_offsets=[0., 8.])),
    dict(x=_ENTRY, y=_ENTRY),
    dict(x=_ENTRY, y=_ENTRY | dict(shape=[1], data_offsets=[4, 8])),
    dict(x=_ENTRY | dict(shape=[1], data_offsets=[4, 8]))])
def test_a_header_that_makes_no_sense(tmp_path, header):
  path = tmp_path / 'model.safetensors'
  released.write(path, header, bytes(8))
  _refused(tmp_path, str(path))


def test_what_is_no_such_file(tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes((5).to_bytes(8, 'little') + b'\xff\xfe{}x' + bytes(8))
  _refused(tmp_path, str(path))


def test_what_stands_in_place_of_a_file(tmp_path):
  """A pointer, a folder, or a link without its file; with an index and not."""
  path, index = tmp_path / 'model.safetensors', tmp_path / tensor_files.INDEX
  path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:4d')
  _refused(tmp_path, str(path), 'Git LFS', 'git lfs pull')
  path.rename(index)
  _refused(tmp_path, str(index), 'Git LFS', 'git lfs pull')
  index.unlink()
  path.mkdir()
  _refused(tmp_path, str(path), 'is a folder')
  _index(tmp_path, dict(x='model.safetensors'))
  _refused(tmp_path, str(index), "'model.safetensors', which is a folder")
  path.rmdir()
  path.symlink_to('../blobs/4d')
  _refused(tmp_path, str(index), 'a link to ../blobs/4d, which is missing')
  index.unlink()
  _refused(tmp_path, str(path), 'a link to ../blobs/4d, which is missing')
  path.rename(tmp_path / 'config.json')
  with pytest.raises(errors.ConfigError, match='json: is a link to ../blobs'):
    tensor_files.read_json(tmp_path / 'config.json')


@pytest.mark.parametrize('name', [
    'pytorch_model.bin', 'pytorch_model-00001-of-00002.bin', 'model.pt',
    'consolidated.00.pth'])
def test_a_pickle_is_never_opened(tmp_path, name):
  (tmp_path / name).write_bytes(b'\x80\x04N.')
  _refused(tmp_path, name, 'pickle')


def test_a_folder_without_weights(tmp_path):
  _refused(tmp_path, str(tmp_path), 'model.safetensors')


def test_an_index_and_its_files(tmp_path):
  folder = released.copy('qwen3', tmp_path)
  (folder / 'model-00002-of-00003.safetensors').unlink()
  _refused(folder, 'model-00002-of-00003.safetensors', 'missing')
  index = folder / 'model.safetensors.index.json'
  for text in ('{', '[]', '{}', '{"weight_map": []}',
               '{"weight_map": {"x": 3}}', '{"weight_map": {}}'):
    index.write_text(text, 'utf-8')
    _refused(folder, 'model.safetensors.index.json')


def _index(folder, places):
  (folder / 'model.safetensors.index.json').write_text(
      json.dumps(dict(weight_map=places)), 'utf-8')


def test_an_index_and_its_files_say_the_same(tmp_path):
  for name in 'ab':
    released.write(tmp_path / f'{name}.safetensors', {name: _ENTRY}, bytes(8))
  _index(tmp_path, dict(a='a.safetensors', b='b.safetensors'))
  assert set(tensor_files.open_folder(tmp_path).shapes) == {'a', 'b'}
  for places, file, word in (
      (dict(a='a.safetensors', b='a.safetensors'), 'a.', 'does not hold b'),
      (dict(a='b.safetensors', b='a.safetensors'), 'a.', 'holds a, which'),
      (dict(a='a.safetensors', c='a.safetensors', b='b.safetensors'), 'a.',
       'does not hold c'),
      (dict(b='a.safetensors'), 'a.', 'holds a, which')):
    _index(tmp_path, places)
    _refused(tmp_path, f'{file}safetensors', 'index.json', word)


def test_a_whole_file_beside_an_index_of_others(tmp_path):
  """transformers takes the first, others the second."""
  folder = released.copy('qwen3', tmp_path)
  released.write(folder / 'model.safetensors', dict(x=_ENTRY), bytes(8))
  _refused(folder, 'model.safetensors', 'index.json', 'remove the one')
  _index(folder, dict(x='model.safetensors'))
  assert set(tensor_files.open_folder(folder).shapes) == {'x'}


@pytest.mark.parametrize('name', [
    'model-00001-of-00002.safetensors', 'consolidated.safetensors', 'a.gguf'])
def test_files_that_no_index_names(tmp_path, name):
  (tmp_path / name).touch()
  _refused(tmp_path, 'model.safetensors', name)


def test_an_index_stays_in_its_folder(tmp_path):
  folder = released.copy('qwen3', tmp_path)
  outside = tmp_path / 'model.safetensors'
  released.write(outside, dict(x=_ENTRY), bytes(8))
  for name in ('../model.safetensors', str(outside), '', '.', 'a/../../b'):
    (folder / 'model.safetensors.index.json').write_text(
        json.dumps(dict(weight_map=dict(x=name))), 'utf-8')
    _refused(folder, 'index.json', f"received '{name}' for 'x'")


@pytest.mark.parametrize('name', ['x' * 5000, 'a\0b', '\ud800', 'a\nb'])
def test_an_index_and_names_that_no_file_has(tmp_path, name):
  _index(tmp_path, dict(x=name))
  with pytest.raises(errors.ConfigError) as refusal:
    tensor_files.open_folder(tmp_path)
  line = str(refusal.value)
  assert 'index.json: ' in line and '\n' not in line and len(line) < 500


def test_files_in_folders_of_this_folder(tmp_path):
  (tmp_path / 'part').mkdir()
  for name in ('a', 'part/b'):
    released.write(tmp_path / f'{name}.safetensors', {name[-1]: _ENTRY},
                   bytes(8))
  _index(tmp_path, dict(a='./a.safetensors', b='part/b.safetensors'))
  assert set(tensor_files.open_folder(tmp_path).shapes) == {'a', 'b'}


@pytest.mark.parametrize('content, word', [
    (None, 'no config.json'), (b'', 'JSON'), (b'{"vocab_size": 3', 'JSON'),
    (b'[]', 'JSON object'), (b'null', 'JSON object'), (b'\xff\xfe', 'JSON')])
def test_a_config_that_is_not_there_or_no_json(tmp_path, content, word):
  path = tmp_path / 'config.json'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.ConfigError) as refusal:
    tensor_files.read_json(path)
  assert word in str(refusal.value) and str(tmp_path) in str(refusal.value)
