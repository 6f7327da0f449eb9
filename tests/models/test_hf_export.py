"""Exported folders hold what was imported, to the bit, and load elsewhere."""

import dataclasses
import json
import os
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

import released
import tiny
from r1jax import errors
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import hf_config
from r1jax.models import hf_export

WHOLE = [name for name in released.NAMES if name != 'deepseek_v3_fp8']


def _dtype(name):
  return 'bfloat16' if name == 'qwen2' else 'float32'


def _imported(name):
  """In the dtype of the file."""
  model, params, _ = released.fixture(name, param_dtype=_dtype(name))
  return model.config, params


def _fields(folder):
  return json.loads((folder / 'config.json').read_text('utf-8'))


def _assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)

  def check(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)

  jax.tree.map(check, one, other)


@pytest.mark.parametrize('with_source', [True, False])
@pytest.mark.parametrize('name', WHOLE)
def test_import_and_export_change_nothing(tmp_path, name, with_source):
  source, out = released.FOLDER / name, tmp_path / 'out'
  config, params = _imported(name)
  hf_export.save_folder(
      str(out), config, params, str(source) if with_source else None)
  written, wanted = released.tensors(out), released.tensors(source)
  assert list(sorted(written)) == list(sorted(wanted))
  _assert_equal(written, wanted)
  _, again = released.load(out, param_dtype=_dtype(name))
  _assert_equal(again, params)
  assert hf.read_config(str(out)) == hf.read_config(str(source))
  if with_source:
    assert _fields(out) == _fields(source)


def test_float8_comes_out_as_it_was_computed_with(tmp_path):
  source, out = released.FOLDER / 'deepseek_v3_fp8', tmp_path / 'out'
  config, params = _imported('deepseek_v3_fp8')
  hf_export.save_folder(str(out), config, params, str(source))
  assert set(released.tensors(out)) == set(
      released.tensors(released.FOLDER / 'deepseek_v3'))
  assert 'quantization_config' not in _fields(out)
  _, again = released.load(out)
  _assert_equal(again, params)


@pytest.mark.parametrize('file_bytes', [1, 30_000, 60_000])
def test_several_files_and_their_index(tmp_path, file_bytes):
  out = tmp_path / 'out'
  hf_export.save_folder(
      str(out), *_imported('deepseek_v3'), file_bytes=file_bytes)
  wanted = released.tensors(released.FOLDER / 'deepseek_v3')
  _assert_equal(released.tensors(out), wanted)
  index = json.loads((out / 'model.safetensors.index.json').read_text('utf-8'))
  assert index['metadata']['total_size'] == sum(
      x.nbytes for x in wanted.values())
  files = sorted(path.name for path in out.glob('*.safetensors'))
  assert sorted(set(index['weight_map'].values())) == files
  count = len(files)
  assert files == [f'model-{i + 1:05}-of-{count:05}.safetensors'
                   for i in range(count)]
  largest = max(x.nbytes for x in wanted.values())
  for file in files:
    held = [name for name, where in index['weight_map'].items()
            if where == file]
    assert sum(wanted[name].nbytes for name in held) <= max(
        file_bytes, largest)
  _, again = released.load(out)
  _assert_equal(again, _imported('deepseek_v3')[1])


@pytest.mark.parametrize('name, sizes', [
    ('llama', dict(data=2)), ('deepseek_v3', dict(expert=2))])
def test_parameters_on_a_mesh(tmp_path, name, sizes):
  source, out = str(released.FOLDER / name), tmp_path / 'out'
  setup = released.setup(
      hf.read_config(source), dict(fsdp=2, tensor=2) | sizes)
  params = hf.load_params(source, setup.model.config, setup.params)
  hf_export.save_folder(str(out), setup.model.config, params, file_bytes=50_000)
  _assert_equal(released.tensors(out), released.tensors(released.FOLDER / name))


def test_what_changed_is_what_is_written(tmp_path):
  config, params = _imported('qwen3')
  params = jax.tree.map(lambda x: x + 1, params)
  hf_export.save_folder(str(tmp_path / 'out'), config, params)
  wanted = {name: x + 1 for name, x in released.tensors(
      released.FOLDER / 'qwen3').items()}
  _assert_equal(released.tensors(tmp_path / 'out'), wanted)


