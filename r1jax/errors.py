"""Errors of a configuration: one line that names the field to change."""

import contextlib
import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

class ConfigError(ValueError):
  """A configuration that cannot run; its message is shown without a trace."""


def expected(field: str, expected: str, received: Any) -> ConfigError:
  return ConfigError(
      f'config.{field}: expected {expected}, received {received!r}')


def nearest(word: str, choices: Iterable[str], prefix: str = '') -> str:
  """'; did you mean X?' for the choice nearest to `word`, else a short list."""
  choices = [str(choice) for choice in choices]
  few = len(choices) <= 12
  found = difflib.get_close_matches(word, choices, 1, 0.5 if few else 0.)
  if found:
    return f'; did you mean {prefix}{found[0]}?'
  return '; valid: ' + ', '.join(prefix + choice for choice in choices)


def check_choice(field: str, value: Any, choices: Iterable[str]) -> None:
  """Raises `ConfigError` unless `value` is one of `choices`."""
  if value not in choices:
    raise ConfigError(f'config.{field}: {value!r} is not a choice'
                      + nearest(str(value), choices))


_FEW = 12  # as many names are listed in full


def check_name(field: str, name: str, valid: Collection[str]) -> None:
  """Raises a ConfigError that names `field` unless `name` is in `valid`."""
  if name in valid:
    return
  valid = sorted(valid)
  near = difflib.get_close_matches(str(name), valid, 1, .5)
  expected = ', '.join(valid) if len(valid) <= _FEW else f'{len(valid)} names'
  raise ConfigError(
      f'{field}: expected one of {expected}; received {name!r}'
      + (f'; did you mean {near[0]!r}?' if near else ''))


@contextlib.contextmanager
def renamed(old: str, new: str) -> Iterator[None]:
  """Inside, errors about the field `old` name it `new`."""
  try:
    yield
  except ConfigError as problem:
    raise ConfigError(str(problem).replace(old, new, 1)) from problem
