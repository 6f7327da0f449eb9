"""JSON objects of settings files; a key that is there twice is refused."""

import json
from typing import Any

_POINTER = b'version https://git-lfs.github.com/'


def parse(text: bytes) -> dict[str, Any]:
  """The object that a JSON text holds.

  Raises:
    ValueError: says why it is none, or which key it holds twice, with
      different values; Python's json would take the last. Half a character
      (a lone surrogate), which no file can hold, is refused, too.
  """
  check_fetched(text)
  try:
    value = json.loads(text.decode('utf-8-sig'), object_pairs_hook=_once)
    json.dumps(value, ensure_ascii=False).encode()
  except (UnicodeError, json.JSONDecodeError) as problem:
    raise ValueError(f'expected JSON ({problem})') from problem
  except RecursionError as problem:
    raise ValueError('expected JSON that is not nested so deep') from problem
  if not isinstance(value, dict):
    raise ValueError(f'expected a JSON object, received {value!r:.60}')
  return value


def check_fetched(begin: bytes) -> None:
  """Raises ValueError if a file begins as one that Git LFS has yet to fetch."""
  if begin.startswith(_POINTER):
    raise ValueError('is a Git LFS pointer, which stands for the file; run '
                     "'git lfs pull' in its folder")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = {}
  for key, value in pairs:
    if key in found and found[key] != value:
      raise ValueError(f'holds the key {key!r} twice, with different values')
    found[key] = value
  return found
