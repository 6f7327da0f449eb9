"""The file run.json of a workdir: what a run depends on beside its config."""

from collections.abc import Collection, Mapping
import contextlib
import os
import pathlib
from typing import Any

from r1jax import errors
from r1jax.parallel import distributed
from r1jax.training import files

NAME = 'run.json'
# Its entries, which may be absent (files.read_json).
FORM = {'inputs': ({str: {str: str}}, None), 'surroundings': (dict, None)}
# The checkpoint of another run that a training run starts from: read until it
# has saved one of its own.
START = 'checkpoints, where it starts'
# Files that earlier versions did not record; the record says if one is ABSENT.
# Nor did they record weights in folders of a model's folder.
LATER, ABSENT = ('special_tokens_map.json', 'added_tokens.json'), ''


def read(workdir: pathlib.Path) -> dict[str, Any]:
  """The entries; what is gone is as the last checkpoint has it.

  A checkpoint of an earlier version has none.
  """
  found = files.read_json(workdir / NAME, FORM) or {}
  if gone := FORM.keys() - found.keys():
    run = saved(workdir) or {}
    found = {name: run[name] for name in gone & run.keys()} | found
  return found


def saved(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The record in a workdir's last checkpoint (history.py), if one has it.

  Damaged ones are passed over, as they are where the state is read.
  """
  for path in reversed(
      files.saved_with(workdir / 'checkpoints', 'run/metadata')):
    with contextlib.suppress(errors.ConfigError):
      return files.read_json(path, {'run': {'config': dict}})['run']
  return None


def forget(workdir: pathlib.Path) -> None:
  """Removes the record, where a run begins that is another."""
  with errors.faults(workdir / NAME):
    (workdir / NAME).unlink(missing_ok=True)


def update(workdir: pathlib.Path, name: str, value: Any) -> Any:
  """Sets an entry of the record; returns what it was, None if it was not there.
  """
  found = read(workdir)
  before = found.get(name)
  if before != value or not (workdir / NAME).exists():
    files.write_json(workdir / NAME, found | {name: value})
  return before


def steps(workdir: pathlib.Path) -> int | None:
  """The steps of the run in a workdir; None if it has not ended."""
  ended = [files.read_json(workdir / name, {'steps': int})
           for name in ('summary.json', 'manifest.json')]
  return next((found['steps'] for found in ended if found), None)


def check_inputs(workdir: pathlib.Path,
                 inputs: Mapping[str, Mapping[str, str]]) -> None:
  """Refuses files that are not those that the run began with.

  A run of an earlier version has no record of them: it begins now.

  Args:
    workdir: of the run.
    inputs: {source: {file: digest}}, as stages/inputs.py has them; those of the
      main process count.

  Raises:
    ConfigError: names the files that have changed.
  """
  def check():
    before = read(workdir).get('inputs', {})
    begun = files.saved_steps(workdir / 'checkpoints')
    if found := changes(before, inputs, {START} if begun else ()):
      raise errors.ConfigError(
          '--workdir', f'{workdir} holds a run that read other files: '
          f'{", ".join(found)}; restore them as they were, or give another '
          '--workdir')
    update(workdir, 'inputs', {**inputs, **{
        source: {**inputs.get(source, {}), **names}
        for source, names in before.items()}})
  if inputs:
    distributed.in_main(check)


def changes(before: Mapping[str, Mapping[str, str]],
            now: Mapping[str, Mapping[str, str]],
            ignored: Collection[str] = ()) -> list[str]:
  """What differs in the sources that both have, in words.

  A source without any file is not compared: what is needed of it is missed
  where it is read. Nor are the names that are `ignored`, or that an earlier
  version did not record.
  """
  words = []
  for source in sorted(before.keys() & now.keys()):
    old, new = before[source], now[source]
    for name in sorted(old.keys() | new.keys()) if new else ():
      if (old.get(name) == new.get(name) or name in ignored
          or name not in old and _is_later(name)):
        continue
      place = name if os.sep in name else os.path.join(source, name)
      how = ('is gone' if new.get(name, ABSENT) == ABSENT else
             'is new' if old.get(name, ABSENT) == ABSENT else 'has changed')
      words.append(f'{place if name else source} {how}')
  return words


def _is_later(name: str) -> bool:
  """Whether earlier versions did not record a file; the index names weights."""
  return os.path.basename(name) in LATER or (
      os.sep in name and name.endswith('.safetensors'))
