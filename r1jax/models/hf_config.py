"""config.json of Hugging Face models, to and from `architecture.Config`.

Llama, Qwen2, Qwen3, Gemma 3 (text) and DeepSeek-V3, as transformers 5 and older
releases write it. What transformers would compute is read, or refused: a value
of another type or out of bounds, two keys that disagree, a key of a section
whose meaning is not known (file_section.py), and a value of `_FIXED` that is
not supported. Other keys at the top level, of which there are many, change
nothing. A family without a new switch is an entry of `_FAMILIES`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import file_section
from r1jax.models import hf_float8
from r1jax.models import hf_rope
from r1jax.models import presets
from r1jax.models import rotary

Fields = Mapping[str, Any]

# Fields of architecture.Config and its sections: keys of config.json.
_SIZES = dict(
    vocab='vocab_size', width='hidden_size', layers='num_hidden_layers',
    heads='num_attention_heads', mlp='intermediate_size',
    max_len='max_position_embeddings')
_OPTIONAL = dict(
    kv_heads='num_key_value_heads', head_size='head_dim',
    rms_eps='rms_norm_eps', tied='tie_word_embeddings')
_LATENT = dict(q_rank='q_lora_rank', kv_rank='kv_lora_rank',
               nope_size='qk_nope_head_dim', rope_size='qk_rope_head_dim',
               value_size='v_head_dim')
_EXPERTS = dict(
    experts='n_routed_experts', active='num_experts_per_tok',
    mlp='moe_intermediate_size', shared='n_shared_experts', groups='n_group',
    active_groups='topk_group', scale='routed_scaling_factor',
    normalize='norm_topk_prob', dense_layers='first_k_dense_replace')
_CAP = 'final_logit_softcapping'
# The names that transformers has for each activation, that to write first.
_ACTIVATIONS = {
    'silu': ('silu', 'swish'),
    'gelu': ('gelu_pytorch_tanh', 'gelu_new', 'gelu_fast', 'gelu_python_tanh',
             'gelu_accurate'),
    'exact_gelu': ('gelu', 'gelu_python')}
_DTYPES = {name: name for name in (  # and what PyTorch calls some of them, too
    'float32', 'bfloat16', 'float16', 'float64', 'float8_e4m3fn', 'auto')} | {
        'float': 'float32', 'half': 'float16', 'double': 'float64'}
_KINDS = ('full_attention', 'sliding_attention')  # of layers; local: the second
_NEVER_SET = 28  # transformers' default of max_window_layers
# transformers has a default where they are absent, but refuses a null.
_NEVER_NULL = ('tie_word_embeddings', 'rms_norm_eps', 'hidden_act')
OFFSET = 'score_offset'  # a key of our own: the offset of layers.Score

_FURTHER = 'num_nextn_predict_layers', 'num_mtp_layers'  # of transformers, too

# Keys that change what a model computes, and the one value supported. Gemma 3
# has a cap of attention scores that no implementation applies.
_FIXED = dict(
    attention_bias=False, mlp_bias=False, use_bidirectional_attention=False,
    is_causal=True, attn_logit_softcapping=None, partial_rotary_factor=1,
    per_layer_config=None, rope_interleave=True, scoring_func='sigmoid',
    topk_method='noaux_tc', moe_layer_freq=1, kv_sharing_modes=None,
    text_config=None, decoder=None, generator=None)
# Of a family without local layers transformers computes without them, but its
# cache keeps only so many tokens if no layer_types say otherwise.
_CACHED = ('sliding_window', 'attention_chunk_size')


class _Family(NamedTuple):
  """The models of one architecture of transformers."""
  prefix: str  # of its classes
  switches: Fields = {}  # fields of Config that it always sets
  defaults: Fields = {}  # of fields of Config that a file may leave out
  fixed: tuple[str, ...] = ()  # of _FIXED, that its files have
  base: str = ''  # prefix of the classes that are no language model
  activation: str = 'hidden_act'  # its key, and that of others
  other_activation: str = 'hidden_activation'
  slides: str = ''  # the key by which some layers are local
  kv_heads: int = 0  # where the key is absent; 0, or a null: as many as heads

  def classes(self) -> dict[str, bool]:
    """{name of a class: whether it is a reward model}."""
    base = self.base or self.prefix
    return {f'{self.prefix}ForCausalLM': False, f'{base}Model': False,
            f'{base}ForSequenceClassification': True,
            f'{self.prefix}ForSequenceClassification': True}


_FAMILIES = {  # by model_type
    'llama': _Family('Llama', defaults=dict(max_len=2048),
                     fixed=('attention_bias', 'mlp_bias')),
    'qwen2': _Family('Qwen2', dict(qkv_bias=True), dict(max_len=32_768),
                     slides='max_window_layers', kv_heads=32),
    'qwen3': _Family('Qwen3', dict(qk_norm=True),
                     dict(head_size=128, max_len=32_768), ('attention_bias',),
                     slides='max_window_layers', kv_heads=32),
    'gemma3_text': _Family(
        'Gemma3',
        dict(qk_norm=True, norm_offset=1., post_norms=True, embed_scale=True),
        dict(head_size=256, tied=True, rope_theta=1e6, activation='gelu',
             max_len=131_072),
        ('attention_bias', 'use_bidirectional_attention'), 'Gemma3Text',
        'hidden_activation', 'hidden_act', 'sliding_window_pattern', 4),
    'deepseek_v3': _Family('DeepseekV3', defaults=dict(max_len=4096), fixed=(
        'attention_bias', 'rope_interleave', 'scoring_func', 'topk_method',
        'moe_layer_freq')),
}


def from_json(fields: Fields, where: str) -> architecture.Config:
  """The architecture that a config.json describes, computed in float32.

  Raises:
    ConfigError: names the key of the file `where` that is missing, of another
      type, out of bounds, not supported, or disagrees with another.
  """
  top = file_section.Section(fields, where)
  kind, scalar = _kind(top)
  family = _FAMILIES[kind]
  for key, only in _FIXED.items():
    top.fixed(key, only)
  if not family.slides and not top.said('layer_types'):
    for key in _CACHED:
      top.fixed(key, None, reason=' without layer_types')
  for key in _NEVER_NULL:
    if top.has(key) and top.raw(key) is None and key != family.other_activation:
      raise top.refused(key, 'a value, or absent', None)
  beyond(fields, where)
  _check_dtypes(top)
  hf_float8.blocks(fields, where)
  sizes = top.values(architecture.Config, _SIZES, family.defaults)
  if kind == 'deepseek_v3':
    rest = _deepseek(top, sizes)
  else:
    rest = top.values(architecture.Config, _OPTIONAL, dict(
        rms_eps=1e-6, tied=False, head_size=sizes['width'] // sizes['heads'])
        | family.defaults | dict(kv_heads=sizes['heads'] if top.has(
            _OPTIONAL['kv_heads']) else family.kv_heads or sizes['heads']))
  if kind == 'gemma3_text':
    rest |= _gemma(top, sizes)
  else:
    rest |= hf_rope.read(top, sizes['max_len'], 10_000.)._asdict()
  windows = _windows(top, family, sizes['layers'])
  if windows['window'] is None:
    rest.pop('rope_theta_local', None)
  config = architecture.Config(
      **sizes, **rest, **windows, **family.switches, scalar=scalar,
      activation=_activation(top, family))
  try:
    config.check()
  except errors.ConfigError as problem:
    raise top.error(f'{_key(problem.field)}: {problem.message}') from problem
  return config


def beyond(fields: Fields, where: str) -> tuple[int, float]:
  """What no `architecture.Config` has: layers behind the last, and OFFSET.

  The layers are those of DeepSeek-V3's multi-token prediction. Without the key
  there are none, so that no last layer is taken for one.
  """
  top = file_section.Section(fields, where)
  said = [top.plain(key, int, bound='>= 0')
          for key in _FURTHER if top.said(key)]
  top.agree(*_FURTHER, len(set(said)) < 2)
  return max(said, default=0), top.plain(OFFSET, float, 0.)


def left_out(fields: Fields) -> list[str]:
  """The keys that a config.json leaves out, of those that decide what tensors
  there are and whose default is a number of the architecture."""
  kind = _kind(file_section.Section(fields, ''))[0]
  family = _FAMILIES[kind]
  keys = ['num_key_value_heads'] * bool(family.kv_heads) + [
      'head_dim'] * ('head_size' in family.defaults)
  if kind == 'deepseek_v3':
    keys += [*_LATENT.values(), 'n_routed_experts', 'moe_intermediate_size',
             'n_shared_experts', 'first_k_dense_replace']
    keys += _FURTHER[:1] * (fields.get(_FURTHER[1]) is None)
  return [key for key in keys if key not in fields]


def to_json(config: architecture.Config) -> dict[str, Any]:
  """The config.json of an architecture; `from_json` is its inverse.

  Raises:
    ConfigError: names the field that no architecture of transformers has.
  """
  config = architecture.canonical(config)
  kind = min(_FAMILIES, key=lambda kind: _misfits(config, kind))
  family = _FAMILIES[kind]
  fields = {'architectures': [f'{family.prefix}ForCausalLM'],
            'model_type': kind, **_json_fields(config, kind, family)}
  try:
    found = architecture.difference(from_json(fields, 'config.json'), config)
  except errors.ConfigError as problem:
    raise errors.ConfigError(
        'model', f'cannot be exported: {problem.message}') from problem
  if found:
    name, value, received = found
    raise errors.expected(
        f'model.{name}', f'{value!r} to export the model as {family.prefix}, '
        'the nearest architecture of transformers', received)
  return fields


def _misfits(config: architecture.Config, kind: str) -> tuple[bool, int]:
  """How far a family is from a config; its switches tell it from others."""
  names = {name for family in _FAMILIES.values() for name in family.switches}
  return (kind == 'deepseek_v3') != (config.latent is not None), sum(
      getattr(config, name) != _FAMILIES[kind].switches.get(
          name, getattr(architecture.Config, name)) for name in names)


def to_scoring(fields: Fields, offset: float) -> dict[str, Any]:
  """The config.json of a reward model, from that of its language model."""
  family = _FAMILIES[fields['model_type']]
  name = f'{family.base or family.prefix}ForSequenceClassification'
  return {**fields, 'architectures': [name], 'id2label': {'0': 'score'},
          'label2id': {'score': 0}, OFFSET: offset}


def _kind(top: file_section.Section) -> tuple[str, bool]:
  """A model's type, and whether it is a reward model."""
  kind, names = top.raw('model_type'), top.raw('architectures')
  if kind is not None and (not isinstance(kind, str) or kind not in _FAMILIES):
    raise top.refused('model_type', ' or '.join(_FAMILIES), kind)
  if names in (None, []) and kind is not None:
    return kind, False
  classes = {name: (other, scalar) for other, family in _FAMILIES.items()
             for name, scalar in family.classes().items()}
  known = [classes[name] for name in names if isinstance(
      name, str) and name in classes] if isinstance(names, list) else []
  if len(set(known)) != 1:
    raise top.refused('architectures', 'a list with one of '
                      + ', '.join(name for name in classes
                                  if name.endswith('LM')), names)
  top.agree('architectures', 'model_type', kind in (None, known[0][0]))
  return known[0]


