"""Architectures: the configuration of a decoder; presets.py has published ones.

A model family is a set of values of `Config`: sizes, and switches for what its
layers do differently.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import types
from typing import Any, get_args

import jax
import ml_collections
import numpy as np

from r1jax import errors
from r1jax import fields as fields_lib

ACTIVATIONS = {
    'silu': jax.nn.silu,
    'gelu': lambda x: jax.nn.gelu(x, approximate=True),
    'exact_gelu': lambda x: jax.nn.gelu(x, approximate=False),
}


def _moves(operation: Any, params: Mapping[str, Any]) -> bool:
  """Whether an operation computes nothing, as one that gathers a weight."""
  if operation.name == 'custom_vjp_call':
    return all(_moves(one.primitive, one.params)
               for one in params['call_jaxpr'].eqns)
  return operation.name in (
      'sharding_constraint', 'reshape', 'split', 'squeeze', 'transpose')


REMAT = {  # what of a layer's forward pass is stored for the backward pass
    'none': lambda operation, *_, **params: not _moves(operation, params),
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'full': jax.checkpoint_policies.nothing_saveable,
}

# Fields of Config that change how a model is computed, not which model it is.
FREE = ('dtype', 'param_dtype', 'remat', 'scan_layers', 'attention_chunk',
        'attention_kernel', 'max_len', 'lora_scale', 'scalar')


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Rotary frequencies for contexts longer than in pretraining: rotary.py."""
  kind: str  # 'linear', 'llama3' or 'yarn'
  factor: float
  original_len: int = 8192  # llama3, yarn: the context of pretraining
  low_freq: float = 1.  # llama3: turns within original_len
  high_freq: float = 4.
  beta_fast: float = 32.  # yarn: turns within original_len
  beta_slow: float = 1.
  mscale: float | None = None  # yarn: weights of the attention temperature
  mscale_all_dim: float | None = None
  attention_factor: float | None = None  # in place of that temperature
  truncate: bool = True  # to whole pairs, where the ramp begins and ends


@dataclasses.dataclass(frozen=True)
class Latent:
  """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), see mla.py.

  `head_size` of the decoder is nope_size + rope_size.
  """
  q_rank: int | None  # of queries' latents; None: projected directly
  kv_rank: int  # of the latents of keys and values
  nope_size: int  # of a head's part without rotary positions
  rope_size: int  # of its part with them; all heads share this key
  value_size: int  # of a head's value


@dataclasses.dataclass(frozen=True)
class Experts:
  """A mixture of experts (DeepSeek-V3, arXiv 2412.19437), see moe.py."""
  experts: int  # routed experts of a layer
  active: int  # routed experts of a token
  mlp: int  # feed-forward width of an expert
  shared: int = 0  # shared experts, which every token uses in addition
  groups: int = 1  # of neighbouring experts
  active_groups: int = 1  # groups that a token's experts are chosen from
  scale: float = 1.  # of the routed experts' sum
  normalize: bool = True  # the weights of a token's experts sum to `scale`
  dense_layers: int = 0  # first layers, with an ordinary MLP


