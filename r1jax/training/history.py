"""The history of a run: what its files were at each checkpoint, and are now.

A checkpoint carries a record (checkpoint.py): its step, the configuration, and
of each file that grows by rows how many bytes it had and the digest of the last
of them. A run that resumes there finds the same bytes, and drops what follows:
its steps are taken again. Of a file that is not what it was it says so, or ends
where the rows are what the stage is for.

A run that diverged leaves diverged.json. What may have made it diverge can then
be changed in the same workdir, and the file remembers how.
"""

from collections.abc import Iterable, Mapping
import contextlib
import hashlib
import json
import math
import pathlib
from typing import Any

from absl import logging

from r1jax import errors
from r1jax import resuming
from r1jax.parallel import distributed
from r1jax.training import files
from r1jax.training import record as record_lib

METRICS, ROLLOUTS = 'metrics.jsonl', 'rollouts.jsonl'
_DIVERGED, _SECONDS = 'diverged.json', 'seconds.json'
_COMPUTED = (METRICS, ROLLOUTS, _DIVERGED, 'evaluation_before.json',
             'evaluation_after.json', 'summary.json')
EVAL = 'eval/'  # before the name of a metric of an evaluation
_TAIL = 1 << 16  # bytes at the end of a file that tell whether it is the same

# What a run that diverged may change.
_AFTER_DIVERGENCE = tuple(
    f'{section}optim.{name}' for section in ('', 'critic.')
    for name in ('lr', 'clip_norm', 'warmup_steps', 'max_skipped_steps'))

Record = dict[str, Any]  # as JSON has it


def claim(workdir: pathlib.Path, config: Mapping[str, Any]):
  """Writes the config into a new workdir; refuses one of another config.

  Raises:
    ConfigError: names the fields that differ.
  """
  if changes := distributed.in_main(lambda: _claim(workdir, config)):
    distributed.say(
        f'since the run diverged it may change: {", ".join(changes)}')


def _claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> list[str]:
  """As `claim`, in one process; the fields that were changed."""
  known = _known_config(workdir)
  for what, old in known.items():
    if fields := resuming.changed(old, config, changeable(workdir)):
      raise errors.ConfigError(
          '--workdir', f'{workdir} holds {what} of another configuration: '
          f'{", ".join(fields)}; give another --workdir, or the same values')
  changes = resuming.changed(next(iter(known.values()), config), config)
  if changes:
    _add_event(workdir, {'changed': changes})
  files.write_json(workdir / 'config.json', config)
  return changes


