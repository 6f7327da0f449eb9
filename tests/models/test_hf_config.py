"""config.json: what each key is for us, and what is refused by its key."""

import dataclasses
import json

import pytest

import released
import tiny
from r1jax import errors
from r1jax.models import architecture
from r1jax.models import hf
from r1jax.models import hf_config
from r1jax.models import hf_float8


def _fields(name, file='config.json'):
  return json.loads((released.FOLDER / name / file).read_text('utf-8'))


def _changed(name, key, value, there=False):
  """Fields with another value of a key, 'outer.inner' for one inside.

  None removes it, or is its value if it is to be `there`.
  """
  fields = _fields(name)
  *outer, key = key.split('.')
  section = fields
  for part in outer:
    section = section[part]
  if value is None and not there:
    del section[key]
  else:
    section[key] = value
  return fields


def _read(fields):
  return hf_config.from_json(fields, 'FOLDER')


# The config.json of models of the Hub, without what no model's shape is in.
_LLAMA_32_1B = dict(
    architectures=['LlamaForCausalLM'], attention_bias=False, head_dim=64,
    hidden_act='silu', hidden_size=2048, intermediate_size=8192,
    max_position_embeddings=131072, mlp_bias=False, num_attention_heads=32,
    num_hidden_layers=16, num_key_value_heads=8, rms_norm_eps=1e-5,
    rope_scaling=dict(
        factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
        original_max_position_embeddings=8192, rope_type='llama3'),
    rope_theta=500000.0, tie_word_embeddings=True, vocab_size=128256)
_QWEN_25_05B = dict(
    architectures=['Qwen2ForCausalLM'], hidden_act='silu', hidden_size=896,
    intermediate_size=4864, max_position_embeddings=32768, max_window_layers=24,
    num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2,
    rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=32768,
    tie_word_embeddings=True, use_mrope=False, use_sliding_window=False,
    vocab_size=151936)
_QWEN_3_06B = dict(
    architectures=['Qwen3ForCausalLM'], attention_bias=False, head_dim=128,
    hidden_act='silu', hidden_size=1024, intermediate_size=3072,
    max_position_embeddings=40960, max_window_layers=28, num_attention_heads=16,
    num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-6,
    rope_scaling=None, rope_theta=1000000, sliding_window=None,
    tie_word_embeddings=True, use_sliding_window=False, vocab_size=151936)
_GEMMA_3_1B = dict(
    architectures=['Gemma3ForCausalLM'], attention_bias=False,
    attn_logit_softcapping=None, final_logit_softcapping=None, head_dim=256,
    hidden_activation='gelu_pytorch_tanh', hidden_size=1152,
    intermediate_size=6912, max_position_embeddings=32768,
    num_attention_heads=4, num_hidden_layers=26, num_key_value_heads=1,
    query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000,
    rope_scaling=None, rope_theta=1000000, sliding_window=512,
    sliding_window_pattern=6, vocab_size=262144)
_DEEPSEEK_R1 = dict(
    architectures=['DeepseekV3ForCausalLM'], attention_bias=False, ep_size=1,
    first_k_dense_replace=3, hidden_act='silu', hidden_size=7168,
    intermediate_size=18432, kv_lora_rank=512, max_position_embeddings=163840,
    moe_intermediate_size=2048, moe_layer_freq=1, n_group=8,
    n_routed_experts=256, n_shared_experts=1, norm_topk_prob=True,
    num_attention_heads=128, num_experts_per_tok=8, num_hidden_layers=61,
    num_key_value_heads=128, num_nextn_predict_layers=1, q_lora_rank=1536,
    qk_nope_head_dim=128, qk_rope_head_dim=64, rms_norm_eps=1e-6,
    quantization_config=dict(
        activation_scheme='dynamic', fmt='e4m3', quant_method='fp8',
        weight_block_size=[128, 128]),
    rope_scaling=dict(
        beta_fast=32, beta_slow=1, factor=40, mscale=1.0, mscale_all_dim=1.0,
        original_max_position_embeddings=4096, type='yarn'),
    rope_theta=10000, routed_scaling_factor=2.5, scoring_func='sigmoid',
    tie_word_embeddings=False, topk_group=4, topk_method='noaux_tc',
    v_head_dim=128, vocab_size=129280)


