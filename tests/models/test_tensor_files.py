"""safetensors files: what is no such file, or half of one, is refused by name.
"""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import released
from r1jax import errors
from r1jax.models import tensor_files


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


def test_a_dtype_that_no_weight_has(tmp_path):
  safetensors.numpy.save_file({'ids': np.ones(3, np.int64)},
                              tmp_path / 'model.safetensors')
  _refused(tmp_path, 'model.safetensors', 'ids', 'I64')


@pytest.mark.parametrize('left', [0, 4, 8, 100, 3000, 40_000, 82_000])
def test_a_file_that_is_cut_short(tmp_path, left):
  folder = released.copy('llama', tmp_path)
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:left])
  _refused(folder, str(path))


_ENTRY = dict(dtype='F32', shape=[2], data_offsets=[0, 8])


@pytest.mark.parametrize('header', [
    [], 'text', dict(x=_ENTRY | dict(shape=[3])),
    dict(x=_ENTRY | dict(data_offsets=[0, 12])),
    dict(x=_ENTRY | dict(data_offsets=[-8, 8])),
    dict(x=_ENTRY | dict(data_offsets=[8, 0])),
    dict(x=_ENTRY | dict(data_offsets=[0])),
    dict(x=_ENTRY | dict(data_offsets=None)),
    dict(x=_ENTRY | dict(shape=[-2])), dict(x=_ENTRY | dict(shape=2)),
    dict(x=_ENTRY | dict(shape=['2'])), dict(x=_ENTRY | dict(dtype=[1])),
    dict(x=dict(dtype='F32', shape=[2])), dict(x=3)])
def test_a_header_that_makes_no_sense(tmp_path, header):
  path = tmp_path / 'model.safetensors'
  released.write(path, header, bytes(8))
  _refused(tmp_path, str(path))


def test_what_is_no_such_file(tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:4d')
  _refused(tmp_path, str(path))
  path.write_bytes((5).to_bytes(8, 'little') + b'\xff\xfe{}x' + bytes(8))
  _refused(tmp_path, str(path))


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


def test_an_index_stays_in_its_folder(tmp_path):
  folder = released.copy('qwen3', tmp_path)
  outside = tmp_path / 'model.safetensors'
  released.write(outside, dict(x=_ENTRY), bytes(8))
  for name in ('../model.safetensors', str(outside)):
    (folder / 'model.safetensors.index.json').write_text(
        json.dumps(dict(weight_map=dict(x=name))), 'utf-8')
    _refused(folder, name)


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