@pytest.mark.parametrize('name', ['llama', 'gemma3_text', 'deepseek_v3'])
def test_nothing_is_left_to_the_defaults_of_transformers(tmp_path, name):
  """As those of Llama: 1 and 2 begin and end a text, whatever they are."""
  config, params = _imported(name)
  hf_export.save_folder(str(tmp_path / 'out'), config, params)
  fields = _fields(tmp_path / 'out')
  for key in ('bos_token_id', 'eos_token_id', 'pad_token_id'):
    assert fields[key] is None and key in fields
  assert fields['attention_bias'] is False
  if name == 'deepseek_v3':
    assert fields['num_nextn_predict_layers'] == 0
    assert fields['scoring_func'] == 'sigmoid'


@pytest.mark.parametrize('padding', [None, 2])
def test_a_reward_model_s_padding_is_not_where_its_score_is_read(
    tmp_path, padding):
  """transformers passes it over: an end token, if that is not scored."""
  config, params = tiny.config(scalar=True), tiny.params(scalar=True)
  vocab = types.SimpleNamespace(
      eos_ids=(2, 3), bos_id=None, pad_id=2, tokens={'pad_token': '</s>'})
  fields = hf_export._fields(config, params, None, vocab, padding)
  assert (fields['eos_token_id'], fields['pad_token_id']) == ([2, 3], padding)
  vocab.pad_id = 0
  fields = hf_export._fields(config, params, None, vocab, padding)
  assert fields['pad_token_id'] == 0


def test_a_folder_is_never_written_over(tmp_path):
  config, params = _imported('llama')
  hf_export.save_folder(str(tmp_path / 'out'), config, params)
  before = (tmp_path / 'out' / 'model.safetensors').stat()
  with pytest.raises(errors.ConfigError, match='out: expected a folder'):
    hf_export.save_folder(str(tmp_path / 'out'), config, params)
  assert (tmp_path / 'out' / 'model.safetensors').stat() == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
  out = tmp_path / 'out'
  monkeypatch.setattr(safetensors.numpy, 'save_file', _full)
  with pytest.raises(errors.RunError, match=(
      f'^{out}: No space left on device; make room on its disk')):
    hf_export.save_folder(str(out), tiny.config(), tiny.params())
  assert not [*tmp_path.iterdir()]


def _full(*unused, **kwargs):
  raise safetensors.SafetensorError(
      'Error while serializing: I/O error: No space left on device (os error '
      '28)')


def test_what_no_architecture_has_leaves_nothing_behind(tmp_path):
  switches = dict(softcap_final=2.)
  with pytest.raises(errors.ConfigError, match='softcap_final: expected None'):
    hf_export.save_folder(str(tmp_path / 'out'), tiny.config(**switches),
                   tiny.params(**switches))
  assert not os.listdir(tmp_path)


_SCALING = architecture.RopeScaling
_QWEN2 = dict(qkv_bias=True, window=3)
_GEMMA = dict(qk_norm=True, norm_offset=1., post_norms=True, embed_scale=True,
              window=3, global_every=2)
# The same as other fields say: {what it computes: the other fields}.
_ALIKE = [
    (_QWEN2 | dict(local_layers=(True, False, True)), dict(
        local_layers=None, global_every=2)),
    (_QWEN2 | dict(local_layers=(True, True, False)), dict(
        local_layers=None, global_every=3)),
    (_QWEN2 | dict(local_layers=(True, True, True)), dict(local_layers=None)),
    (_QWEN2 | dict(local_layers=(False, False, False), rope_theta_local=7.),
     dict(local_layers=None, window=None)),
    (_GEMMA | dict(rope_theta_local=50.), dict(attention_scale=.5)),
    (_GEMMA | dict(rope_theta=50.), dict(rope_theta_local=50.)),
    (_GEMMA | dict(rope_theta_local=50., softcap_final=4., tied=False,
                   rope_scaling=_SCALING('linear', 8., original_len=9)),
     dict(rope_scaling=_SCALING('linear', 8.))),
    (_GEMMA | dict(rope_theta_local=50., activation='gelu',
                   rope_scaling=_SCALING('yarn', 4., original_len=32)),
     dict(attention_scale=.5)),
    (dict(rope_scaling=_SCALING('llama3', 8., original_len=32, beta_fast=9.),
          global_every=2), dict(
              global_every=6,
              rope_scaling=_SCALING('llama3', 8., original_len=32))),
    (dict(latent=architecture.Latent(4, 4, 2, 2, 4), qk_norm=True), dict(
        kv_heads=4, qk_norm=False))]


