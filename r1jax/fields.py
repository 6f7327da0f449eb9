"""A setting: its value, what it may be, and what it means, in one place.

A section of a config declares each of its fields in one line,

    lr=field(1e-4, '>= 0', 'peak learning rate')

and the bound and the meaning travel in the ConfigDict beside the value, through
overrides, locks and copies: `config.check` refuses by them and --help prints
them. A plain value in a ConfigDict, as of an old config.json, has neither.
"""

from collections.abc import Iterator, Mapping
import ctypes
import math
import numbers
import operator
from typing import Any

import ml_collections

_COMPARISONS = {  # as a bound writes it: what it is in an error, how it is told
    '>=': ('at least', operator.ge), '>': ('more than', operator.gt),
    '<=': ('at most', operator.le), '<': ('less than', operator.lt)}

_INT32 = 2**31
# Of a number of a config: float32 has the least as it is, and the square of the
# largest, and sums of such.
_TINY, _HUGE = 1e-30, 1e15

Bound = str | tuple[str, ...]

_FLOATS = 'float32', 'bfloat16'
# Bounds of a model's settings, in config.model and in a model's own file; what
# each means is in experiments/common.py and models/architecture.py.
MODEL = dict.fromkeys((
    'width', 'layers', 'heads', 'kv_heads', 'mlp', 'window', 'global_every',
    'attention_chunk', 'original_len', 'q_rank', 'kv_rank', 'nope_size',
    'value_size', 'experts', 'active', 'groups', 'active_groups'), '>= 1'
) | dict.fromkeys(('vocab', 'head_size', 'max_len', 'rope_size'), '>= 2'
) | dict.fromkeys((
    'norm_offset', 'mscale', 'mscale_all_dim', 'shared', 'dense_layers'), '>= 0'
) | dict.fromkeys((
    'rms_eps', 'rope_theta', 'rope_theta_local', 'attention_scale',
    'softcap_attention', 'softcap_final', 'factor', 'low_freq', 'high_freq',
    'beta_fast', 'beta_slow', 'attention_factor', 'scale'), '> 0'
) | dict(
    activation=('silu', 'gelu', 'exact_gelu'),
    attention_kernel=('xla', 'splash', 'cudnn'),
    kind=('linear', 'llama3', 'yarn'),
    dtype=_FLOATS, param_dtype=_FLOATS, remat=('none', 'full', 'dots'))


class Field(ml_collections.FieldReference):
  """A value of a ConfigDict with its bound and its meaning."""

  def __init__(self, value: Any, kind: type, bound: Bound, meaning: str,
               may_be_unset: bool = False):
    """Declares a field.

    Args:
      value: the default; None for one that is unset.
      kind: its type.
      bound: what it keeps to, '>= 0, < 1', or '0 or >= 1'; or the choices, a
        tuple; '' for a value that is checked where it is used, or may be any of
        its type.
      meaning: for --help, in a few words.
      may_be_unset: whether it may be None.
    """
    self.bound, self.meaning = bound, meaning
    self.may_be_unset = may_be_unset
    super().__init__(value, field_type=kind)

  def set(self, value: Any, type_safe: bool = True) -> None:
    if value is None and not self.may_be_unset:
      raise TypeError('this field cannot be None')
    super().set(value, type_safe)

  def __setstate__(self, state: Mapping[str, Any]) -> None:
    """Of a copy: FieldReference would forget what it does not know."""
    super().__setstate__(state)
    self.bound, self.meaning = state['bound'], state['meaning']
    self.may_be_unset = state['may_be_unset']

  @property
  def choices(self) -> tuple[str, ...]:
    """The values that it may have; () where it is not one of several."""
    return self.bound if isinstance(self.bound, tuple) else ()

  def broken(self) -> str | None:
    """The part of its bound that its value breaks: 'at least 0'."""
    value = self.get()
    if not is_number(value) or self.choices:
      return None
    return broken(value, self.bound)


def broken(value: float, bound: str) -> str | None:
  """The part of a bound that a number breaks: 'at least 0'; None if it fits.

  A float is compared as float32, where 0.99999999 is not below 1. An integer
  without another limit is one of 32 bits.
  """
  other, _, bound = bound.rpartition(' or ')
  if other and value == float(other):
    return None
  parts = bound.split(', ') if bound else []
  if isinstance(value, numbers.Integral) and '<' not in bound:
    parts.append(f'< {_INT32}')
  for part in parts:
    sign, limit = part.split(' ')
    words, holds = _COMPARISONS[sign]
    kind = int if isinstance(value, numbers.Integral) else _float32
    if not holds(kind(value), kind(float(limit))):
      return f'{other and other + " or "}{words} {limit}'
  return None


def _float32(value: float) -> float:
  """A number as float32 has it."""
  return ctypes.c_float(value).value


def is_number(value: Any) -> bool:
  """Whether it is a number; True and False are none."""
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def unusable(value: Any) -> tuple[str, Any] | None:
  """What a number in a value should be, and the number that is not so.

  Every number of a config, also one that a user has named or put into a tuple,
  is finite, and of a size that float32 has, in which devices compute.
  """
  if isinstance(value, Mapping):
    value = tuple(value.values())
  if isinstance(value, (list, tuple, set, frozenset)):
    return next(filter(None, map(unusable, value)), None)
  if not is_number(value) or isinstance(value, numbers.Integral):
    return None
  if not math.isfinite(value):
    return 'a finite number', value
  if value and not _TINY <= abs(value) <= _HUGE:
    return f'0, or a number of {_TINY:g} to {_HUGE:g} in size', value
  return None


def field(value: Any, bound: Bound, meaning: str) -> Field:
  """A field that always has a value."""
  return Field(value, type(value), bound, meaning)


def optional(kind: type, meaning: str, bound: Bound = '', value: Any = None
            ) -> Field:
  """A field that may be unset."""
  return Field(value, kind, bound, meaning, may_be_unset=True)


def declared(config: ml_collections.ConfigDict, prefix: str = ''
            ) -> Iterator[tuple[str, Field]]:
  """Every declared field of a config by its dotted name, in their order."""
  for name, value in config.items(preserve_field_references=True):
    if isinstance(value, ml_collections.ConfigDict):
      yield from declared(value, f'{prefix}{name}.')
    elif isinstance(value, Field):
      yield prefix + name, value
