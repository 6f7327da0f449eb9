"""Real data in shared/data, beside the clone; without it a test skips."""

import pathlib

import pytest

_FOLDER = pathlib.Path(__file__).resolve().parents[3] / 'shared' / 'data'


def path(name: str) -> pathlib.Path:
  """The file `name`, such as gsm8k/test.jsonl; without it the test skips."""
  if not (_FOLDER / name).exists():
    pytest.skip(f'shared/data/{name} is not on this machine')
  return _FOLDER / name