@pytest.mark.parametrize('switches, other', _ALIKE)
def test_what_computes_the_same_is_written_the_same(switches, other):
  switches = dict(layers=3) | switches
  config, same = tiny.config(**switches), tiny.config(**switches | other)
  assert config != same and architecture.difference(config, same) is None
  fields = hf_config.to_json(config)
  assert hf_config.to_json(same) == fields
  back = hf_config.from_json(fields, '')
  assert architecture.difference(back, config) is None


@pytest.mark.parametrize('switches', [switches for switches, _ in _ALIKE])
def test_no_field_that_counts_is_taken_as_the_same(switches):
  config = tiny.config(**dict(layers=3) | switches)
  local = [not x for x in config.is_local()]
  changes = [dict(rope_theta=3.), dict(window=2, local_layers=tuple(local)),
             dict(attention_scale=.7), dict(rope_scaling=_SCALING('linear', 2.))]
  if config.window and any(config.is_local()):
    changes += [dict(window=2), dict(rope_theta_local=3.)]
  for change in changes:
    other = dataclasses.replace(config, **change)
    name, one, two = architecture.difference(config, other)
    assert one != two and name in {*change, 'window'}, change


@pytest.mark.parametrize('switches, words', [
    (dict(moe=architecture.Experts(4, 2, 8)), 'model.moe: expected None'),
    (dict(_QWEN2, qk_norm=True), 'model.qk_norm: expected False .* Qwen2'),
    (dict(_GEMMA, attention_scale=.3), 'attention_scale: expected 0.3015'),
    (dict(_GEMMA, attention_scale=3.), 'attention_scale: expected 1.0'),
    (dict(_GEMMA, rope_scaling=_SCALING('linear', 2.)),
     'rope_theta_local: expected 10000.0'),
    (dict(_GEMMA, rope_scaling=_SCALING('yarn', 2., truncate=False)),
     'exported: .*truncate to be True')])
def test_the_field_that_cannot_be_written_is_named(switches, words):
  with pytest.raises(errors.ConfigError, match=words):
    hf_config.to_json(tiny.config(**switches))


@pytest.mark.slow
@pytest.mark.parametrize('switches', [switches for switches, _ in _ALIKE])
def test_transformers_computes_the_same_of_what_is_written(tmp_path, switches):
  switches = dict(layers=3, rms_eps=1e-3) | switches
  model, params = tiny.model(**switches), tiny.params(**switches)
  hf_export.save_folder(str(tmp_path / 'out'), model.config, params)
  tokens = np.random.default_rng(0).integers(0, 30, (2, 40))
  found = released.transformers(
      tmp_path, 'out', tokens=tokens, length=np.array([40, 40]))
  ours = released.logits(model, params, tokens, None, released.positions(tokens))
  np.testing.assert_allclose(
      found['logits'], ours, rtol=0, atol=released.TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('name', released.NAMES)
def test_transformers_loads_what_was_written(tmp_path, name):
  """Written without the source's config.json, and computing the same."""
  seen = released.expected(name)
  config, params = _imported(name)
  hf_export.save_folder(str(tmp_path / 'out'), config, params)
  found = released.transformers(
      tmp_path, 'out', tokens=seen.tokens, length=seen.length)
  np.testing.assert_allclose(
      found['logits'][seen.real], seen.logits[seen.real], rtol=0,
      atol=released.TOLERANCE)