@pytest.mark.parametrize('fields, expected', [
    (_LLAMA_32_1B, architecture.Config(
        vocab=128_256, width=2048, layers=16, heads=32, kv_heads=8,
        head_size=64, mlp=8192, max_len=131_072, rope_theta=5e5, rms_eps=1e-5,
        rope_scaling=architecture.RopeScaling('llama3', 32.))),
    (_QWEN_25_05B, architecture.Config(
        vocab=151_936, width=896, layers=24, heads=14, kv_heads=2, head_size=64,
        mlp=4864, max_len=32_768, rope_theta=1e6, qkv_bias=True)),
    (_QWEN_3_06B, architecture.Config(
        vocab=151_936, width=1024, layers=28, heads=16, kv_heads=8,
        head_size=128, mlp=3072, max_len=40_960, rope_theta=1e6,
        qk_norm=True)),
    (_GEMMA_3_1B, architecture.Config(
        vocab=262_144, width=1152, layers=26, heads=4, kv_heads=1,
        head_size=256, mlp=6912, max_len=32_768, rope_theta=1e6, qk_norm=True,
        activation='gelu', norm_offset=1., post_norms=True, embed_scale=True,
        attention_scale=1 / 16, window=512, global_every=6,
        rope_theta_local=1e4)),
    (_DEEPSEEK_R1, architecture.Config(
        vocab=129_280, width=7168, layers=61, heads=128, kv_heads=128,
        head_size=192, mlp=18_432, max_len=163_840, tied=False,
        latent=architecture.Latent(1536, 512, 128, 64, 128),
        moe=architecture.Experts(256, 8, 2048, 1, 8, 4, 2.5, True, 3),
        rope_scaling=architecture.RopeScaling(
            'yarn', 40., 4096, mscale=1., mscale_all_dim=1.))),
])
def test_models_of_the_hub(fields, expected):
  assert _read(fields) == expected
  assert _read(hf_config.to_json(expected)) == expected


@pytest.mark.parametrize('name', ['llama3_rope', 'gemma3_text'])
def test_older_releases_wrote_the_same_otherwise(name):
  older = _fields(name, 'config_v4.json')
  assert 'rope_parameters' not in older
  assert _read(older) == _read(_fields(name))


def test_the_form_of_deepseek_is_that_of_transformers():
  older = _fields('deepseek_v3_fp8')
  assert 'rope_parameters' not in older and 'rope_interleave' not in older
  assert _read(older) == _read(_fields('deepseek_v3'))


# Each key that a model's computation depends on, and another value.
_MATTER = [
    ('llama', 'rms_norm_eps', 1e-5), ('llama', 'head_dim', 16),
    ('llama', 'max_position_embeddings', 64),
    ('llama', 'tie_word_embeddings', True),
    ('llama', 'rope_parameters.rope_theta', 1e4),
    ('llama', 'hidden_act', 'gelu_pytorch_tanh'),
    ('llama', 'hidden_act', 'gelu'),
    ('qwen2', 'rope_parameters.attention_factor', 1.5),
    *(('llama3_rope', f'rope_parameters.{key}', 2) for key in (
        'factor', 'low_freq_factor', 'high_freq_factor',
        'original_max_position_embeddings')),
    *(('qwen2', f'rope_parameters.{key}', 2) for key in (
        'factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim',
        'original_max_position_embeddings')),
    *(('gemma3_text', key, 2) for key in (
        'query_pre_attn_scalar', 'sliding_window', 'final_logit_softcapping',
        'rope_parameters.full_attention.factor',
        'rope_parameters.full_attention.rope_theta',
        'rope_parameters.sliding_attention.rope_theta')),
    ('gemma3_text', 'layer_types', ['full_attention'] * 4),
    *(('deepseek_v3', key, 6) for key in (
        'q_lora_rank', 'kv_lora_rank', 'n_routed_experts', 'n_shared_experts',
        'moe_intermediate_size', 'n_group', 'routed_scaling_factor',
        'rope_parameters.mscale', 'rope_parameters.mscale_all_dim')),
    *(('deepseek_v3', key, 2) for key in (
        'v_head_dim', 'num_experts_per_tok', 'first_k_dense_replace')),
    ('deepseek_v3', 'topk_group', 3),
    ('deepseek_v3', 'norm_topk_prob', False),
]


