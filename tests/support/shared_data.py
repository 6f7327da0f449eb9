"""Real data sets in shared/data, beside the clone; without them a test skips."""

import pathlib

import pytest

_FOLDER = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data'


def path(name: str) -> pathlib.Path:
  """The file `name`, such as gsm8k/test.jsonl; skips the test if it is absent."""
  if not (_FOLDER / name).exists():
    pytest.skip(f'shared/data/{name} is not on this machine')
  return _FOLDER / name