def _check_dtypes(top: file_section.Section) -> None:
  """The tensors have dtypes of their own, but a wrong one is no dtype."""
  keys = 'dtype', 'torch_dtype'
  said = {key: top.raw(key) for key in keys if top.said(key)}
  for key, name in said.items():
    if not isinstance(name, str) or name not in _DTYPES:
      raise top.refused(key, ' or '.join(_DTYPES), name)
  top.agree(*keys, len({_DTYPES[name] for name in said.values()}) < 2)


def _activation(top: file_section.Section, family: _Family) -> str:
  known = {name: ours for ours, names in _ACTIVATIONS.items() for name in names}
  default = family.defaults.get('activation', 'silu')
  found = []
  for key in (family.activation, family.other_activation):
    name = top.raw(key)
    if name is not None and (not isinstance(name, str) or name not in known):
      raise top.refused(key, ' or '.join(known), name)
    found.append(known.get(name, default))
    default = found[0]
  top.agree(family.activation, family.other_activation, found[0] == found[1])
  return found[0]


def _deepseek(top: file_section.Section, sizes: Fields) -> dict[str, Any]:
  """Fields of DeepSeek-V3: latent attention and experts.

  transformers' defaults are DeepSeek-V3's; a null is another thing.
  """
  def part(kind, keys, known, **nulls):
    return kind(**top.values(kind, keys, nulls | {
        field: getattr(known, field) for field, key in keys.items()
        if not top.has(key)}))

  known = presets.PRESETS['deepseek_v3']
  latent = part(architecture.Latent, _LATENT, known.latent, q_rank=None)
  moe = part(architecture.Experts, _EXPERTS, known.moe, normalize=False)
  whole = latent.nope_size + latent.rope_size
  for key, value, other in (
      ('head_dim', latent.rope_size, 'qk_rope_head_dim'),
      ('qk_head_dim', whole, 'qk_nope_head_dim'),
      ('num_local_experts', moe.experts, 'n_routed_experts'),
      ('num_key_value_heads', sizes['heads'], 'num_attention_heads')):
    top.agree(key, other, top.plain(key, int, value) == value)
  return top.values(
      architecture.Config, dict(rms_eps='rms_norm_eps',
                                tied='tie_word_embeddings'),
      dict(rms_eps=1e-6, tied=False)) | dict(
          latent=latent, head_size=whole, kv_heads=sizes['heads'],
          moe=moe if moe.dense_layers < sizes['layers'] else None)