@dataclasses.dataclass(frozen=True)
class Config:
  """The architecture of a decoder; published families are values of it."""
  vocab: int
  width: int  # of the residual stream
  layers: int
  heads: int
  kv_heads: int  # fewer than heads: grouped-query attention
  head_size: int
  mlp: int  # feed-forward width
  max_len: int = 4096  # longest sequence, prompt and response together
  rope_theta: float = 10_000.
  rope_scaling: RopeScaling | None = None  # of global layers
  rms_eps: float = 1e-6
  tied: bool = True  # the embedding is also the output matrix
  scalar: bool = False  # a score in place of logits, see layers.Score
  qkv_bias: bool = False  # Qwen2
  qk_norm: bool = False  # Qwen3, Gemma 3
  activation: str = 'silu'  # of ACTIVATIONS; Gemma: 'gelu', the tanh form
  norm_offset: float = 0.  # norms multiply by offset + scale; 1: Gemma
  post_norms: bool = False  # Gemma: norms after attention and MLP, too
  embed_scale: bool = False  # Gemma: embeddings times sqrt(width)
  attention_scale: float | None = None  # None: head_size ** -0.5
  softcap_attention: float | None = None  # Gemma 2
  softcap_final: float | None = None  # Gemma 2
  window: int | None = None  # keys that a query of a local layer sees
  global_every: int = 6  # with a window: every n-th layer attends globally
  local_layers: tuple[bool, ...] | None = None  # instead, layer by layer
  rope_theta_local: float | None = None  # of the local layers (Gemma 3)
  latent: Latent | None = None  # DeepSeek-V3's attention
  moe: Experts | None = None  # DeepSeek-V3's MLP
  lora_scale: float = 1.  # LoRA's alpha / rank
  attention_chunk: int | None = None  # queries computed together; None: all
  attention_kernel: str | None = None  # None: fused_attention.choose
  dtype: str = 'float32'  # of computation
  param_dtype: str = 'float32'
  remat: str = 'none'  # a key of REMAT
  scan_layers: bool = True  # one program for all layers; False runs faster on
  # CPUs, and its time to compile grows with the number of layers

  def check(self) -> None:
    """Raises `ConfigError` for values of another type, out of bounds or in
    conflict."""
    self._check_values(self, 'model.')
    for name in _SECTIONS:
      if getattr(self, name) is not None:
        self._check_values(getattr(self, name), f'model.{name}.')
    if self.rotary_size % 2:
      raise errors.expected(
          'model.latent.rope_size' if self.latent else 'model.head_size',
          'an even number, of rotary pairs', self.rotary_size)
    self._check_rope_scaling()
    self._check_parts()

  def _check_values(self, section: Any, prefix: str) -> None:
    """Each field of `section`, this or one of its sections, by itself."""
    for field in dataclasses.fields(section):
      value = getattr(section, field.name)
      wanted = misfit(type(section), field.name, value)
      if wanted:
        raise errors.expected(prefix + field.name, wanted, value)
      choices = fields_lib.MODEL.get(field.name)
      if isinstance(choices, tuple) and value is not None:
        errors.check_choice(prefix + field.name, value, choices)

  def _check_rope_scaling(self) -> None:
    scaling = self.rope_scaling
    if not scaling:
      return
    if scaling.kind == 'llama3' and scaling.high_freq <= scaling.low_freq:
      raise errors.expected(
          'model.rope_scaling.high_freq',
          f'more than low_freq = {scaling.low_freq}', scaling.high_freq)
    if scaling.kind == 'yarn' and self.rope_theta <= 1:
      raise errors.expected(
          'model.rope_theta', 'more than 1 for yarn', self.rope_theta)

  def _check_parts(self) -> None:
    if self.local_layers is not None and (
        len(self.local_layers) != self.layers or self.window is None):
      raise errors.expected(
          'model.local_layers', f'a value for each of {self.layers} layers, '
          'and model.window to be set', self.local_layers)
    m, parts = self.moe, [('heads', self.heads, 'kv_heads', self.kv_heads)]
    if m:
      parts.append(('moe.experts', m.experts, 'moe.groups', m.groups))
      if m.active_groups > m.groups:
        raise errors.expected(
            'model.moe.active_groups', f'at most moe.groups = {m.groups}',
            m.active_groups)
    for name, whole, divisor, size in parts:
      if whole % size:
        raise errors.expected(
            f'model.{name}', f'a multiple of {divisor} = {size}', whole)
    if m and m.dense_layers >= self.layers:
      raise errors.expected(
          'model.moe.dense_layers', f'fewer than the {self.layers} layers',
          m.dense_layers)
    if m and m.active > m.experts // m.groups * m.active_groups:
      raise errors.expected(
          'model.moe.active', 'at most the experts of moe.active_groups = '
          f'{m.active_groups}', m.active)

  def is_local(self) -> list[bool]:
    """Whether each layer attends within the window only."""
    if self.local_layers is not None:
      return list(self.local_layers)
    return [self.window is not None and (i + 1) % self.global_every != 0
            for i in range(self.layers)]

  @property
  def rotary_size(self) -> int:
    """The size of a head's part that rotates with its position."""
    return self.latent.rope_size if self.latent else self.head_size


# Fields of RopeScaling that each kind reads, beside the factor.
_SCALED_BY = {
    'linear': (), 'llama3': ('original_len', 'low_freq', 'high_freq'),
    'yarn': ('original_len', 'beta_fast', 'beta_slow', 'mscale',
             'mscale_all_dim', 'attention_factor', 'truncate')}
_ROUNDED = 1e-6  # relative: a GGUF file has 1e-5 as 9.99999975e-6
_LARGEST = float(np.finfo(np.float32).max)
_CALLED = {int: 'an integer', float: 'a finite number', bool: 'true or false',
           str: 'a text'}
_SECTIONS = {'latent': Latent, 'moe': Experts, 'rope_scaling': RopeScaling}


def misfit(section: type, name: str, value: Any) -> str | None:
  """What a value should be to be that of a field; None if it fits.

  Args:
    section: Config, Latent, Experts or RopeScaling.
    name: of the field.
    value: of any type, as a file may have it.
  """
  kind = type_of(section, name)
  if value is None and kind is not section.__annotations__[name]:
    return None
  if get_args(kind):  # tuple[bool, ...]
    fits = isinstance(value, tuple) and all(isinstance(x, bool) for x in value)
    return None if fits else 'a list of true and false'
  return misfit_plain(value, kind, fields_lib.MODEL.get(name, ''))


def type_of(section: type, name: str) -> type:
  """The type of a field, of one that may be None without the None."""
  kind = section.__annotations__[name]
  return get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def misfit_plain(value: Any, kind: type, bound: fields_lib.Bound = ''
                ) -> str | None:
  """What a value should be to be of a type and within bounds; None if it is.

  An integer is a float, too; true and false are no numbers. Of a text the
  choices are not looked at.
  """
  of_kind = isinstance(value, (int, float) if kind is float else kind)
  if not of_kind or kind is not bool and isinstance(value, bool):
    return _CALLED.get(kind, 'a section')
  if kind not in (int, float):
    return None
  if kind is float and not abs(value) <= _LARGEST:  # NaN, too
    return _CALLED[float]
  return fields_lib.broken(kind(value), bound)


