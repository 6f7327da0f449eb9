"""Manifests of a pipeline's stages: begun.json and manifest.json.

begun.json is written when a stage starts: its config, the versions of the code
that worked on it, in order, and the digests of its inputs, files that no stage
makes included. manifest.json is written when it has ended: the same, the
digests of its outputs, its metrics and its time. Of its last checkpoint
`outputs` has the digest of the arrays that were saved, and `saved` that of the
files on this disk, by which it is noticed where one is cut or damaged.
"""

import enum
import json
import pathlib
import shutil
from typing import Any, NamedTuple

from r1jax import digests
from r1jax import errors
from r1jax import resuming
from r1jax.pipeline import graph
from r1jax.stages import inputs as inputs_lib
from r1jax.training import files
from r1jax.training import history
from r1jax.training import record

_BEGUN, _MANIFEST, _SUMMARY = 'begun.json', 'manifest.json', 'summary.json'
# What they must hold (files.read_json); `named` and `code` are not as old.
_BEGINS = {'config': dict, 'inputs': dict,
           'named': ({str: {str: str}}, None), 'code': ([str], str, None)}
_ENDS = _BEGINS | {'outputs': {str: str}, 'seconds': (int, float),
                   'rows': ({str: int}, None)}
_COUNTED = ('kept', 'collected')  # the JSON files of sample and collect
# Metrics of how it was run.
_OF_THE_MACHINE = ('perf/', 'time/', 'timing/', 'verifier/restarts', 'restarts')


class Inputs(NamedTuple):
  """What a stage reads: {source: {file: digest}}."""
  inputs: inputs_lib.Digests  # stages before it, files of rows, other runs
  named: inputs_lib.Digests  # all else; not there in a begun.json of old


class Kind(enum.StrEnum):
  """What a pipeline does with a stage."""
  NEW = enum.auto()  # run it
  RESUME = enum.auto()
  CHANGED = enum.auto()  # set its outputs aside and run it again
  WAITS = enum.auto()  # for stages before it
  DONE = enum.auto()  # skip it


class Status(NamedTuple):
  """The status of a stage of a pipeline."""
  kind: Kind
  text: str  # for the terminal


def status(node: graph.Node, inputs: Inputs) -> Status:
  """The status of a stage whose inputs are there, by what its workdir holds.

  Another version of the code is reported, and changes nothing else.
  """
  if node.workdir.is_dir():
    files.check_plain(node.workdir, '--workdir')
  manifest = files.read_json(node.workdir / _MANIFEST, _ENDS)
  begun = files.read_json(node.workdir / _BEGUN, _BEGINS) or manifest
  if begun is None:
    left = [name for name in ('config.json', 'checkpoints')
            if (node.workdir / name).exists()]
    return Status(Kind.CHANGED, f'changed: {_BEGUN} is gone, which says what '
                  'it was made of') if left else Status(Kind.NEW, 'new')
  changes = resuming.changed(
      begun['config'], node.config, history.changeable(node.workdir))
  if not changes:
    before, now = begun['inputs'], inputs.inputs
    changes = [f'input {name}' for name in sorted(before.keys() | now.keys())
               if before.get(name) != now.get(name)]
  if not changes:
    changes = record.changes(begun.get('named', {}), inputs.named)
  if changes:
    return Status(Kind.CHANGED, 'changed: ' + ', '.join(changes))
  longer = begun['config'].get('steps') != node.config.get('steps')
  same_code = _codes(begun)[-1:] == [digests.of_code()]
  by_other_code = '' if same_code else ', by another version of the code'
  if longer or manifest is None:
    return Status(Kind.RESUME, f'to be resumed{by_other_code}')
  if lost := _lost(node, manifest):
    return Status(Kind.RESUME, f'to be resumed, {", ".join(lost)} lost'
                  + by_other_code)
  if 'saved' in manifest and manifest['saved'] != _saved_digest(node.workdir):
    return Status(Kind.RESUME, 'to be resumed, its last checkpoint is damaged'
                  + by_other_code)
  edited = ''.join(f', {text}' for text in _edited(node, manifest))
  return Status(Kind.DONE, f'done{edited}{by_other_code}')


def _lost(node: graph.Node, manifest: dict[str, Any]) -> list[str]:
  """What a stage had left and is gone, emptied or cut, as its last checkpoint.

  A person who edits a file leaves whole lines.

  Raises:
    ConfigError: one of its small files is no whole JSON object.
  """
  there, left = files.output_digests(node.workdir), manifest['outputs']
  lost = [name for name, digest in left.items() if name not in there
          or there[name] != digest and (
              name == 'checkpoint' or _is_cut(node.workdir / name))]
  counted = [f'{name}.json' for name in _COUNTED
             if name in manifest.get('figures', {})]
  return lost + [name for name in ('config.json', _SUMMARY, *counted)
                 if files.read_json(node.workdir / name) is None]


def _saved_digest(workdir: pathlib.Path) -> str | None:
  """SHA-256 of the files of the last checkpoint; None if there is none."""
  manifests = files.saved_with(workdir / 'checkpoints', 'manifest/metadata')
  if not manifests:
    return None
  folder = manifests[-1].parents[1]
  return files.config_digest({
      path.relative_to(folder).as_posix(): inputs_lib.content_digest(path)
      for path in folder.rglob('*') if path.is_file()})


