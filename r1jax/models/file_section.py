"""A section of a model's file, whose keys are read one by one.

It is an object of a config.json, or an architecture's keys in a GGUF header.

A key that is read is noted, and its value checked for type and bound as the
field of `architecture` that it becomes. `finish` refuses the keys that nobody
has read: a section is understood as a whole, or refused.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from r1jax import errors
from r1jax.models import architecture
from r1jax.models import tensor_files


class Section:
  """An object of a file, or the file itself.

  Attributes:
    name: of the object within the file, 'rope_scaling'; '' for the file.
  """

  def __init__(self, fields: Any, where: str, name: str = ''):
    """Checks that it is an object.

    Args:
      fields: its value in the file.
      where: the path of the file or its folder, for errors.
      name: of the object within the file.
    """
    self.name, self._where, self._read = name, where, set()
    if not isinstance(fields, Mapping):
      raise self.refused('', 'an object', fields)
    self._fields = fields

  def raw(self, key: str) -> Any:
    """A value as the file has it; None if it is null or not there."""
    self._read.add(key)
    return self._fields.get(key)

  def has(self, key: str) -> bool:
    """Whether the file has a value, which may be null."""
    return key in self._fields

  def said(self, key: str) -> bool:
    """Whether the file has a value other than null."""
    return self.raw(key) is not None

  def value(self, kind: type, field: str, key: str,
            default: Any = dataclasses.MISSING) -> Any:
    """The value of a key as that of a field of `architecture`.

    Args:
      kind: Config or one of its sections.
      field: of `kind`.
      key: of the file.
      default: of a key that is null or not there.

    Raises:
      ConfigError: it is of another type, out of bounds, or missing without a
        default.
    """
    value = self.raw(key)
    if value is None:
      if default is dataclasses.MISSING and self.has(key):
        raise self.refused(key, 'a value', None)
      if default is dataclasses.MISSING:
        raise self.error(f'the configuration lacks the key {self._full(key)!r}')
      return default
    wanted = architecture.misfit(kind, field, value)
    if wanted:
      raise self.refused(key, wanted, value)
    return float(value) if architecture.type_of(kind, field) is float else value

  def values(self, kind: type, keys: Mapping[str, str],
             defaults: Mapping[str, Any] = {}) -> dict[str, Any]:
    """`value` of all {field: key}, in order; defaults are of fields."""
    return {field: self.value(kind, field, key,
                              defaults.get(field, dataclasses.MISSING))
            for field, key in keys.items()}

  def plain(self, key: str, kind: type, default: Any = dataclasses.MISSING,
            bound: str = '') -> Any:
    """`value`, of a bool or number that is no field of its own."""
    value = self.raw(key)
    if value is None and default is not dataclasses.MISSING:
      return default
    wanted = architecture.misfit_plain(value, kind, bound)
    if wanted:
      raise self.refused(key, wanted, value)
    return value

  def section(self, key: str) -> 'Section | None':
    """The object at a key; None if it is null, empty or not there."""
    value = self.raw(key)
    if value is None:
      return None
    inner = Section(value, self._where, self._full(key))
    return inner if value else None

  def finish(self) -> None:
    """Refuses the keys that were not read; a null is as good as nothing."""
    unread = [key for key, value in self._fields.items()
              if key not in self._read and value is not None]
    if unread:
      raise self.error(f'{self.name} has keys that are not known for it: '
                       + ', '.join(map(repr, sorted(unread))))

  def fixed(self, key: str, *only: Any, reason: str = '') -> None:
    """Refuses a key unless it has a value that is supported.

    A null is as good as nothing, but where transformers takes it as false.
    """
    received = self.raw(key)
    null = received is None and not (only[0] is True and key in self._fields)
    same = any(received == value and isinstance(received, bool) == isinstance(
        value, bool) for value in only)  # 0 is no false
    if not same and not null:
      raise self.refused(key, ' or '.join(map(repr, only)) + reason, received)

  def agree(self, key: str, other: str, same: bool) -> None:
    """Refuses two keys unless they say the `same`."""
    if not same:
      raise self.error(' and '.join(
          f'{self._full(name)} = {self._shown(name)}' for name in (key, other)
      ) + ' disagree; correct or remove one of them')

  def refused(self, key: str, wanted: str,
              received: Any) -> errors.ConfigError:
    """The error of a key's value."""
    return self.error(f'expected {self._full(key)} to be {wanted}, received '
                      f'{_short(received)}')

  def error(self, problem: str) -> errors.ConfigError:
    """An error of the file."""
    return tensor_files.file_error(self._where, problem)

  def _full(self, key: str) -> str:
    return '.'.join(filter(None, (self.name, key)))

  def _shown(self, key: str) -> str:
    value: Any = self._fields
    for part in [key] if key in self._fields else key.split('.'):
      value = value.get(part) if isinstance(value, Mapping) else None
    return _short(value)


def _short(value: Any) -> str:
  """A value of JSON in one line of moderate length."""
  text = repr(value)
  return text if len(text) <= 200 else f'{text[:200]}...'
