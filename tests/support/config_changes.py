"""Random changes of one field of a config.json: damage, and other settings."""

from collections.abc import Iterator
import copy
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

FIXTURES = pathlib.Path(__file__).parents[1] / 'models' / 'fixtures'
# Llama, Llama 3's scaling, Qwen2 with YaRN, Qwen3, Gemma 3, DeepSeek-V3.
NAMES = ('llama', 'llama3_rope', 'qwen2', 'qwen3', 'gemma3_text', 'deepseek_v3')
REMOVED = object()

_FULL, _SLIDING = 'full_attention', 'sliding_attention'
_LINEAR = dict(rope_type='linear', factor=4.)
_YARN = dict(rope_type='yarn', factor=4., rope_theta=1000.,
             original_max_position_embeddings=32)
_LLAMA3 = dict(rope_type='llama3', factor=8., low_freq_factor=1.,
               high_freq_factor=4., original_max_position_embeddings=32)
# Keys that transformers knows, there or not, with values that may be theirs.
_KNOWN = dict(
    rope_scaling=[_LINEAR, _YARN, _LLAMA3, dict(type='dynamic', factor=2.),
                  dict(_YARN, beta_fast=None, beta_slow=None), {}, None,
                  dict(_LINEAR, beta_fast=None)],
    rope_parameters=[_LINEAR, dict(_LLAMA3, rope_theta=500.), _YARN, {}, None,
                     {_FULL: _LINEAR, _SLIDING: _LINEAR}, {_FULL: None},
                     {_FULL: dict(_LLAMA3, rope_theta=200.)},
                     dict(rope_type='default', rope_theta=77.)],
    rope_theta=[500., 100, 1e6, None], rope_local_base_freq=[100., 50, None],
    partial_rotary_factor=[1., .5, None], rope_interleave=[True, False, None],
    original_max_position_embeddings=[32, 64, None],
    sliding_window=[3, 6, 4096, None], use_sliding_window=[True, False],
    max_window_layers=[0, 1, 2, 28], sliding_window_pattern=[1, 2, 3, 6, None],
    layer_types=[[_SLIDING, _FULL], [_FULL, _SLIDING], [_FULL] * 2,
                 [_SLIDING] * 4, [_FULL, _SLIDING, _SLIDING, _FULL],
                 [_SLIDING] * 3 + [_FULL], ['chunked_attention'] * 2,
                 [_FULL] * 4, None],
    hidden_act=['swish', 'gelu_new', 'gelu_fast', 'gelu', 'relu', 'silu',
                'gelu_pytorch_tanh', None],
    hidden_activation=['silu', 'gelu_pytorch_tanh', 'gelu_accurate', None],
    attention_bias=[True, False], mlp_bias=[True, False],
    attn_logit_softcapping=[2., 50, None],
    final_logit_softcapping=[2., 30, None],
    use_bidirectional_attention=[True, None],
    query_pre_attn_scalar=[16, 20.5, None], per_layer_config=[
        {'0': {'sliding_window': 3}}, {'0': {'head_dim': 4}}],
    num_local_experts=[6, 12], head_dim=[4, 16, None], qk_head_dim=[4, 16],
    num_key_value_heads=[1, 2, 3, 4, None], n_shared_experts=[0, 1, None],
    q_lora_rank=[None, 6], norm_topk_prob=[False, None], topk_group=[1, 3],
    n_group=[1, 2, 4, 6], num_experts_per_tok=[1, 8, 12],
    first_k_dense_replace=[0, 2, 3], routed_scaling_factor=[1, -1., 2.5],
    scoring_func=['softmax', 'sigmoid'], topk_method=['greedy', 'noaux_tc'],
    moe_layer_freq=[1, 2], tie_word_embeddings=[True, False, None],
    dtype=['bfloat16', 'float12', None], torch_dtype=['bfloat16', 'float32'],
    model_type=['llama', 'qwen2', 'mistral', None], architectures=[
        [], ['LlamaModel'], ['Qwen2ForCausalLM'], ['MambaForCausalLM'],
        ['LlamaForSequenceClassification'], 'LlamaForCausalLM', [3]],
    quantization_config=[dict(quant_method='fp8', weight_block_size=16),
                         dict(quant_method='fp8', weight_block_size=[0, 16]),
                         dict(quant_method='bitsandbytes'), {}],
    pretraining_tp=[1, 2], attention_dropout=[.5], use_cache=[False],
    eos_token_id=[5, [5, 6], None], pad_token_id=[3, -1], unheard_of=[1])