def _known_config(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The configs of the run that a workdir holds, by what has them.

  They are in config.json and in the latest checkpoint, and the same unless one
  is another run's. A run that ended before it had computed anything, as one
  that found too little memory, has none: what it was given may change.

  Raises:
    ConfigError: the workdir holds a run of which nothing says the config.
  """
  known = files.read_json(workdir / 'config.json')
  left = [name for name in _COMPUTED if (workdir / name).exists()]
  if not left and not files.saved_steps(workdir / 'checkpoints'):
    record_lib.forget(workdir)
    return {}
  saved = record_lib.saved(workdir)
  found = {'a run': known, 'checkpoints': saved and saved['config']}
  found = {what: config for what, config in found.items() if config is not None}
  if found:
    return found
  raise errors.ConfigError(
      '--workdir', f'{workdir} holds {[*left, "checkpoints"][0]} of a run but '
      'no config.json, which says of what run; bring it back from a copy, or '
      'give another --workdir')


def record(workdir: pathlib.Path, step: int, config: Mapping[str, Any],
           before: Record | None = None) -> Record:
  """The record of a checkpoint of `step`; what it is of is on disk then.

  A file that no longer has what it had at the checkpoint before, with the
  record `before`, is said.
  """
  found = {}
  for name, was in (before['files'] if before else {}).items():
    if _end(workdir / name, was) is None:
      distributed.say(f'warning: {_lost(workdir / name, before["step"])}, and '
                      'cannot be written again')
  for name in (METRICS, ROLLOUTS):
    path = workdir / name
    if path.exists():
      files.sync(path)
      size = path.stat().st_size
      found[name] = {'bytes': size, 'tail': _tail(path, size)}
  files.sync(workdir, within=False)
  return record_lib.read(workdir) | {
      'step': step, 'config': config, 'files': found}


def _tail(path: pathlib.Path, size: int) -> str:
  """The SHA-256 of the last bytes of the first `size` of a file."""
  with errors.faults(path), open(path, 'rb') as file:
    start = max(size - _TAIL, 0)
    file.seek(start)
    return _sha256(file.read(size - start))


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def take_up(workdir: pathlib.Path, step: int, saved: Record | None, *,
            rollouts_every: int, product: bool):
  """Drops the rows of `step` and later, which a run at `step` writes again.

  Rows before them that are gone are named in a warning.

  Args:
    workdir: of the run.
    step: of the checkpoint that the run goes on from; 0 without one.
    saved: its record; None in a checkpoint of an earlier version.
    rollouts_every: steps from one with rows in rollouts.jsonl to the next.
    product: whether rollouts.jsonl is what the stage is for.

  Raises:
    ConfigError: rows of the product are gone.
  """
  for line in distributed.in_main(
      lambda: _take_up(workdir, step, saved, rollouts_every, product)):
    distributed.say(line)


def _take_up(workdir: pathlib.Path, step: int, saved: Record | None,
             rollouts_every: int, product: bool) -> list[str]:
  """As `take_up`, in one process; what to tell the user."""
  told = [] if step else _begin_again(workdir)
  for name, every in ((METRICS, 1), (ROLLOUTS, rollouts_every)):
    path = workdir / name
    was = saved and saved['files'].get(name, {'bytes': 0})
    if not step or was and not was['bytes']:
      files.cut_rows(path, 0)
      continue
    if was and (end := _end(path, was)) is not None:
      files.cut_rows(path, end)
      continue
    there = files.truncate_rows(path, step)
    gone = _in_words(set(range(0, step, every) if every else ()) - there)
    # Not every step has rollouts, and an earlier version has not counted them.
    if not was and (not gone or name == ROLLOUTS and not product):
      continue
    lost = _lost(path, step, gone)
    if name == ROLLOUTS and product:
      raise errors.ConfigError(
          '--workdir', f'{lost}, from which this stage makes its data; bring '
          f'the file back from a copy, or remove {workdir}/checkpoints to '
          'sample again')
    told.append(f'warning: {lost}, and cannot be written again; the run goes '
                'on without them')
  return told


def _lost(path: pathlib.Path, step: int, gone: str = '') -> str:
  """What a file has lost since a checkpoint; `gone`: the steps, if known."""
  rows = f'the steps {gone} are gone' if gone else 'it are gone or changed'
  return (f'{path} is not what it was at the checkpoint of step {step}: '
          f'rows of {rows}')


def _begin_again(workdir: pathlib.Path) -> list[str]:
  """Keeps the rows of a run whose checkpoints someone has removed.

  Before its first checkpoint a run has no seconds.json.
  """
  path = workdir / METRICS
  last = next(files.stream_backwards(path), None)
  if last is None:
    return []
  if not (workdir / _SECONDS).exists():
    return ['no checkpoint is there: starting again from step 0; how often one '
            'is saved is config.checkpoint.every_steps']
  with errors.faults(path):
    for name in (METRICS, ROLLOUTS):
      if (workdir / name).exists():
        (workdir / name).replace(workdir / f'{name}.old')
    (workdir / _SECONDS).unlink()
  return [f'warning: {workdir}/checkpoints has none of the states that were '
          f'saved there; the rows of the run, up to step {last.get("step")}, '
          f'are kept as {path.name}.old, and it starts again from step 0. '
          'Bring the states back from a copy, and the rows, to go on']


def _end(path: pathlib.Path, was: Mapping[str, Any]) -> int | None:
  """Where the bytes end that a file had; None if it no longer has them.

  The last of its rows may since have got an evaluation (loop.py), which a
  signal had stopped before the checkpoint.
  """
  size = was['bytes']
  if not path.exists() or _tail(path, size) == was['tail']:
    return size if path.exists() else None
  with errors.faults(path), open(path, 'rb') as file:
    file.seek(start := max(size - _TAIL, 0))
    before = file.read(size - start)
    before = before[:before.rfind(b'\n') + 1]
    file.seek(start + len(before))
    line = file.readline()
  with contextlib.suppress(ValueError, AttributeError):  # no row of ours
    row = {name: value for name, value in json.loads(line).items()
           if not name.startswith(EVAL)}
    before += files.row_line(row)
    if start + len(before) == size and _sha256(before) == was['tail']:
      return size - len(files.row_line(row)) + len(line)
  return None


def _in_words(steps: Iterable[int]) -> str:
  """Steps as '3 to 7, 9'."""
  runs = []
  for step in sorted(steps):
    if runs and runs[-1][1] == step - 1:
      runs[-1][1] = step
    else:
      runs.append([step, step])
  return ', '.join(str(first) if first == last else f'{first} to {last}'
                   for first, last in runs)


def changeable(workdir: pathlib.Path) -> tuple[str, ...]:
  """The fields, as patterns, that the state of a workdir lets a run change."""
  events = _events(workdir)
  ended = not events or 'ended' in events[-1]
  return () if ended else _AFTER_DIVERGENCE


def note_end(workdir: pathlib.Path, steps: int):
  """Remembers that a run which had diverged has ended: it changes no more."""
  if (workdir / _DIVERGED).exists():
    _add_event(workdir, {'ended': steps})


def note_divergence(workdir: pathlib.Path, message: str):
  """Remembers in the workdir that its run diverged."""
  _add_event(workdir, {'diverged': message})


def _add_event(workdir: pathlib.Path, event: dict[str, Any]):
  before = _events(workdir)
  if before[-1:] != [event]:
    files.write_json(workdir / _DIVERGED, {'events': [*before, event]})


def _events(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """What diverged.json remembers, in order; [] if it is not there."""
  found = files.read_json(workdir / _DIVERGED, {'events': [dict]})
  return found['events'] if found else []


def seconds_before(workdir: pathlib.Path) -> float:
  """Seconds that this run took before, up to its last checkpoint."""
  try:
    saved = files.read_json(workdir / _SECONDS, {'seconds': (int, float)})
    seconds = float(saved['seconds']) if saved else 0.
    if not math.isfinite(seconds):
      raise OverflowError(f'{workdir / _SECONDS} says {seconds}')
    return seconds
  except (errors.RunError, errors.ConfigError, OverflowError) as problem:
    logging.warning('The time of the run so far is not known: %s', problem)
    return 0.


def save_seconds(workdir: pathlib.Path, seconds: float):
  """Keeps the run's time up to now; nothing depends on it, so it may fail."""
  if not distributed.is_main():
    return
  try:
    files.write_json(workdir / _SECONDS, {'seconds': seconds})
  except errors.RunError as problem:
    logging.log_first_n(
        logging.WARNING, 'The time of the run is not kept: %s', 1, problem)