def _is_cut(path: pathlib.Path) -> bool:
  """Whether a file of rows has none, or ends within one."""
  last = b''
  with open(path, 'rb') as file:
    for line in file:
      last = line if line.strip() else last
  try:
    json.loads(last)
  except ValueError:
    return not last.endswith(b'\n')
  return False


def _edited(node: graph.Node, manifest: dict[str, Any]) -> list[str]:
  """The outputs that are not as the stage left them, in words."""
  there, left = files.output_digests(node.workdir), manifest['outputs']
  words, rows = [], manifest.get('rows', {})
  for name, digest in there.items():
    if name not in left:
      words.append(f'{name} added')
    elif digest != left[name]:
      were = f', {rows[name]} when it ended' if name in rows else ''
      words.append(
          f'{name} edited ({_count(node.workdir / name)} rows{were})')
  path = node.workdir / history.METRICS  # no output: it has times
  if manifest.get('figures', {}).get('last') and not path.exists():
    words.append(f'{path.name} gone')
  return words


def _count(path: pathlib.Path) -> int:
  with open(path, 'rb') as file:
    return sum(1 for _ in file)


def _codes(begun: dict[str, Any]) -> list[str]:
  """The versions of the code that worked on a stage, in their order."""
  code = begun.get('code', [])  # was once not there, then the last alone
  return [code] if isinstance(code, str) else code


def seconds(node: graph.Node) -> float:
  """The time that a stage which has ended took, over all its resumes."""
  return files.need_json(node.workdir / _MANIFEST, _ENDS)['seconds']


def set_aside(node: graph.Node) -> pathlib.Path:
  """Moves what a stage had left to NAME.old1, or the next that is free."""
  number = 1
  while (target := node.workdir.with_name(
      f'{node.workdir.name}.old{number}')).exists():
    number += 1
  with errors.faults(node.workdir):
    return node.workdir.rename(target)


def begin(node: graph.Node, inputs: Inputs) -> dict[str, Any]:
  """Prepares a stage's directory; returns the content of begun.json."""
  with errors.faults(node.workdir):
    files.make_folder(node.workdir)
  before = files.read_json(node.workdir / _BEGUN, _BEGINS)
  codes = _codes(before) if before else []
  code = digests.of_code()
  if codes[-1:] != [code]:
    codes = [*codes, code]
  # Its manifest is of another number of steps, and will be written again.
  if before and before['config'].get('steps') != node.config.get('steps'):
    (node.workdir / _MANIFEST).unlink(missing_ok=True)
  found = {'config': node.config, 'code': codes, **inputs._asdict()}
  files.write_json(node.workdir / _BEGUN, found)
  return found


def undo(node: graph.Node, aside: pathlib.Path | None) -> bool:
  """Undoes the start of a stage that was refused before its first step.

  True if it was undone, and the outputs set `aside` are back in their place.
  """
  if (node.workdir / history.METRICS).exists():
    return False
  if aside is not None:
    shutil.rmtree(node.workdir)
    aside.rename(node.workdir)
    return True
  saved = node.workdir / 'checkpoints'
  if saved.is_dir() and not files.saved_steps(saved):
    shutil.rmtree(saved)
  for name in ('evaluation_0.jsonl', 'evaluation_before.json', record.NAME,
               'config.json', _BEGUN):  # the last says of what the rest is
    (node.workdir / name).unlink(missing_ok=True)
  return True


def end(node: graph.Node, begun: dict[str, Any], summary: dict[str, Any]
        ) -> None:
  """Writes the manifest; refuses if outputs that were lost are still absent."""
  path = node.workdir / _MANIFEST
  manifest, outputs = (
      files.read_json(path, _ENDS), files.output_digests(node.workdir))
  lost = sorted(set(_lost(node, manifest)) - {'checkpoint'}) if manifest else []
  if lost:
    raise errors.ConfigError(
        f'stages.{node.name}', f'{", ".join(lost)} in {node.workdir} '
        'cannot be made again from the other files; restore it, or remove that '
        'directory to run the stage from its start')
  files.write_json(path, begun | {
      'outputs': outputs, 'saved': _saved_digest(node.workdir),
      'rows': {name: _count(node.workdir / name) for name in outputs
               if name != 'checkpoint'},
      'figures': _figures(node.workdir, summary),
      'steps': summary['steps'], 'seconds': summary['seconds']})


def _computed(figures: Any) -> Any:
  """Figures without those of how they came about."""
  if not isinstance(figures, dict):
    return figures
  return {name: _computed(value) for name, value in figures.items()
          if not name.startswith(_OF_THE_MACHINE)}


def _figures(workdir: pathlib.Path, summary: dict[str, Any]) -> dict[str, Any]:
  """The evaluations, the metrics of the last step, and what was counted."""
  figures = {name: _computed(summary[name]) for name in ('before', 'after')}
  figures['last'] = _computed(
      next(files.stream_backwards(workdir / 'metrics.jsonl'), {}))
  for name in _COUNTED:
    if (counts := files.read_json(workdir / f'{name}.json')) is not None:
      figures[name] = counts
  return figures