@pytest.mark.parametrize('name, key, value', _MATTER)
def test_keys_that_matter(name, key, value):
  assert _read(_changed(name, key, value)) != _read(_fields(name))


@pytest.mark.parametrize('name, size', [
    ('llama', 8), ('qwen2', 8), ('qwen3', 128), ('gemma3_text', 256)])
def test_head_sizes_that_go_without_saying(name, size):
  fields = _fields(name)
  fields.pop('head_dim', None)
  assert _read(fields).head_size == size


def test_a_null_is_as_good_as_nothing():
  """As older releases wrote what was not set."""
  fields = _fields('llama') | dict(
      head_dim=None, num_key_value_heads=None, rope_scaling=None,
      hidden_activation=None, partial_rotary_factor=None)
  config = _read(fields)
  assert (config.head_size, config.kv_heads) == (8, 4)


def test_a_null_that_transformers_takes_as_false():
  with pytest.raises(errors.ConfigError, match='rope_interleave to be True'):
    _read(_changed('deepseek_v3', 'rope_interleave', None, there=True))
  key = 'rope_parameters.truncate'
  assert _read(_changed('qwen2', key, None, there=True)) == _read(
      _changed('qwen2', key, False)) != _read(_fields('qwen2'))


@pytest.mark.parametrize('name, key, value', [
    ('llama', 'architectures', ['MambaForCausalLM']),
    ('llama', 'attention_bias', True), ('llama', 'mlp_bias', True),
    ('llama', 'hidden_act', 'relu'),
    ('llama', 'rope_parameters.rope_type', 'dynamic'),
    ('qwen2', 'rope_parameters.rope_type', 'longrope'),
    ('qwen2', 'rope_parameters.attention_factor', 0.),
    ('qwen2', 'rope_parameters.attn_factor', 1.5),
    ('qwen3', 'attention_bias', True), ('llama', 'model_type', 'mistral'),
    ('llama', 'layer_types', ['sliding_attention', 'full_attention']),
    ('gemma3_text', 'use_bidirectional_attention', True),
    ('gemma3_text', 'layer_types', ['chunked_attention'] * 4),
    ('gemma3_text', 'attn_logit_softcapping', 50.),
    ('gemma3_text', 'rope_parameters.sliding_attention', dict(
        rope_type='linear', factor=2., rope_theta=100.)),
    ('llama', 'per_layer_config', {'0': {}}),
    ('llama', 'partial_rotary_factor', .5),
    ('deepseek_v3', 'rope_interleave', False),
    ('deepseek_v3', 'scoring_func', 'softmax'),
    ('deepseek_v3', 'topk_method', 'greedy'),
    ('deepseek_v3', 'moe_layer_freq', 2),
    *(('llama', key, None) for key in (
        'vocab_size', 'hidden_size', 'num_hidden_layers', 'intermediate_size',
        'num_attention_heads')),
    *(('llama3_rope', f'rope_parameters.{key}', None) for key in (
        'factor', 'low_freq_factor', 'high_freq_factor')),
])
def test_refusals_name_the_key(name, key, value):
  with pytest.raises(errors.ConfigError) as refusal:
    _read(_changed(name, key, value))
  assert key.rpartition('.')[2] in str(refusal.value)
  assert 'FOLDER' in str(refusal.value)


