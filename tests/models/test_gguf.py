"""GGUF files of the fixtures' models, as llama.cpp's conversion writes them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import gguf_files
import released
from r1jax import errors
from r1jax import models
from r1jax.data.vocabs import gguf_header
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import rotary


def _load(path):
  config = hf.read_config(path)
  like = released.like(models.build(config))
  return config, hf.load_params(path, config, like)


@pytest.mark.parametrize('left_out', [
    None, 'attention.key_length', 'rope.dimension_count', 'vocab_size'])
def test_llama(tmp_path, left_out):
  model, params, _ = released.fixture('llama')
  config, found = _load(gguf_files.write(
      tmp_path / 'x.gguf', gguf_files.header('llama') | {
          f'llama.{left_out}': None}, gguf_files.tensors('llama')))
  assert dataclasses.replace(config, rms_eps=1e-3) == dataclasses.replace(
      model.config, rms_eps=1e-3)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_gemma_whose_norms_have_one_added(tmp_path):
  model, params, _ = released.fixture('gemma3_text')
  config, found = _load(gguf_files.write(
      tmp_path / 'x.gguf', gguf_files.header('gemma3'),
      gguf_files.tensors('gemma3')))
  scale = model.config.head_size ** -0.5  # not in the file
  assert dataclasses.replace(config, rms_eps=1e-3) == dataclasses.replace(
      model.config, rms_eps=1e-3, attention_scale=scale)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
               found, params)


def _refused(path, *words):
  with pytest.raises(errors.ConfigError) as refusal:
    _load(str(path))
  assert '\n' not in str(refusal.value)
  for word in (path.name, *words):
    assert word in str(refusal.value)


@pytest.mark.parametrize('name, change, words', [
    ('token_embd.weight', None, ['token_embd.weight is missing']),
    ('token_embd.weight', np.zeros(96, np.float32), ['received (96,)']),
    ('output.weight', None, []),  # a tied model
    ('blk.1.ffn_up.weight', None, ['layers.1.mlp.up_proj', 'missing']),
    ('blk.1.ffn_up.weight', np.zeros((40, 31), np.float32), ['(40, 31)']),
    ('blk.2.ffn_up.weight', np.zeros((40, 32), np.float32), ['block_count']),
    ('blk.0.attn_q.bias', np.zeros(32, np.float32), ['blk.0.attn_q.bias']),
    ('blk.0.attn_q_norm.weight', np.zeros(8, np.float32), ['attn_q_norm']),
    ('blk.0.ffn_gate_inp.weight', np.zeros((2, 32), np.float32), ['gate_inp']),
    ('model.norm.weight', np.zeros(32, np.float32), ['two names']),
    ('blk.1.ffn_up.weight', np.zeros((40, 32), np.int32), ['not read', 'up']),
    ('rope_freqs.weight', np.ones(3, np.float32), ['4 numbers of float32']),
    ('rope_freqs.weight', np.ones(4, np.float16), ['4 numbers of float32']),
    ('rope_freqs.weight', np.full(4, np.nan, np.float32), ['rope_freqs']),
    ('rope_freqs.weight', np.full(4, np.inf, np.float32), ['rope_freqs'])])
def test_tensors_are_those_of_the_header(tmp_path, name, change, words):
  path = tmp_path / 'x.gguf'
  gguf_files.write(path, gguf_files.header('llama'),
                   gguf_files.tensors('llama') | {name: change})
  if words:
    _refused(path, *words)
  else:
    assert _load(str(path))[0].tied


@pytest.mark.parametrize('name, change', [
    ('some.counter', np.ones(3, np.int64)), ('blk.0.mask', np.ones(4, np.int8)),
    ('blk.1.attn_rot_embd.weight', np.ones(4, np.float32)),
    ('rope_freqs.weight', np.ones(4, np.float32))])
def test_what_is_no_weight_does_not_refuse_a_file(tmp_path, name, change):
  config, _ = _load(gguf_files.write(
      tmp_path / 'x.gguf', gguf_files.header('llama'),
      gguf_files.tensors('llama') | {name: change}))
  assert config.rope_scaling is None


def _llama3(path, divisor, **changes):
  values = gguf_files.header('llama') | {
      f'llama.rope.{key}': value for key, value in changes.items()}
  return gguf_files.write(
      path, values | {'llama.rope.freq_base': 5e5},
      gguf_files.tensors('llama') | {
          'rope_freqs.weight': np.asarray(divisor, np.float32)})


def test_the_scaling_of_llama3_is_told_by_its_divisors(tmp_path):
  path = tmp_path / 'llama3.gguf'
  scaling = architecture.RopeScaling('llama3', 32.)
  size = released.fixture('llama')[0].config.head_size
  divisor = rotary.frequencies(size, 5e5) / rotary.frequencies(
      size, 5e5, scaling)
  assert _load(_llama3(path, divisor))[0].rope_scaling == scaling
  _llama3(path, divisor ** 2)
  _refused(path, 'rope_freqs.weight')
  _llama3(path, divisor, **{'scaling.type': 'linear', 'scaling.factor': 32.})
  _refused(path, 'rope_freqs.weight', 'rope.scaling')


@pytest.mark.parametrize('wrong', [
    lambda data, end: data[:end + 1000], lambda data, end: data[:-1],
    lambda data, end: data + bytes(100), lambda data, end: data[:end]])
def test_a_file_of_another_size(tmp_path, wrong):
  path = tmp_path / 'x.gguf'
  gguf_files.write(
      path, gguf_files.header('llama'), gguf_files.tensors('llama'))
  data, begin = path.read_bytes(), gguf_header.read_header(path).begin
  path.write_bytes(wrong(data, begin))
  _refused(path, 'cut short' if len(wrong(data, begin)) < len(data) else
           'belong to no tensor')


def test_tensors_that_overlap(tmp_path):
  path = tmp_path / 'x.gguf'
  gguf_files.write(
      path, gguf_files.header('llama'), gguf_files.tensors('llama'))
  data = bytearray(path.read_bytes())
  stored = gguf_header.read_header(path)
  at = data.index(b'blk.0.attn_k.weight') + len('blk.0.attn_k.weight') + 24
  offset = stored.tensors['blk.0.attn_k.weight'].begin - stored.begin
  assert int.from_bytes(data[at:at + 8], 'little') == offset
  data[at:at + 8] = (offset - 32).to_bytes(8, 'little')
  path.write_bytes(data)
  _refused(path, 'begin at byte', 'received')


def test_what_is_no_such_file_is_refused(tmp_path):
  path = tmp_path / 'x.gguf'
  with pytest.raises(errors.ConfigError, match='there is no such file'):
    hf.read_config(str(path))
  for begin, words in (
      (b'GGML', 'not a GGUF file'), (b'GGUF\0\0\0\3', 'is big-endian'),
      (b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull')):
    path.write_bytes(begin + bytes(16))
    with pytest.raises(errors.ConfigError, match=words):
      hf.read_config(str(path))
  gguf_files.write(path, {'general.architecture': 'mamba'}, {})
  with pytest.raises(errors.ConfigError, match="received 'mamba'"):
    hf.read_config(str(path))


@pytest.mark.slow
@pytest.mark.parametrize('changes', [
    {}, {'attention.layer_norm_rms_epsilon': .1}, {'rope.freq_base': 20.},
    {'vocab_size': None}, {'rope.freq_base': None}, {
        'attention.head_count': 2, 'attention.head_count_kv': 1,
        'attention.key_length': 16, 'attention.value_length': 16,
        'rope.dimension_count': 16}])
def test_transformers_reads_the_same_from_llama(tmp_path, changes):
  """It knows no rope.scaling, and scales Gemma's queries by 1/16, whatever
  their size; these are compared with a config.json, in test_gguf_config.py."""
  values = gguf_files.header('llama') | {
      f'llama.{key}': value for key, value in changes.items()}
  path = gguf_files.write(tmp_path / 'x.gguf', values | {
      'tokenizer.ggml.tokens': [f'{i}' for i in range(96)]},
                          gguf_files.tensors('llama'))
  seen = released.expected('llama')
  model, params = released.load(path)
  found = released.transformers(
      tmp_path, 'x.gguf', tokens=seen.tokens, length=seen.length)
  np.testing.assert_allclose(
      released.forward(model, params, seen), found['logits'][seen.real],
      rtol=0, atol=released.TOLERANCE)


@pytest.mark.parametrize('changes, words', [
    ({}, ''), (dict(hidden_size='8'), 'is not read'),
    (dict(hidden_size=64), 'width is 32 in the first, 64 in the second'),
    *((dict([change]), f'{field} is') for field, change in dict(
        rope_theta=('rope_parameters', dict(
            rope_type='default', rope_theta=7.)),
        rms_eps=('rms_norm_eps', .1), tied=('tie_word_embeddings', True),
        activation=('hidden_act', 'gelu'),
        rope_scaling=('rope_parameters', dict(
            rope_type='linear', rope_theta=500., factor=4.)),
        max_len=('max_position_embeddings', 7)).items())])
def test_a_configuration_beside_it_that_is_of_another_model(
    tmp_path, caplog, changes, words):
  path = gguf_files.write(tmp_path / 'x.gguf', gguf_files.header('llama'),
                          gguf_files.tensors('llama'))
  fields = json.loads((released.FOLDER / 'llama' / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps(fields | changes))
  with caplog.at_level('WARNING'):
    hf.read_config(path)
  assert words in caplog.text and bool(words) == bool(caplog.text)
