"""Names from a closed set: a wrong one is refused with the nearest valid."""

from collections.abc import Collection
import difflib

from r1jax import config as config_lib

# A split that a data set lacks: which of the two asked for it, it cannot tell.
SPLIT = 'config.data.split (or config.eval.split)'

_FEW = 12  # as many names are listed in full


def check(field: str, name: str, valid: Collection[str]) -> None:
  """Raises a ConfigError that names `field` unless `name` is in `valid`."""
  if name in valid:
    return
  valid = sorted(valid)
  near = difflib.get_close_matches(str(name), valid, 1, .5)
  expected = ', '.join(valid) if len(valid) <= _FEW else f'{len(valid)} names'
  raise config_lib.ConfigError(
      f'{field}: expected one of {expected}; received {name!r}'
      + (f'; did you mean {near[0]!r}?' if near else ''))
