"""config.json of Hugging Face folders, as shapes and back.

Llama, Qwen2, Qwen3, Gemma 3 (text) and DeepSeek-V3, in the form that
transformers 5 writes and in that of older releases: there the rotary settings
are `rope_theta` and `rope_scaling`, here `rope_parameters`.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import rotary

Fields = Mapping[str, Any]

# Our field, and theirs.
_COMMON = dict(
    vocab='vocab_size', width='hidden_size', layers='num_hidden_layers',
    heads='num_attention_heads', kv_heads='num_key_value_heads',
    head_size='head_dim', mlp='intermediate_size',
    max_len='max_position_embeddings', rms_eps='rms_norm_eps',
    tied='tie_word_embeddings')
_GEMMA = dict(softcap_attention='attn_logit_softcapping',
              softcap_final='final_logit_softcapping', window='sliding_window')
_LATENT = dict(q_rank='q_lora_rank', kv_rank='kv_lora_rank',
               nope_size='qk_nope_head_dim', rope_size='qk_rope_head_dim',
               value_size='v_head_dim')
_EXPERTS = dict(
    experts='n_routed_experts', active='num_experts_per_tok',
    mlp='moe_intermediate_size', shared='n_shared_experts', groups='n_group',
    active_groups='topk_group', scale='routed_scaling_factor',
    normalize='norm_topk_prob', dense_layers='first_k_dense_replace')
_SCALING = {  # of each rope_type
    'linear': dict(factor='factor'),
    'llama3': dict(factor='factor', low_freq='low_freq_factor',
                   high_freq='high_freq_factor',
                   original_len='original_max_position_embeddings'),
    'yarn': dict(factor='factor', beta_fast='beta_fast', beta_slow='beta_slow',
                 mscale='mscale', mscale_all_dim='mscale_all_dim',
                 original_len='original_max_position_embeddings'),
}
_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu'}
_DEEPSEEK = 'DeepseekV3ForCausalLM'
# Of a model with one label: a score in place of logits, as reward models have.
_SCORING = 'ForSequenceClassification'
OFFSET = 'score_offset'  # our own key: what its scores are lessened by


class _Family(NamedTuple):
  model_type: str
  switches: Mapping[str, Any] = {}  # our fields that it always sets
  silent: Mapping[str, Any] = {}  # their keys, where a file leaves them out


_FAMILIES = {
    'LlamaForCausalLM': _Family('llama'),
    'Qwen2ForCausalLM': _Family('qwen2', dict(qkv_bias=True)),
    'Qwen3ForCausalLM': _Family(
        'qwen3', dict(qk_norm=True), dict(head_dim=128)),
    'Gemma3ForCausalLM': _Family(
        'gemma3_text',
        dict(qk_norm=True, norm_offset=1., post_norms=True, embed_scale=True),
        dict(head_dim=256, tie_word_embeddings=True, rope_theta=1e6,
             hidden_act='gelu_pytorch_tanh')),
    _DEEPSEEK: _Family('deepseek_v3'),
}
# Settings that change what a model computes, and the one value that we know.
_FIXED = dict(
    attention_bias=False, mlp_bias=False, use_sliding_window=False,
    rope_interleave=True, scoring_func='sigmoid', topk_method='noaux_tc',
    moe_layer_freq=1, use_bidirectional_attention=False)


def from_json(fields: Fields, where: str) -> architecture.Config:
  """The shape that a config.json describes, to be computed in float32.

  Raises:
    ConfigError: names the key of `where` that is missing or not supported.
  """
  names = fields.get('architectures') or ()
  causal = [name.replace(_SCORING, 'ForCausalLM') for name in names]
  known = [name for name in causal if name in _FAMILIES]
  if not known:
    raise _refused(where, 'architectures', ' or '.join(_FAMILIES),
                   fields.get('architectures'))
  family = _FAMILIES[known[0]]
  fields = dict(tie_word_embeddings=False, rms_norm_eps=1e-6,
                rope_theta=10_000.) | family.silent | {
                    key: value for key, value in fields.items()
                    if value is not None}
  fields.setdefault('num_key_value_heads', fields.get('num_attention_heads'))
  for key, value in _FIXED.items():
    if fields.get(key, value) != value:
      raise _refused(where, key, repr(value), fields[key])
  try:
    return architecture.Config(**_shape(fields, where, known[0]),
                        scalar=known[0] not in names, **family.switches)
  except KeyError as problem:
    raise errors.ConfigError(
        'init_from', f'{where} has no {problem}') from problem
  except (AttributeError, TypeError) as problem:  # text where a number belongs
    raise errors.ConfigError(
        'init_from', f'{where}: {problem}') from problem


def to_json(config: architecture.Config) -> dict[str, Any]:
  """The config.json of a shape, as `read` gives it back.

  Raises:
    ConfigError: no architecture of transformers has this set of switches.
  """
  for name, family in _FAMILIES.items():
    if (name == _DEEPSEEK) != (config.latent is not None) or any(
        getattr(config, key) != value
        for key, value in family.switches.items()):
      continue
    fields = {'architectures': [name], 'model_type': family.model_type,
              **_fields(config, family.model_type)}
    computed = {key: getattr(config, key) for key in architecture.FREE}
    back = dataclasses.replace(from_json(fields, 'config.json'), **computed)
    if back == config:
      return fields
  raise errors.ConfigError(
      'model', 'no architecture of transformers has these settings, so '
      f'it cannot be exported: {config}')


def scoring(fields: Fields, offset: float) -> dict[str, Any]:
  """The config.json of a model of tokens as that of one of scores."""
  names = [name.replace('ForCausalLM', _SCORING)
           for name in fields['architectures']]
  return {**fields, 'architectures': names, 'id2label': {'0': 'score'},
          'label2id': {'score': 0}, OFFSET: offset}


def _shape(fields: dict[str, Any], where: str, name: str) -> dict[str, Any]:
  if 'head_dim' not in fields and name != _DEEPSEEK:
    fields['head_dim'] = (
        fields['hidden_size'] // fields['num_attention_heads'])
  activation = fields.get('hidden_activation') or fields.get(
      'hidden_act', 'silu')
  if activation not in _ACTIVATIONS:
    raise _refused(where, 'hidden_act', ' or '.join(_ACTIVATIONS), activation)
  if name == _DEEPSEEK:
    latent = architecture.Latent(**_take({'q_lora_rank': None} | fields, _LATENT))
    fields['head_dim'] = latent.nope_size + latent.rope_size
    special = dict(latent=latent,
                   moe=architecture.Experts(
                       **_take({'n_shared_experts': 0} | fields, _EXPERTS)))
  elif name == 'Gemma3ForCausalLM':
    special = _gemma(fields, where)
  else:
    special = {}
  rope = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
  rope = rope.get('full_attention', rope)
  return _take(fields, _COMMON) | special | dict(
      activation=_ACTIVATIONS[activation],
      rope_theta=float(rope.get('rope_theta', fields['rope_theta'])),
      rope_scaling=_scaling(rope, fields, where))


def _gemma(fields: dict[str, Any], where: str) -> dict[str, Any]:
  every = fields.get('sliding_window_pattern') or 6
  kinds = fields.get('layer_types')
  if kinds:
    if 'full_attention' in kinds:
      every = kinds.index('full_attention') + 1
    wanted = ['sliding_attention' if (i + 1) % every else 'full_attention'
              for i in range(len(kinds))]
    if kinds != wanted:
      raise _refused(where, 'layer_types', 'every n-th full_attention', kinds)
  local = (fields.get('rope_parameters') or {}).get('sliding_attention') or {}
  theta = local.get('rope_theta', fields.get('rope_local_base_freq', 10_000.))
  uncapped = dict(attn_logit_softcapping=None, final_logit_softcapping=None)
  return _take(uncapped | fields, _GEMMA) | dict(
      attention_scale=fields['query_pre_attn_scalar'] ** -0.5,
      global_every=every, rope_theta_local=float(theta))


def _scaling(rope: Fields, fields: Fields,
             where: str) -> architecture.RopeScaling | None:
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind == 'default':
    return None
  if kind not in _SCALING:
    raise _refused(where, 'rope_scaling.rope_type', ' or '.join(_SCALING), kind)
  if rope.get('attention_factor') is not None or not rope.get('truncate', True):
    raise _refused(where, 'rope_scaling.attention_factor and truncate',
                   'neither', dict(rope))
  keys = {ours: key for ours, key in _SCALING[kind].items()
          if key in rope or key.endswith('factor')}
  found = _take(rope, keys)
  if 'original_len' in _SCALING[kind]:
    found.setdefault('original_len', fields['max_position_embeddings'])
  return architecture.RopeScaling(kind, **found)


def _fields(config: architecture.Config, kind: str) -> dict[str, Any]:
  """Theirs of everything but the architecture's name."""
  fields = _give(config, _COMMON)
  turned = {value: key for key, value in _ACTIVATIONS.items()}
  fields['hidden_act'] = turned[config.activation]
  rope = {'rope_type': 'default', 'rope_theta': config.rope_theta}
  if config.rope_scaling:
    rope |= {'rope_type': config.rope_scaling.kind} | {
        key: value for key, value in _give(
            config.rope_scaling, _SCALING[config.rope_scaling.kind]).items()
        if value is not None}
  # Here for transformers 5, and below it as older releases want it.
  fields |= dict(rope_parameters=rope, rope_theta=config.rope_theta,
                 rope_scaling=rope if config.rope_scaling else None)
  if kind == 'deepseek_v3' and config.moe:
    del fields['head_dim']
    fields |= _give(config.latent, _LATENT) | _give(config.moe, _EXPERTS)
  if kind == 'gemma3_text' and config.window:
    fields['hidden_activation'] = fields.pop('hidden_act')
    fields |= _give(config, _GEMMA) | dict(
        query_pre_attn_scalar=round(rotary.score_scale(config) ** -2),
        layer_types=[('full_attention', 'sliding_attention')[local]
                     for local in config.is_local()],
        sliding_window_pattern=config.global_every,
        rope_local_base_freq=config.rope_theta_local,
        rope_parameters={
            'full_attention': rope,
            'sliding_attention': {'rope_type': 'default',
                                  'rope_theta': config.rope_theta_local}})
  return fields


def _take(fields: Fields, names: Mapping[str, str]) -> dict[str, Any]:
  return {ours: fields[key] for ours, key in names.items()}


def _give(config: Any, names: Mapping[str, str]) -> dict[str, Any]:
  return {key: getattr(config, ours) for ours, key in names.items()}


def _refused(where: str, key: str, expected: str,
             received: Any) -> errors.ConfigError:
  return errors.ConfigError(
      'init_from', f'{where}: expected {key} to be {expected}, received '
      f'{received!r}')