_IN_ROPE = dict(
    rope_type=['default', 'linear', 'dynamic', 'longrope', None],
    type=['default', 'linear', 'yarn', 'llama3'], factor=[1., .5, 3, None],
    rope_theta=[77., 500, 1, .5, None], beta_fast=[3., 8, None],
    beta_slow=[1, 2., 40., None], mscale=[.5, 1, None], mscale_all_dim=[.5, 0],
    original_max_position_embeddings=[2, 16, 10 ** 6, None],
    attention_factor=[1.5, None], truncate=[True, False, None],
    partial_rotary_factor=[1., .5, None], low_freq_factor=[.5, 4., None],
    high_freq_factor=[1., 8, None], mrope_section=[[1, 1, 2]])
# Whole files that say something in a way of their own, and are plain: what
# changes, of a fixture. transformers reads every one of them.
_OLD_ROPE = dict(rope_parameters=REMOVED, rope_theta=500.)
_SLIDES = dict(use_sliding_window=True, sliding_window=5)
PLAIN = (
    ('llama', dict(hidden_act='swish')), ('llama', dict(architectures=None)),
    ('llama', dict(architectures=REMOVED)),
    ('llama', dict(_OLD_ROPE, rope_scaling=dict(type='linear', factor=2))),
    ('llama', dict(_OLD_ROPE, rope_scaling=dict(
        _LLAMA3, type='llama3', original_max_position_embeddings=20))),
    ('llama', dict(rope_theta=500.)),  # in both forms
    ('llama', dict(rope_theta=500., rope_parameters=dict(
        _LINEAR, rope_theta=500.), rope_scaling=dict(_LINEAR))),
    ('llama', dict(rope_scaling=None, hidden_activation=None, head_dim=None)),
    ('llama', dict(head_dim=None, num_key_value_heads=None)),
    ('llama', dict(layer_types=[_FULL] * 2, sliding_window=4096)),
    ('qwen2', dict(_SLIDES, max_window_layers=2, layer_types=REMOVED)),
    ('qwen2', dict(_SLIDES, max_window_layers=1, layer_types=REMOVED)),
    ('qwen2', dict(_SLIDES, max_window_layers=0, layer_types=REMOVED)),
    ('qwen2', dict(_SLIDES, layer_types=[_SLIDING, _FULL])),
    ('qwen2', dict(_SLIDES, sliding_window=None, layer_types=REMOVED,
                   max_window_layers=0)),
    ('qwen2', dict(_SLIDES, sliding_window=REMOVED, layer_types=REMOVED,
                   max_window_layers=0)),
    ('qwen2', dict(rope_parameters=dict(_YARN, beta_fast=None, beta_slow=None,
                                        attention_factor=None))),
    ('qwen2', dict(rope_parameters=dict(_YARN, factor=None))),
    ('qwen2', dict(rope_parameters=dict(
        _YARN, original_max_position_embeddings=2))),  # before the first pair
    ('qwen2', dict(rope_parameters=dict(
        _YARN, original_max_position_embeddings=10 ** 7))),  # after the last
    ('qwen2', dict(rope_parameters=dict(_YARN, beta_fast=1, beta_slow=4))),
    ('qwen2', dict(rope_parameters=dict(
        _YARN, attention_factor=1.5, truncate=False))),
    ('qwen2', dict(rope_parameters=dict(_YARN, truncate=None))),
    ('llama', dict(hidden_act='gelu')),
    ('qwen3', dict(_SLIDES, layer_types=[_FULL, _SLIDING])),
    ('qwen3', dict(_SLIDES, layer_types=[_SLIDING] * 2, max_window_layers=0)),
    ('gemma3_text', dict(layer_types=[_FULL, _SLIDING, _SLIDING, _FULL])),
    ('gemma3_text', dict(layer_types=[_SLIDING] * 4)),
    ('gemma3_text', dict(layer_types=[_FULL] * 4)),
    ('gemma3_text', dict(layer_types=REMOVED, sliding_window_pattern=2)),
    ('gemma3_text', dict(layer_types=REMOVED, sliding_window=REMOVED)),
    ('gemma3_text', dict(sliding_window_pattern=3)),  # as in the list
    ('gemma3_text', dict(rope_parameters=REMOVED, rope_theta=300, rope_scaling=
                         dict(_LINEAR), rope_local_base_freq=50)),
    ('gemma3_text', dict(hidden_activation='gelu_new')),
    ('gemma3_text', dict(hidden_activation=REMOVED)),
    ('gemma3_text', dict(final_logit_softcapping=3.)),
    ('deepseek_v3', dict(head_dim=REMOVED, qk_head_dim=REMOVED)),
    ('deepseek_v3', dict(num_local_experts=12)),
    *(('deepseek_v3', {key: REMOVED}) for key in (
        'n_shared_experts', 'norm_topk_prob', 'routed_scaling_factor',
        'max_position_embeddings', 'num_nextn_predict_layers')),
    ('deepseek_v3', dict(norm_topk_prob=None)),
    ('deepseek_v3', dict(first_k_dense_replace=3)),
    ('gemma3_text', dict(query_pre_attn_scalar=REMOVED)),
    ('qwen2', dict(max_position_embeddings=REMOVED, rope_parameters=dict(
        rope_type='yarn', factor=4., rope_theta=1000.))),
    ('llama', dict(torch_dtype='half', dtype=REMOVED)),
    ('deepseek_v3', dict(rms_norm_eps=REMOVED, rope_interleave=REMOVED)),
)
_ANYTHING = ('1', 'true', '', True, None, [], [1], {}, dict(a=1), 0, 0., -1,
             -2.5, 1.5, 10 ** 12, 10 ** 30, 1e300, float('nan'), float('inf'))


