"""Rotary settings of a config.json, to and from `architecture`.

transformers 5 has them in `rope_parameters`, of Gemma 3 by the kind of layer;
older releases in `rope_theta` and `rope_scaling`. A file may have both forms if
they say the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from r1jax.models import architecture
from r1jax.models import file_section

_ORIGINAL = 'original_max_position_embeddings'
_KEYS = {  # of each rope_type: {field of RopeScaling: key}
    'linear': dict(factor='factor'),
    'llama3': dict(factor='factor', low_freq='low_freq_factor',
                   high_freq='high_freq_factor', original_len=_ORIGINAL),
    'yarn': dict(factor='factor', beta_fast='beta_fast', beta_slow='beta_slow',
                 mscale='mscale', mscale_all_dim='mscale_all_dim',
                 attention_factor='attention_factor', truncate='truncate',
                 original_len=_ORIGINAL),
}
KEYS = _KEYS['llama3'] | _KEYS['yarn']
_YARN = dict(beta_fast=32., beta_slow=1., mscale=None, mscale_all_dim=None,
             attention_factor=None)


class Rotary(NamedTuple):
  """Fields of `architecture.Config` of those names."""
  rope_theta: float
  rope_scaling: architecture.RopeScaling | None


def read(top: file_section.Section, max_len: int, theta: float) -> Rotary:
  """The settings of a family whose layers are all alike.

  Args:
    top: the config.json.
    max_len: its max_position_embeddings.
    theta: the family's default.

  Raises:
    ConfigError: a setting is not supported, or two of them disagree.
  """
  return _read_global(top, [top.section(key) for key in (
      'rope_parameters', 'rope_scaling')], max_len, theta)


def read_by_kind(top: file_section.Section, max_len: int, theta: float,
                 local_theta: float) -> tuple[Rotary, float]:
  """The settings of Gemma 3's global layers, and theta of its local ones."""
  both, scaling = top.section('rope_parameters'), top.section('rope_scaling')
  full = both and both.section('full_attention')
  sliding = both and both.section('sliding_attention')
  if both:
    both.finish()
  elif scaling and not scaling.said('rope_type'):
    # transformers 5 puts it into a section whose rope_type is 'default'.
    scaling.fixed('type', 'default', reason=', or the key rope_type in its '
                  "place: releases differ in what 'type' does")
  rotary = _read_global(top, [full, scaling], max_len, theta, True)
  key = 'rope_local_base_freq'
  local = Rotary(top.value(
      architecture.Config, 'rope_theta_local', key, local_theta), None)
  if sliding:
    local = _read_one(top, sliding, key, max_len, local_theta, True)
    if local.rope_scaling:
      raise sliding.refused('rope_type', "'default'", sliding.raw('rope_type'))
  return rotary, local.rope_theta


def write(config: architecture.Config) -> dict[str, Any]:
  """The keys from which all releases of transformers read the settings."""
  rope = {'rope_type': 'default', 'rope_theta': config.rope_theta}
  scaling = config.rope_scaling
  if scaling:
    rope['rope_type'] = scaling.kind
    said = {key: getattr(scaling, field)
            for field, key in _KEYS[scaling.kind].items()}
    rope |= {key: value for key, value in said.items()
             if value is not None and value is not True}  # as if absent
  return dict(rope_parameters=rope, rope_theta=config.rope_theta,
              rope_scaling=rope if scaling else None)


def write_by_kind(config: architecture.Config) -> dict[str, Any]:
  """`write`, of Gemma 3."""
  fields, local = write(config), config.rope_theta_local or config.rope_theta
  return fields | dict(rope_local_base_freq=local, rope_parameters=dict(
      full_attention=fields['rope_parameters'],
      sliding_attention={'rope_type': 'default', 'rope_theta': local}))


def _read_global(
    top: file_section.Section, sections: Sequence[file_section.Section | None],
    max_len: int, theta: float, by_kind: bool = False) -> Rotary:
  """What those of `sections` that are there say alike."""
  found = {section.name: _read_one(
      top, section, 'rope_theta', max_len, theta, by_kind)
           for section in sections if section}
  if not found:
    return Rotary(top.value(
        architecture.Config, 'rope_theta', 'rope_theta', theta), None)
  if len(found) > 1:
    top.agree(*found, len(set(found.values())) == 1)
  return next(iter(found.values()))


def _read_one(top: file_section.Section, section: file_section.Section,
              outer_key: str, max_len: int, theta: float, by_kind: bool
             ) -> Rotary:
  """What one section says; `outer_key` may have its theta."""
  read_theta = lambda where, key, default: where.value(
      architecture.Config, 'rope_theta', key, default)
  outer = read_theta(top, outer_key, None)
  found = read_theta(section, 'rope_theta', theta if outer is None else outer)
  top.agree(f'{section.name}.rope_theta', outer_key, outer in (None, found))
  scaling = _read_scaling(top, section, max_len, by_kind)
  section.finish()
  return Rotary(found, scaling)


def _read_scaling(top: file_section.Section, section: file_section.Section,
                  max_len: int, by_kind: bool
                 ) -> architecture.RopeScaling | None:
  named = {key: section.raw(key) for key in ('rope_type', 'type')
           if section.said(key)}
  if len(named) > 1:
    section.agree(*named, named['rope_type'] == named['type'])
  key, kind = next(iter(named.items()), ('rope_type', 'default'))
  section.fixed('partial_rotary_factor', 1)
  if kind == 'default':
    return None
  if not isinstance(kind, str) or kind not in _KEYS:
    raise section.refused(key, ' or '.join(['default', *_KEYS]), kind)
  keys, defaults = dict(_KEYS[kind]), {}
  if _ORIGINAL in keys.values():
    of = architecture.RopeScaling, 'original_len', _ORIGINAL
    # At the top level some families have it; transformers then takes that,
    # but not for sections by kind of layer.
    outer = top.value(*of, None)
    defaults['original_len'] = length = section.value(
        *of, max_len if outer is None or by_kind else outer)
    top.agree(f'{section.name}.{_ORIGINAL}', _ORIGINAL, outer in (None, length))
  if kind == 'yarn':
    if by_kind:
      section.fixed('truncate', True, reason=', as transformers reads it in no '
                    'section of a kind of layer')
    defaults |= _YARN | dict(  # transformers takes a null as false
        factor=max_len / length, truncate=not section.has('truncate'))
  return architecture.RopeScaling(
      kind, **section.values(architecture.RopeScaling, keys, defaults))