def sections(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Fields of a Config, its sections turned into their dataclasses.

  Raises:
    ConfigError: names the field that is missing or unknown.
  """
  values = {name: _from_mapping(_SECTIONS[name], f'model.{name}', value)
            if name in _SECTIONS and value is not None else value
            for name, value in fields.items()}
  if isinstance(values.get('local_layers'), list):  # as JSON has it
    values['local_layers'] = tuple(values['local_layers'])
  return values


def from_fields(fields: Mapping[str, Any]) -> Config:
  """The Config with the `fields` of `config.model` or of a file.

  Its values are not yet checked: `Config.check` does that.

  Raises:
    ConfigError: names the field that is missing or unknown.
  """
  if not _is_mapping(fields):
    raise errors.expected('model', 'a section', fields)
  return _from_mapping(Config, 'model', sections(fields))


def replaced(config: Config, fields: Mapping[str, Any]) -> Config:
  """`config` with some `fields` of `config.model`; as `from_fields`."""
  _check_names(Config, 'model', fields)
  return dataclasses.replace(config, **sections(fields))


def windows(window: int | None, local: Sequence[bool]) -> dict[str, Any]:
  """The fields of Config that say which layers are `local`."""
  local, usual = tuple(local), Config.global_every
  if not any(local):
    return dict(window=None, global_every=usual, local_layers=None)
  period = local.index(False) + 1 if False in local else usual
  if local == tuple((i + 1) % period != 0 for i in range(len(local))):
    return dict(window=window, global_every=period, local_layers=None)
  return dict(window=window, global_every=usual, local_layers=local)


def canonical(config: Config) -> Config:
  """The form of all configs that compute the same as `config`.

  Fields that change nothing have their defaults.
  """
  local, fields = config.is_local(), {}
  scaling, theta = config.rope_scaling, config.rope_theta_local
  if scaling:
    scaling = RopeScaling(scaling.kind, scaling.factor, **{
        name: getattr(scaling, name) for name in _SCALED_BY[scaling.kind]})
  if not any(local) or theta == config.rope_theta and scaling is None:
    theta = None
  if config.latent:  # whose attention does not look at these
    fields = dict(kv_heads=config.heads, qkv_bias=False, qk_norm=False)
  if config.attention_scale and math.isclose(
      config.attention_scale, config.head_size ** -0.5, rel_tol=_ROUNDED):
    fields |= dict(attention_scale=None)
  return dataclasses.replace(
      config, rope_scaling=scaling, rope_theta_local=theta, **fields,
      **windows(config.window, local))


def difference(one: Config, other: Config) -> tuple[str, Any, Any] | None:
  """A field by which two models differ, and its two `canonical` values.

  None if they compute the same, by whatever fields. Those of FREE may differ.
  """
  one, other = canonical(one), canonical(other)
  for field in dataclasses.fields(Config):
    a, b = getattr(one, field.name), getattr(other, field.name)
    if field.name not in FREE and not _same(a, b):
      return field.name, a, b
  return None


def _same(one: Any, other: Any) -> bool:
  """Whether values of a field are, but for rounding."""
  if isinstance(one, float) and isinstance(other, float):
    return math.isclose(one, other, rel_tol=_ROUNDED)
  if dataclasses.is_dataclass(one) and type(one) is type(other):
    return all(map(_same, dataclasses.astuple(one), dataclasses.astuple(other)))
  return one == other


def check_same(known: Config, wanted: Config, where: str) -> None:
  """Raises `ConfigError` unless the parameters of `known` fit `wanted`.

  Args:
    known: the model in `where`.
    wanted: the model to be initialised from it. A scalar model may take all
      but its head from a language model, but not the other way round, since a
      scalar model has no output matrix.
    where: the path of the model, for the message.
  """
  if known.scalar and not wanted.scalar:
    raise errors.expected(
        'init_from', 'a language model; this one has a scalar head', where)
  found = difference(known, wanted)
  if found:
    name, value, other = found
    raise errors.expected(f'model.{name}', f'{value!r}, as in {where}', other)


def _is_mapping(value: Any) -> bool:
  return isinstance(value, (Mapping, ml_collections.ConfigDict))


def _check_names(kind: type, at: str, fields: Any) -> dict[str, Any]:
  """The defaults of a dataclass, once all `fields` are known to be its."""
  known = {field.name: field.default for field in dataclasses.fields(kind)}
  for name in fields:
    if name not in known:
      raise errors.ConfigError(
          f'{at}.{name}', 'no such field'
          + errors.nearest(name, known, f'config.{at}.'))
  return known


def _from_mapping(kind: type, at: str, fields: Any) -> Any:
  """An instance of the dataclass `kind`; errors name fields of `at`."""
  if not _is_mapping(fields):
    raise errors.expected(at, 'a section', fields)
  known = _check_names(kind, at, fields)
  for name, default in known.items():
    if default is dataclasses.MISSING and name not in fields:
      raise errors.expected(f'{at}.{name}', 'a value', None)
  return kind(**fields)
