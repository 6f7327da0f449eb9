"""Errors of a configuration: one line that names the field to change."""

import contextlib
import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any


_FEW = 12  # as many choices are listed in full


class ConfigError(ValueError):
  """A configuration that cannot run; its message is shown without a trace."""


def expected(field: str, expected: str, received: Any) -> ConfigError:
  """The error of a value of `config.<field>` that is not as expected."""
  return ConfigError(
      f'config.{field}: expected {expected}, received {received!r}')


def nearest(word: str, choices: Iterable[str], prefix: str = '') -> str:
  """'; did you mean X?' for the choice nearest to `word`, else a short list."""
  choices = [str(choice) for choice in choices]
  few = len(choices) <= _FEW
  found = difflib.get_close_matches(word, choices, 1, 0.5 if few else 0.)
  if found:
    return f'; did you mean {prefix}{found[0]}?'
  return '; valid: ' + ', '.join(prefix + choice for choice in choices)


def check_choice(field: str, value: Any, choices: Collection[str]) -> None:
  """Raises `ConfigError` about `config.<field>` unless `value` is a choice.

  More than 12 choices are counted, not listed; the nearest is named.
  """
  if value in choices:
    return
  names = sorted(map(str, choices))
  near = difflib.get_close_matches(str(value), names, 1, .5)
  listed = ', '.join(names) if len(names) <= _FEW else f'{len(names)} names'
  raise ConfigError(
      f'config.{field}: expected one of {listed}; received {value!r}'
      + (f'; did you mean {near[0]}?' if near else ''))


@contextlib.contextmanager
def renamed(old: str, new: str) -> Iterator[None]:
  """Inside, errors about the field `old` name it `new`."""
  try:
    yield
  except ConfigError as problem:
    raise ConfigError(str(problem).replace(old, new, 1)) from problem