# What transformers has for a key that is not there.
_DEFAULTS = [
    *((name, 'max_position_embeddings', value) for name, value in (
        ('llama', 2048), ('qwen2', 32_768), ('qwen3', 32_768),
        ('gemma3_text', 131_072), ('deepseek_v3', 4096))),
    ('gemma3_text', 'query_pre_attn_scalar', 256),
    *(('deepseek_v3', key, value) for key, value in dict(
        q_lora_rank=1536, kv_lora_rank=512, v_head_dim=128,
        moe_intermediate_size=2048, n_shared_experts=1,
        routed_scaling_factor=2.5, norm_topk_prob=True).items())]


@pytest.mark.parametrize('name, key, value', _DEFAULTS)
def test_keys_that_are_left_out(name, key, value):
  said = _changed(name, key, value)
  left_out = {other: x for other, x in said.items() if other != key}
  assert _read(left_out) == _read(said)


def test_a_null_of_deepseek_is_not_its_default():
  for key, value in (('norm_topk_prob', False), ('q_lora_rank', None)):
    assert _read(_changed('deepseek_v3', key, None, there=True)) == _read(
        _changed('deepseek_v3', key, value, there=True)) != _read(
            _changed('deepseek_v3', key, None))
  with pytest.raises(errors.ConfigError, match='n_group to be a value'):
    _read(_changed('deepseek_v3', 'n_group', None, there=True))


@pytest.mark.parametrize('dense', [3, 4])
def test_deepseek_without_a_layer_of_experts(dense):
  config = _read(_changed('deepseek_v3', 'first_k_dense_replace', dense))
  assert config.moe is None
  assert _read(hf_config.to_json(config)) == config


@pytest.mark.parametrize('name, ours', [
    ('silu', 'silu'), ('swish', 'silu'), ('gelu', 'exact_gelu'),
    ('gelu_python', 'exact_gelu'), ('gelu_new', 'gelu'), ('gelu_fast', 'gelu'),
    ('gelu_pytorch_tanh', 'gelu')])
def test_an_activation_has_several_names(name, ours):
  assert _read(_changed('llama', 'hidden_act', name)).activation == ours


@pytest.mark.parametrize('first', [0, 1, 2])
@pytest.mark.parametrize('slides', [True, False])
def test_the_first_layers_of_qwen_do_not_slide(first, slides):
  fields = _changed('qwen2', 'layer_types', None) | dict(
      use_sliding_window=slides, sliding_window=5, max_window_layers=first)
  assert _read(fields).is_local() == [slides and i >= first for i in range(2)]


_NUMBERS = (
    'vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads',
    'intermediate_size', 'max_position_embeddings', 'num_key_value_heads',
    'head_dim', 'rms_norm_eps', 'q_lora_rank', 'kv_lora_rank',
    'qk_nope_head_dim', 'qk_rope_head_dim', 'v_head_dim', 'n_routed_experts',
    'num_experts_per_tok', 'moe_intermediate_size', 'n_shared_experts',
    'n_group', 'topk_group', 'routed_scaling_factor', 'first_k_dense_replace',
    'query_pre_attn_scalar', 'sliding_window', 'max_window_layers')
_ROPE = {
    'llama3_rope': ('factor', 'low_freq_factor', 'high_freq_factor'),
    'qwen2': ('factor', 'rope_theta', 'original_max_position_embeddings'),
    'deepseek_v3': ('beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim')}


@pytest.mark.parametrize('value', [
    '2', True, [2], {}, -1, float('nan'), float('inf'), 10 ** 400])
def test_numbers_of_another_type_or_out_of_bounds(value):
  keys = [(name, key) for name in released.NAMES for key in _NUMBERS
          if _fields(name).get(key) is not None] + [
              (name, f'rope_parameters.{key}')
              for name, keys in _ROPE.items() for key in keys]
  assert len(keys) > 80
  for name, key in keys:
    with pytest.raises(errors.ConfigError, match=key):
      _read(_changed(name, key, value))


def test_integers_are_integers():
  keys = [(name, key) for name in ('qwen2', 'gemma3_text', 'deepseek_v3_fp8')
          for key in _NUMBERS if isinstance(_fields(name).get(key), int)]
  assert len(keys) > 35
  for name, key in keys:
    with pytest.raises(errors.ConfigError, match=f'{key} to be an integer'):
      _read(_changed(name, key, float(_fields(name)[key])))