def _gemma(top: file_section.Section, sizes: Fields) -> dict[str, Any]:
  """Fields of Gemma 3 alone."""
  rope, local = hf_rope.read_by_kind(top, sizes['max_len'], 1e6, 10_000.)
  scalar = top.value(
      architecture.Config, 'width', 'query_pre_attn_scalar', 256)
  return rope._asdict() | dict(
      rope_theta_local=local, attention_scale=scalar ** -0.5,
      softcap_final=top.value(
          architecture.Config, 'softcap_final', _CAP, None))


def _windows(top: file_section.Section, family: _Family,
             layers: int) -> dict[str, Any]:
  """The fields of Config that say which layers are local."""
  window, local = _local_by_rule(top, family, layers)
  kinds = top.raw('layer_types')
  if kinds is not None:
    if not isinstance(kinds, list) or len(kinds) != layers or any(
        kind not in _KINDS for kind in kinds):
      raise top.refused('layer_types', f'a list of {layers} of '
                        f'{" and ".join(_KINDS)}', kinds)
    rule, local = local, [kind == 'sliding_attention' for kind in kinds]
    # transformers writes Qwen's rule even if nobody has set it.
    if top.said(family.slides) and top.raw(family.slides) != _NEVER_SET:
      top.agree('layer_types', family.slides, rule == local)
  if not family.slides and any(local):
    raise top.refused('layer_types', 'full_attention in every layer', kinds)
  if window is None and any(local):
    if family.slides == 'max_window_layers':
      top.agree('use_sliding_window', 'layer_types',
                top.raw('use_sliding_window') is True)
    raise top.refused('sliding_window', 'at least 1, as some layers are '
                      'sliding_attention', None)
  return architecture.windows(window, local)


