"""The types of the settings of a tokenizer, one table for all its files."""

from collections.abc import Mapping
import pathlib
from typing import Any

from r1jax import errors

ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')  # of special tokens
FLAGS = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
LISTS = ('additional_special_tokens', 'extra_special_tokens')  # old, new name


def _is_id(value: Any) -> bool:
  return type(value) is int and -1 <= value < 2**31  # a bool is an int, too


def is_token(value: Any) -> bool:
  """Whether it is a token: a text, or an object that holds one."""
  return isinstance(value, str) or (
      isinstance(value, dict) and isinstance(value.get('content'), str)
      and all(isinstance(value.get(flag), bool | None) for flag in FLAGS))


def _are_tokens(value: Any) -> bool:
  values = value.values() if isinstance(value, dict) else value
  return isinstance(value, list | dict) and all(map(is_token, values))


def _is_templates(value: Any) -> bool:
  return isinstance(value, str) or isinstance(value, list) and all(
      isinstance(x, dict) and isinstance(x.get('name'), str)
      and isinstance(x.get('template'), str) for x in value)


def _is_added(value: Any) -> bool:
  return isinstance(value, dict) and all(
      key.isdecimal() and isinstance(x, dict) and is_token(x)
      for key, x in value.items())


_BOOLS = ('a boolean', lambda value: isinstance(value, bool))
_TYPES = {
    'add_bos_token': _BOOLS, 'split_special_tokens': _BOOLS,
    'add_prefix_space': _BOOLS,
    'chat_template': ('a template, or templates with names', _is_templates),
    'added_tokens_decoder': ('tokens by their ids', _is_added),
} | {
    f'{role}_token': ('a token', is_token) for role in ROLES
} | {
    name: ('a list of tokens', _are_tokens) for name in LISTS
} | {
    f'{role}_token_id': ('an id', _is_id) for role in ('bos', 'pad')
} | {
    'eos_token_id': ('an id, or several', lambda value: all(
        map(_is_id, value if isinstance(value, list) else [value])))}


def check(file: pathlib.Path, values: Mapping[str, Any]) -> None:
  """Raises `ConfigError` for a key whose value is neither null nor its type."""
  for key, (wanted, is_one) in _TYPES.items():
    value = values.get(key)
    if value is not None and not is_one(value):
      raise errors.ConfigError(
          'vocab.path', f'{file}: expected {key} to be {wanted}, received '
          f'{value!r:.80}')