@pytest.mark.parametrize('value', ['true', 1, [True]])
@pytest.mark.parametrize('name, key', [
    ('llama', 'tie_word_embeddings'), ('qwen2', 'use_sliding_window'),
    ('deepseek_v3', 'norm_topk_prob')])
def test_what_is_true_or_false(name, key, value):
  with pytest.raises(errors.ConfigError, match=f'{key} to be true or false'):
    _read(_changed(name, key, value))


_FULL, _SLIDING = 'full_attention', 'sliding_attention'
_LINEAR = dict(rope_type='linear', factor=4.)


@pytest.mark.parametrize('name, changes, words', [
    ('llama', dict(rope_scaling=_LINEAR), 'rope_parameters = .*rope_scaling ='),
    ('llama', dict(rope_theta=1e4), 'rope_theta = 500.0 and rope_theta = 1'),
    # transformers takes the theta that is not there, its default.
    ('llama', dict(rope_parameters=_LINEAR | dict(rope_theta=500.),
                   rope_scaling=_LINEAR), 'rope_parameters = .*rope_scaling ='),
    ('llama', dict(rope_parameters=_LINEAR | dict(type='yarn')),
     r'\.rope_type = .* and .*\.type ='),
    ('llama3_rope', dict(original_max_position_embeddings=64),
     r'\.original_max_position_embeddings = 32 and original_max_pos'),
    ('llama', dict(hidden_activation='gelu_new'), 'hidden_act = .* hidden_act'),
    ('gemma3_text', dict(hidden_act='silu'), 'hidden_activation = .* hidden_a'),
    ('llama', dict(model_type='qwen2'), 'architectures = .* and model_type ='),
    ('gemma3_text', dict(sliding_window_pattern=2),
     'layer_types = .* and sliding_window_pattern = 2'),
    ('qwen2', dict(use_sliding_window=True, sliding_window=5,
                   max_window_layers=1), 'layer_types = .* and max_window_lay'),
    ('gemma3_text', dict(rope_scaling=_LINEAR), 'rope_.* and rope_scaling ='),
    ('gemma3_text', dict(rope_theta=7.), 'rope_theta = 5000.0 and rope_theta'),
    ('gemma3_text', dict(rope_local_base_freq=7.),
     'rope_theta = 100.0 and rope_local_base_freq = 7.0'),
    ('deepseek_v3', dict(head_dim=16), 'head_dim = 16 and qk_rope_head_dim'),
    ('deepseek_v3', dict(qk_head_dim=8), 'qk_head_dim = 8 and qk_nope_head_'),
    ('deepseek_v3', dict(num_local_experts=6), 'num_local_experts = 6 and n_'),
    ('deepseek_v3', dict(num_key_value_heads=2), 'num_key_value_heads = 2 and'),
])
def test_two_keys_that_disagree(name, changes, words):
  with pytest.raises(errors.ConfigError, match=f'{words}.* disagree'):
    _read(_fields(name) | changes)


@pytest.mark.parametrize('name, key', [
    ('llama', 'rope_parameters.factor'),
    ('llama', 'rope_parameters.full_attention'),
    ('llama3_rope', 'rope_parameters.beta_fast'),
    ('gemma3_text', 'rope_parameters.rope_theta'),
    ('gemma3_text', 'rope_parameters.sliding_attention.factor'),
    ('deepseek_v3_fp8', 'rope_scaling.finetuned'),
    ('deepseek_v3_fp8', 'quantization_config.desc_act')])
def test_a_section_is_understood_as_a_whole(name, key):
  section, _, inner = key.rpartition('.')
  words = f"{section} .*not known for it: '{inner}'"
  with pytest.raises(errors.ConfigError, match=words):
    _read(_changed(name, key, 2.))
  assert _read(_changed(name, key, None, there=True)) == _read(_fields(name))


@pytest.mark.parametrize('changes', [
    dict(quant_method=None), dict(quant_method='gptq'), dict(fmt='e5m2'),
    dict(activation_scheme='static'), *(
        dict(weight_block_size=size) for size in (
            None, 16, [16], [0, 16], [16, 2.], ['8', 8], {}))])
