"""config.json of Hugging Face models, to and from `architecture.Config`.

Llama, Qwen2, Qwen3, Gemma 3 (text) and DeepSeek-V3, in the form of transformers
5, whose rotary settings are in `rope_parameters`, and of older releases, where
they are in `rope_theta` and `rope_scaling`. A family without a new switch is an
entry of `_FAMILIES`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import rotary
from r1jax.models import tensor_files

Fields = Mapping[str, Any]

# Fields of architecture.Config and its sections: keys of config.json.
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
# Of a reward model: one label, whose logit is the score.
_SCORING = 'ForSequenceClassification'
OFFSET = 'score_offset'  # a key of our own: the offset of layers.Score


class _Family(NamedTuple):
  """The models of one architecture of transformers."""
  model_type: str
  switches: Mapping[str, Any] = {}  # fields of Config that it always sets
  defaults: Mapping[str, Any] = {}  # of keys that a config.json may leave out


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
# Keys that change what a model computes, and the one value supported.
_FIXED = dict(
    attention_bias=False, mlp_bias=False, use_sliding_window=False,
    rope_interleave=True, scoring_func='sigmoid', topk_method='noaux_tc',
    moe_layer_freq=1, use_bidirectional_attention=False)


def from_json(fields: Fields, where: str) -> architecture.Config:
  """The architecture that a config.json describes, computed in float32.

  Raises:
    ConfigError: names the key of the file `where` that is missing or not
      supported.
  """
  names = fields.get('architectures') or ()
  causal = [name.replace(_SCORING, 'ForCausalLM') for name in names]
  known = [name for name in causal if name in _FAMILIES]
  if not known:
    raise _refused(where, 'architectures', ' or '.join(_FAMILIES),
                   fields.get('architectures'))
  family = _FAMILIES[known[0]]
  fields = dict(tie_word_embeddings=False, rms_norm_eps=1e-6,
                rope_theta=10_000.) | family.defaults | {
                    key: value for key, value in fields.items()
                    if value is not None}
  fields.setdefault('num_key_value_heads', fields.get('num_attention_heads'))
  for key, value in _FIXED.items():
    if fields.get(key, value) != value:
      raise _refused(where, key, repr(value), fields[key])
  try:
    return architecture.Config(
        **_config_fields(fields, where, known[0]),
        scalar=known[0] not in names, **family.switches)
  except KeyError as problem:
    raise tensor_files.file_error(
        where, f'the configuration lacks the key {problem}') from problem
  except (AttributeError, TypeError) as problem:  # text where a number belongs
    raise tensor_files.file_error(where, str(problem)) from problem


def to_json(config: architecture.Config) -> dict[str, Any]:
  """The config.json of an architecture; `from_json` is its inverse.

  Raises:
    ConfigError: no architecture of transformers has these switches.
  """
  for name, family in _FAMILIES.items():
    if (name == _DEEPSEEK) != (config.latent is not None) or any(
        getattr(config, key) != value
        for key, value in family.switches.items()):
      continue
    fields = {'architectures': [name], 'model_type': family.model_type,
              **_json_fields(config, family.model_type)}
    back = from_json(fields, 'config.json')
    if architecture.computed_as(back, config) == config:
      return fields
  raise errors.ConfigError(
      'model', 'no architecture of transformers has these settings, so '
      f'it cannot be exported: {config}')


def to_scoring(fields: Fields, offset: float) -> dict[str, Any]:
  """The config.json of a reward model, from that of its language model."""
  names = [name.replace('ForCausalLM', _SCORING)
           for name in fields['architectures']]
  return {**fields, 'architectures': names, 'id2label': {'0': 'score'},
          'label2id': {'score': 0}, OFFSET: offset}


def _config_fields(fields: dict[str, Any], where: str, name: str
                   ) -> dict[str, Any]:
  """Fields of architecture.Config, from those of architecture `name`."""
  if 'head_dim' not in fields and name != _DEEPSEEK:
    fields['head_dim'] = (
        fields['hidden_size'] // fields['num_attention_heads'])
  activation = fields.get('hidden_activation') or fields.get(
      'hidden_act', 'silu')
  if activation not in _ACTIVATIONS:
    raise _refused(where, 'hidden_act', ' or '.join(_ACTIVATIONS), activation)
  if name == _DEEPSEEK:
    latent = architecture.Latent(
        **_from_keys({'q_lora_rank': None} | fields, _LATENT))
    fields['head_dim'] = latent.nope_size + latent.rope_size
    special = dict(latent=latent, moe=architecture.Experts(
        **_from_keys({'n_shared_experts': 0} | fields, _EXPERTS)))
  elif name == 'Gemma3ForCausalLM':
    special = _gemma(fields, where)
  else:
    special = {}
  rope = fields.get('rope_parameters') or fields.get('rope_scaling') or {}
  rope = rope.get('full_attention', rope)
  return _from_keys(fields, _COMMON) | special | dict(
      activation=_ACTIVATIONS[activation],
      rope_theta=float(rope.get('rope_theta', fields['rope_theta'])),
      rope_scaling=_scaling(rope, fields, where))


def _gemma(fields: dict[str, Any], where: str) -> dict[str, Any]:
  """Fields of Gemma 3 alone: its local and global layers."""
  period = fields.get('sliding_window_pattern') or 6
  kinds = fields.get('layer_types')
  if kinds:
    if 'full_attention' in kinds:
      period = kinds.index('full_attention') + 1
    wanted = ['sliding_attention' if (i + 1) % period else 'full_attention'
              for i in range(len(kinds))]
    if kinds != wanted:
      raise _refused(where, 'layer_types', 'every n-th full_attention', kinds)
  local = (fields.get('rope_parameters') or {}).get('sliding_attention') or {}
  theta = local.get('rope_theta', fields.get('rope_local_base_freq', 10_000.))
  uncapped = dict(attn_logit_softcapping=None, final_logit_softcapping=None)
  return _from_keys(uncapped | fields, _GEMMA) | dict(
      attention_scale=fields['query_pre_attn_scalar'] ** -0.5,
      global_every=period, rope_theta_local=float(theta))


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
  keys = {field: key for field, key in _SCALING[kind].items()
          if key in rope or key.endswith('factor')}
  settings = _from_keys(rope, keys)
  if 'original_len' in _SCALING[kind]:
    settings.setdefault('original_len', fields['max_position_embeddings'])
  return architecture.RopeScaling(kind, **settings)


def _json_fields(config: architecture.Config, kind: str) -> dict[str, Any]:
  """The keys of config.json, except those that name the architecture."""
  fields = _to_keys(config, _COMMON)
  hf_activations = {value: key for key, value in _ACTIVATIONS.items()}
  fields['hidden_act'] = hf_activations[config.activation]
  rope = {'rope_type': 'default', 'rope_theta': config.rope_theta}
  if config.rope_scaling:
    rope |= {'rope_type': config.rope_scaling.kind} | {
        key: value for key, value in _to_keys(
            config.rope_scaling, _SCALING[config.rope_scaling.kind]).items()
        if value is not None}
  # rope_parameters is for transformers 5, the others are for older releases.
  fields |= dict(rope_parameters=rope, rope_theta=config.rope_theta,
                 rope_scaling=rope if config.rope_scaling else None)
  if kind == 'deepseek_v3' and config.moe:
    del fields['head_dim']
    fields |= _to_keys(config.latent, _LATENT) | _to_keys(config.moe, _EXPERTS)
  if kind == 'gemma3_text' and config.window:
    fields['hidden_activation'] = fields.pop('hidden_act')
    fields |= _to_keys(config, _GEMMA) | dict(
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


def _from_keys(fields: Fields, keys: Mapping[str, str]) -> dict[str, Any]:
  return {field: fields[key] for field, key in keys.items()}


def _to_keys(config: Any, keys: Mapping[str, str]) -> dict[str, Any]:
  return {key: getattr(config, field) for field, key in keys.items()}


def _refused(where: str, key: str, expected: str,
             received: Any) -> errors.ConfigError:
  return tensor_files.file_error(
      where, f'expected {key} to be {expected}, received {received!r}')