def _local_by_rule(top: file_section.Section, family: _Family, layers: int
                   ) -> tuple[int | None, list[bool]]:
  """The window, and the local layers where no list says them."""
  if not family.slides:
    return None, [False] * layers
  window = top.value(architecture.Config, 'window', 'sliding_window',
                     None if top.has('sliding_window') else 4096)
  if family.slides == 'sliding_window_pattern':
    period = top.plain(family.slides, int, 6, bound='>= 1')
    return window, [(i + 1) % period != 0 for i in range(layers)]
  if not top.plain('use_sliding_window', bool, False):
    window = None
  first = top.plain(family.slides, int, _NEVER_SET, bound='>= 0')
  return window, [window is not None and i >= first for i in range(layers)]


def _key(field: str) -> str:
  """The key of a field in an error of `architecture.Config.check`."""
  section, _, name = field.removeprefix('model.').rpartition('.')
  keys = {'latent': _LATENT, 'moe': _EXPERTS, 'rope_scaling': hf_rope.KEYS}.get(
      section, _SIZES | _OPTIONAL)
  return keys.get(name, name)


def _json_fields(config: architecture.Config, kind: str,
                 family: _Family) -> dict[str, Any]:
  """The keys of config.json, except those that name the architecture."""
  local = config.is_local()
  fields = _to_keys(config, _SIZES | _OPTIONAL) | {
      key: _FIXED[key] for key in family.fixed}
  fields[family.activation] = _ACTIVATIONS[config.activation][0]
  fields |= hf_rope.write_by_kind(config) if (
      kind == 'gemma3_text') else hf_rope.write(config)
  if family.slides:
    fields |= dict(
        sliding_window=config.window, layer_types=[_KINDS[x] for x in local])
  if family.slides == 'max_window_layers':
    fields['use_sliding_window'] = any(local)
  if kind == 'gemma3_text':
    if config.window and config.local_layers is None:
      fields['sliding_window_pattern'] = config.global_every
    fields |= _to_keys(config, dict(softcap_final=_CAP)) | dict(
        query_pre_attn_scalar=max(1, round(rotary.score_scale(config) ** -2)),
        sliding_window=config.window or 4096)  # it has to be there
  if kind == 'deepseek_v3':
    del fields['head_dim']
    fields |= _to_keys(config.latent, _LATENT) | (
        _to_keys(config.moe, _EXPERTS) if config.moe else
        {_EXPERTS['dense_layers']: config.layers})
  return fields


def _to_keys(config: Any, keys: Mapping[str, str]) -> dict[str, Any]:
  """{key: value}; transformers refuses an integer where a float belongs."""
  values = {key: (getattr(config, field), architecture.type_of(
      type(config), field)) for field, key in keys.items()}
  return {key: float(value) if kind is float and value is not None else value
          for key, (value, kind) in values.items()}