def test_weights_that_are_quantised_otherwise(changes):
  fields = _fields('deepseek_v3_fp8')
  assert hf_float8.blocks(fields, '') == (8, 8)
  fields['quantization_config'] |= changes
  with pytest.raises(errors.ConfigError, match='quantization_config'):
    _read(fields)


@pytest.mark.parametrize('fields', [
    dict(rope_parameters='linear'), dict(rope_scaling=[4]),
    dict(quantization_config='fp8'), dict(layer_types='full_attention'),
    dict(layer_types=['full_attention']), dict(layer_types=[None, {}]),
    dict(architectures='LlamaForCausalLM'), dict(model_type=['llama']),
    dict(hidden_act=['silu']), dict(rope_parameters=dict(rope_type=['linear'])),
    dict(score_offset='0')])
def test_what_is_of_another_kind(fields):
  with pytest.raises(errors.ConfigError, match=next(iter(fields))):
    _read(_fields('llama') | fields)


@pytest.mark.parametrize('name, local, kept', [
    ('qwen2', [False, True], {'local_layers'}), ('qwen3', [False] * 2, set()),
    ('gemma3_text', [False, True, True, False], {'local_layers'}),
    ('gemma3_text', [True, False] * 2, {'global_every'})])
def test_layers_that_are_local_in_any_order(name, local, kept):
  kinds = [(_FULL, _SLIDING)[x] for x in local]
  config = _read(_fields(name) | dict(
      layer_types=kinds, use_sliding_window=True, sliding_window=5))
  assert config.is_local() == local
  assert config.window == (5 if any(local) else None)
  plain = architecture.Config(*[2] * 7)
  assert kept == {field for field in ('local_layers', 'global_every')
                  if getattr(config, field) != getattr(plain, field)}
  assert hf_config.to_json(config)['layer_types'] == kinds


@pytest.mark.parametrize('name', ['llama', 'qwen3', 'gemma3_text'])
def test_a_folder_without_a_head_is_a_language_model(name):
  base = dict(llama='Llama', qwen3='Qwen3', gemma3_text='Gemma3Text')[name]
  read = _read(_fields(name))
  for classes in ([f'{base}Model'], [], None):
    assert _read(_fields(name) | dict(architectures=classes)) == read
  scoring = [f'{base}ForSequenceClassification']
  assert _read(_fields(name) | dict(architectures=scoring)).scalar


@pytest.mark.parametrize('name', released.NAMES)
def test_what_is_written_reads_the_same(name):
  config = hf.read_config(str(released.FOLDER / name))
  fields = json.loads(json.dumps(hf_config.to_json(config)))
  assert _read(fields) == config
  assert fields['architectures'] == _fields(name)['architectures']
  assert fields['model_type'] == _fields(name)['model_type']


def test_what_transformers_insists_on_is_written():
  """A float for 1, and a window even where no layer has one."""
  fields = hf_config.to_json(dataclasses.replace(
      tiny.config(), rms_eps=1))
  assert type(fields['rms_norm_eps']) is float
  config = _read(_fields('gemma3_text') | dict(layer_types=[_FULL] * 4))
  assert config.window is None
  assert type(hf_config.to_json(config)['sliding_window']) is int


@pytest.mark.parametrize('name, value', [
    ('softcap_final', 2.), ('softcap_attention', 2.), ('post_norms', True),
    ('norm_offset', 1.), ('embed_scale', True), ('window', 3),
    ('attention_scale', 2.)])
def test_what_no_architecture_can_say_is_not_written(name, value):
  with pytest.raises(errors.ConfigError, match=f'model.{name}: expected'):
    hf_config.to_json(tiny.config(**{name: value}))


def test_how_a_model_computes_is_not_what_it_is():
  config = tiny.config(dtype='bfloat16', remat='full', scan_layers=False)
  assert _read(hf_config.to_json(config)) == dataclasses.replace(
      config, dtype='float32', remat='none', scan_layers=True)