def plain() -> Iterator[tuple[str, dict[str, Any]]]:
  """The name and the content of each file of PLAIN."""
  for name, changed in PLAIN:
    yield name, {key: value for key, value in (read(name) | changed).items()
                 if value is not REMOVED}


class Change(NamedTuple):
  """One field of a config.json and its new value."""
  path: tuple[str, ...]
  value: Any  # REMOVED: the field is removed

  def applied(self, fields: dict[str, Any]) -> dict[str, Any]:
    """The changed file."""
    fields = inner = copy.deepcopy(fields)
    for key in self.path[:-1]:
      inner = inner[key]
    inner[self.path[-1]] = self.value
    if self.value is REMOVED:
      del inner[self.path[-1]]
    return fields

  def __str__(self) -> str:
    value = 'removed' if self.value is REMOVED else repr(self.value)
    return f'{".".join(self.path)} = {value}'


def read(name: str) -> dict[str, Any]:
  """The config.json of a fixture."""
  return json.loads((FIXTURES / name / 'config.json').read_text('utf-8'))


def changes(name: str, count: int = 200, seed: int = 0) -> Iterator[Change]:
  """`count` changes of a fixture's config.json, all different."""
  rng, fields, seen = np.random.default_rng(seed), read(name), set()
  leaves = dict(_leaves(fields))
  while len(seen) < count:
    change = _drawn(leaves, rng)
    if str(change) not in seen:
      seen.add(str(change))
      yield change


def _drawn(leaves: dict[tuple[str, ...], Any],
           rng: np.random.Generator) -> Change:
  choose = lambda values: values[rng.integers(len(values))]
  if rng.random() < .45:  # a setting that transformers knows
    sections = sorted({path[:-1] for path in leaves if len(path) > 1})
    section = () if rng.random() < .6 else choose(sections)
    known = _IN_ROPE if section else _KNOWN
    key = choose(list(known))
    return Change((*section, key), choose(known[key]))
  path = choose(list(leaves))
  near = _near(leaves[path])
  return Change(path, choose([REMOVED, REMOVED, *_ANYTHING, *near, *near]))


def _leaves(fields: dict[str, Any], at: tuple[str, ...] = ()
            ) -> Iterator[tuple[tuple[str, ...], Any]]:
  for key, value in sorted(fields.items()):
    yield (*at, key), value
    if isinstance(value, dict):
      yield from _leaves(value, (*at, key))


def _near(value: Any) -> list[Any]:
  """Other values that are like `value`."""
  if isinstance(value, bool):
    return [not value, int(value), str(value)]
  if isinstance(value, (int, float)):
    return [2 * value, value / 2, value // 2, value + 1, -value, float(value),
            str(value), [value]]
  if isinstance(value, list):
    return [value[1:], value + value[:1], value[::-1], value[0], value[:-1]]
  return [value and [value], f'{value}x']
