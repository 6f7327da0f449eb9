"""Released models compute what transformers does, however they are run.

The models are tiny ones of every architecture, see make_fixtures.py.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import released
from r1jax import errors
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.models import hf
from r1jax.types import Cache, Prompts

both = pytest.mark.parametrize('scan_layers', [True, False])
near = functools.partial(
    np.testing.assert_allclose, rtol=0, atol=released.TOLERANCE)


@both
@pytest.mark.parametrize('name', released.NAMES)
def test_documents_in_rows_with_padding(name, scan_layers):
  """Alone in a row or two in one; what the padding holds does not matter."""
  model, params, seen = released.fixture(name, scan_layers=scan_layers)
  found = []
  for padding in (0, 7):
    rows = released.rows(seen, padding)
    found.append(released.logits(
        model, params, rows.tokens, rows.segment, rows.position))
  assert found[0].dtype == jnp.float32
  for number, (row, begin) in enumerate(rows.places):
    length = seen.length[number]
    ours, same = (x[row, begin:begin + length] for x in found)
    np.testing.assert_array_equal(ours, same)
    near(ours, seen.logits[number, :length])
    logp, _ = logprobs.of_logits(ours[:-1], seen.tokens[number, 1:length])
    near(logp, seen.logp[number, 1:length])


@functools.partial(jax.jit, static_argnums=0)
def _begin(model, params, tokens):
  hidden, kept = model.forward(params, tokens, None, released.positions(tokens))
  return model.unembed(params, hidden), kept


@functools.partial(jax.jit, static_argnums=0)
def _step(model, params, cache, token_N, position_N):
  hidden, (k, v) = model.forward(
      params, token_N[:, None], None, position_N[:, None], cache)
  cache = cache._replace(k=k, v=v, filled=cache.filled + 1)
  return model.unembed(params, hidden)[:, 0], cache


@both
@pytest.mark.parametrize('name', released.NAMES)
def test_a_prompt_and_then_a_token_at_a_time(name, scan_layers):
  """Two responses to each prompt, through the prompt's and their own cache."""
  model, params, seen = released.fixture(name, scan_layers=scan_layers)
  found = []
  for padding in (5, 8):
    prompts, responses = released.begun(seen, padding)
    count, size = responses.shape
    first, kept = _begin(model, params, prompts.tokens)
    past = group_sampling.empty_past(*kept, rows=count, size=size)
    cache = Cache(*kept, prompts.length, *past, filled=jnp.int32(0))
    start = np.repeat(prompts.length, 2)
    logits = [first[np.arange(count) // 2, start - 1]]
    for i in range(size):
      one, cache = _step(model, params, cache, responses[:, i], start + i)
      logits.append(one)
    found.append(np.stack(logits, 1))
  for row, begin in enumerate(start):
    wanted = seen.logits[row // 2, begin - 1:seen.length[row // 2]]
    ours, same = (x[row, :len(wanted)] for x in found)
    near(ours, wanted)
    np.testing.assert_array_equal(ours, same)


_score = jax.jit(functools.partial(
    logprobs.of_responses, temperature=1., chunk=9), static_argnums=0)


@pytest.mark.parametrize('name', released.NAMES)
def test_scores_of_responses(name):
  model, params, seen = released.fixture(name)
  prompts, responses = released.begun(seen)
  logp, _ = _score(model, params, prompts, responses)
  for row, start in enumerate(np.repeat(prompts.length, 2)):
    wanted = seen.logp[row // 2, start:seen.length[row // 2]]
    near(logp[row, :len(wanted)], wanted)


@functools.partial(jax.jit, static_argnums=0)
def _continue(model, params, prompts):
  keys = group_sampling.sample_keys(0, 0, prompts.id, 2)
  return group_sampling.sample(
      model, params, prompts, keys, response_tokens=8, eos_ids=(),
      temperature=0.)


@pytest.mark.parametrize('name', released.NAMES)
def test_the_sampler_takes_the_likeliest_tokens(name):
  model, params, seen = released.fixture(name, scan_layers=False)
  tokens = np.pad(seen.prompt, (0, 3), constant_values=4)[None]
  prompts = Prompts(tokens, np.array([len(seen.prompt)], np.int32),
                    np.array([0], np.int32))
  found = _continue(model, params, prompts)
  np.testing.assert_array_equal(found.tokens, [seen.greedy] * 2)


@pytest.mark.parametrize('name', ['gemma3_text', 'deepseek_v3'])
def test_attention_a_few_queries_at_a_time(name):
  model, params, seen = released.fixture(name, attention_chunk=7)
  near(released.forward(model, params, seen), seen.logits[seen.real])


def _mesh(name):
  if name == 'gemma3_text':  # has one key head, which cannot be split
    return dict(data=2, fsdp=4)
  experts = dict(data=1, expert=2) if name.startswith('deepseek') else {}
  return dict(data=2, fsdp=2, tensor=2) | experts


@pytest.mark.parametrize('name', released.NAMES)
def test_parameters_come_where_they_are_wanted(name):
  model, params, _ = released.fixture(name)
  setup = released.setup(model.config, _mesh(name))
  found = hf.load_params(
      str(released.FOLDER / name), model.config, setup.params)

  def check(got, wanted, alone):
    assert got.sharding == wanted.sharding and got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, alone)
    for shard in got.addressable_shards:
      np.testing.assert_array_equal(shard.data, alone[shard.index])

  jax.tree.map(check, found, setup.params, params)
  assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(found))


@pytest.mark.parametrize('name', ['llama', 'qwen2', 'deepseek_v3_fp8'])
def test_parameters_come_in_the_dtype_wanted(name):
  _, half = released.load(released.FOLDER / name, param_dtype='bfloat16')
  _, whole, _ = released.fixture(name)

  def check(path, got, wanted):
    is_bias = jax.tree_util.keystr(path[-1:], simple=True) == 'router_bias'
    assert got.dtype == (jnp.float32 if is_bias else jnp.bfloat16)
    np.testing.assert_array_equal(got, wanted.astype(got.dtype))

  jax.tree_util.tree_map_with_path(check, half, whole)


def _refused(folder, *words):
  with pytest.raises(errors.ConfigError) as refusal:
    released.load(folder)
  for word in (folder.name, *words):
    assert word in str(refusal.value)


_GATE = 'model.layers.1.mlp.gate_proj.weight'
_EXPERT = 'model.layers.2.mlp.experts.11.up_proj.weight'


@pytest.mark.parametrize('name, tensor', [
    ('llama', _GATE), ('llama', 'lm_head.weight'),
    ('llama', 'model.norm.weight'), ('deepseek_v3', _EXPERT),
    ('deepseek_v3', 'model.layers.1.mlp.gate.e_score_correction_bias'),
    ('deepseek_v3', 'model.layers.0.mlp.down_proj.weight')])
def test_a_tensor_that_is_not_there(tmp_path, name, tensor):
  folder = released.copy(name, tmp_path)
  released.edit(folder, {tensor: None})
  _refused(folder, tensor, 'missing')


@pytest.mark.parametrize('name, tensor', [
    ('llama', 'model.layers.2.mlp.gate_proj.weight'),
    ('llama', 'model.layers.0.self_attn.q_proj.bias'),
    ('llama', 'model.layers.0.self_attn.q_norm.weight'),
    ('llama', 'score.weight'),
    ('deepseek_v3', _EXPERT.replace('11', '12')),
    ('deepseek_v3', 'model.layers.1.mlp.gate_proj.weight')])
@pytest.mark.parametrize('dtype', [np.float32, ml_dtypes.float8_e5m2])
def test_a_tensor_that_has_no_place(tmp_path, name, tensor, dtype):
  folder = released.copy(name, tmp_path)
  released.edit(folder, {tensor: np.ones((2, 2), dtype)})
  _refused(folder, tensor, 'does not belong')


@pytest.mark.parametrize('tensor, shape', [
    (_GATE, (32, 40)), (_GATE, (1280,)), ('model.norm.weight', (31,)),
    ('model.norm.weight', (32, 1)), ('lm_head.weight', (32, 96)),
    ('model.embed_tokens.weight', (95, 32)),
    ('model.embed_tokens.weight', (97, 32))])
def test_a_tensor_of_another_shape(tmp_path, tensor, shape):
  folder = released.copy('llama', tmp_path)
  released.edit(folder, {tensor: np.ones(shape, np.float32)})
  _refused(folder, tensor, f'received {shape}')


@pytest.mark.parametrize('changes', [
    {_EXPERT + '_scale_inv': None},
    {_EXPERT + '_scale_inv': np.ones((1, 5), np.float32)},
    {_EXPERT + '_scale_inv': np.ones((5, 2), np.float32)},
    {_EXPERT + '_scale_inv': np.ones((), np.float32)}])
def test_float8_needs_a_scale_a_block(tmp_path, changes):
  folder = released.copy('deepseek_v3_fp8', tmp_path)
  released.edit(folder, changes)
  _refused(folder, _EXPERT)


def test_float8_needs_to_be_announced(tmp_path):
  folder = released.copy('deepseek_v3_fp8', tmp_path)
  released.rewrite(folder, quantization_config=None)
  _refused(folder, 'config.json: expected a quantization_config', 'float8')
  released.rewrite(folder, quantization_config=dict(quant_method='gptq'))
  _refused(folder, 'quantization_config', 'gptq')


def test_what_predicts_further_tokens_is_left_out(tmp_path):
  """DeepSeek-V3's file has a layer behind the last, of other tensors too."""
  folder = released.copy('deepseek_v3', tmp_path)
  ones = np.ones((2, 2), np.float32)
  released.edit(folder, {f'model.layers.3.{name}.weight': ones for name in (
      'eh_proj', 'enorm', 'shared_head.head', 'mlp.experts.0.up_proj')})
  released.rewrite(folder, num_nextn_predict_layers=1)
  _, found = released.load(folder)
  _, wanted, _ = released.fixture('deepseek_v3')
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_tied_model_may_hold_its_output_too(tmp_path):
  """Old files do; and the frequencies, which config.json has."""
  folder = released.copy('llama3_rope', tmp_path)
  _, wanted, _ = released.fixture('llama3_rope')
  released.edit(folder, {
      'lm_head.weight': np.asarray(wanted['embedding']),
      'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(8, np.float32),
      'rotary_emb.inv_freq': np.ones(8, np.float32),
      'model.rotary_emb.cos_cached': np.ones((9, 8), np.float32)})
  _, found = released.load(folder)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_tied_model_may_hold_its_output_alone(tmp_path):
  folder = released.copy('llama3_rope', tmp_path)
  weight = released.tensors(folder)['model.embed_tokens.weight']
  released.edit(folder, {'lm_head.weight': weight,
                         'model.embed_tokens.weight': None})
  _, found = released.load(folder)
  jax.tree.map(np.testing.assert_array_equal, found,
               released.fixture('llama3_rope')[1])


def test_the_same_output_with_a_number_that_is_none(tmp_path):
  folder = released.copy('llama3_rope', tmp_path)
  weight = np.array(released.tensors(folder)['model.embed_tokens.weight'])
  weight[0, 0] = np.nan
  released.edit(folder, dict.fromkeys(
      ['lm_head.weight', 'model.embed_tokens.weight'], weight))
  released.load(folder)
  released.edit(folder, {'lm_head.weight': np.nan_to_num(weight)})
  _refused(folder, 'holds an lm_head.weight that is not')


def test_keys_that_are_left_out_are_named(tmp_path):
  """Where their defaults are not what the tensors are of."""
  for name, key in (
      ('deepseek_v3', 'q_lora_rank'), ('deepseek_v3', 'v_head_dim'),
      ('deepseek_v3', 'moe_intermediate_size'), ('qwen3', 'head_dim'),
      ('deepseek_v3', 'first_k_dense_replace'),
      ('gemma3_text', 'num_key_value_heads')):
    folder = released.copy(name, tmp_path / key)
    released.rewrite(folder, **{key: None})
    _refused(folder, f'; config.json leaves out {key}')


def test_a_tied_model_with_a_head_of_its_own(tmp_path):
  """transformers takes the head, others leave it."""
  folder = released.copy('llama', tmp_path)
  released.rewrite(folder, tie_word_embeddings=True)
  _refused(folder, 'lm_head.weight', 'model.embed_tokens.weight', 'tie_word')
  released.rewrite(folder, tie_word_embeddings=False)
  released.edit(folder, {'lm_head.weight': None})
  _refused(folder, 'lm_head.weight is missing', 'tie_word_embeddings=true')


@pytest.mark.parametrize('name', ['llama3_rope', 'gemma3_text', 'deepseek_v3'])
def test_names_without_the_prefix(tmp_path, name):
  """As a base model is saved by itself, which has no head."""
  folder = released.copy(name, tmp_path)
  tensors = released.tensors(folder)
  released.edit(folder, dict.fromkeys(tensors) | {
      key.removeprefix('model.'): x for key, x in tensors.items()})
  _, found = released.load(folder)
  jax.tree.map(np.testing.assert_array_equal, found, released.fixture(name)[1])
  released.edit(folder, {'layers.0.mlp.up_proj.weight': None})
  _refused(folder, 'model.layers.0.mlp.up_proj.weight', 'missing')


@pytest.mark.parametrize('prefix', ['pretrained_model', '_fsdp.module'])
def test_names_under_the_prefix_of_a_wrapper(tmp_path, prefix):
  folder = released.copy('llama', tmp_path)
  tensors = released.tensors(folder)
  released.edit(folder, dict.fromkeys(tensors) | {
      f'{prefix}.{key}': x for key, x in tensors.items()})
  _refused(folder, 'it is there as '
           f'{prefix}.model.embed_tokens.weight, under the prefix')


@pytest.mark.parametrize('dtype, size', [
    (np.int64, 3), (bool, 3), (np.uint8, 3), (np.float32, (0, 3))])
def test_what_is_no_weight_is_named_and_not_read(
    tmp_path, caplog, dtype, size):
  folder = released.copy('llama', tmp_path)
  released.edit(folder, {f'some.{i}': np.ones(size, dtype) for i in range(5)})
  with caplog.at_level('WARNING'):
    _, found = released.load(folder)
  assert 'some.0, some.1, some.2 (and 2 more)' in caplog.text
  jax.tree.map(np.testing.assert_array_equal, found,
               released.fixture('llama')[1])


def test_a_weight_of_a_dtype_that_cannot_be_read(tmp_path):
  folder = released.copy('llama', tmp_path)
  released.edit(folder, {_GATE: np.ones((40, 32), np.int64)})
  _refused(folder, 'model.safetensors', _GATE, 'I64')


@pytest.mark.parametrize('changes, word', [
    (dict(weight_block_size=16), 'weight_block_size'),
    (dict(weight_block_size=[0, 16]), 'weight_block_size'),
    (dict(weight_block_size=[8]), 'weight_block_size'),
    (dict(weight_block_size=[8., 8.]), 'weight_block_size'),
    (dict(weight_block_size=[True, 8]), 'weight_block_size'),
    (dict(weight_block_size=[16, 8]), '_scale_inv'),
    (dict(weight_block_size=None), 'quantization_config'),
    (dict(quant_method='bitsandbytes'), 'bitsandbytes'),
    (dict(activation_scheme='static'), 'activation_scheme'),
    (dict(fmt='e5m2'), 'fmt'), (dict(of_tomorrow=1), 'of_tomorrow')])
def test_how_float8_is_described(tmp_path, changes, word):
  folder = released.copy('deepseek_v3_fp8', tmp_path)
  section = hf.read_fields(str(folder))['quantization_config']
  released.rewrite(folder, quantization_config=section | changes)
  _refused(folder, word)
  for other in (7, [], 'fp8'):
    released.rewrite(folder, quantization_config=other)
    _refused(folder, 'quantization_config')


def test_scales_of_a_weight_that_is_not_float8(tmp_path):
  folder = released.copy('deepseek_v3_fp8', tmp_path)
  released.edit(folder, {_EXPERT: np.ones((12, 36), np.float32)})
  _refused(folder, _EXPERT, 'to be float8')
  released.edit(folder, {'of.nothing_scale_inv': np.ones(2, np.float32)})
  _refused(folder, 'of.nothing_scale_inv', 'does not belong')


@pytest.mark.parametrize('further', [None, 0, 'x', True, 1.5])
def test_a_last_layer_is_not_taken_for_another(tmp_path, further):
  """As if it predicted further tokens, if the number of layers is too low."""
  folder = released.copy('deepseek_v3', tmp_path)
  released.rewrite(folder, num_hidden_layers=2,
                   num_nextn_predict_layers=further)
  _refused(folder, 'model.layers.2' if further == 0 else 'num_nextn')


def test_files_that_ask_for_more_than_the_folder_says(tmp_path):
  folder = released.copy('llama', tmp_path)
  released.rewrite(folder, transformers_weights='other.safetensors')
  _refused(folder, 'transformers_weights', 'other.safetensors')
  (folder / 'adapter_config.json').write_text('{}')
  _refused(folder, 'adapter_config.json', 'merge')


@pytest.mark.parametrize('offset', ['x', [1.], True, float('nan')])
def test_an_offset_that_is_no_number(tmp_path, offset):
  folder = released.copy('llama', tmp_path)
  released.rewrite(folder, score_offset=offset)
  _refused(folder, 'score_offset')


def test_a_value_out_of_bounds(tmp_path):
  folder = released.copy('llama', tmp_path)
  released.rewrite(folder, num_hidden_layers=0)
  _refused(folder, 'num_hidden_layers', 'at least 1')
