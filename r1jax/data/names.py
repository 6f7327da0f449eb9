"""Names from a closed set: a wrong one is refused with the nearest valid."""

from collections.abc import Collection
import difflib

_FEW = 12  # as many names are listed in full


def check(field: str, name: str, valid: Collection[str]) -> None:
  """Raises a ValueError that names `field` unless `name` is in `valid`."""
  if name in valid:
    return
  valid = sorted(valid)
  near = difflib.get_close_matches(str(name), valid, 1, .5)
  expected = ', '.join(valid) if len(valid) <= _FEW else f'{len(valid)} names'
  raise ValueError(
      f'{field}: expected one of {expected}; received {name!r}'
      + (f'; did you mean {near[0]!r}?' if near else ''))
