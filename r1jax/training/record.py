"""The file run.json of a workdir: what a run depends on beside its config."""

import pathlib
from typing import Any

from r1jax.training import files

NAME = 'run.json'


def update(workdir: pathlib.Path, name: str, value: Any) -> Any:
  """Sets an entry of the record; returns what it was, None if it was not there.
  """
  found = files.read_json(workdir / NAME) or {}
  before = found.get(name)
  if before != value:
    files.write_json(workdir / NAME, found | {name: value})
  return before
