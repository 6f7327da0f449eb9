"""A graph of stages, each run from what others have left.

A pipeline's config holds a whole config for every stage; a string in it may
say '{sft}', the workdir of the stage of that name, which then comes first. In
the pipeline's own workdir every stage has a directory, and there, when it has
ended, a manifest.json: its config, the versions of the code that worked on it,
in their order, the digests of what went in, files from elsewhere too, and of
what came out, its figures, its time.

Started again, stages that ended and are unchanged are passed over; one that was
interrupted, or has lost what it left, goes on. One whose config, or whose input
as it lies there now, is another than it was begins anew; what it had left is
kept beside it, as NAME.old1. Other code alone makes nothing begin anew: that is
said, and up to the reader.
"""

import gc
import importlib
import pathlib
from typing import Any

import jax
from jax.experimental import multihost_utils

from r1jax import config as config_lib
from r1jax import graph
from r1jax import run as run_lib
from r1jax import version
from r1jax.parallel import distributed
from r1jax.training import jsonl
from r1jax.training import summary as summary_lib

REPORTS = {  # config.report: the module whose write(config, workdir) it is
    'comparison': 'r1jax.stages.comparison_report',
    'r1': 'r1jax.stages.r1_report',
    'rlhf': 'r1jax.stages.rlhf_report',
}

_BEGUN, _MANIFEST = 'begun.json', 'manifest.json'
_COUNTED = ('kept', 'collected')  # the JSON files of sample and collect
_OF_THE_MACHINE = ('perf/', 'time/', 'timing/')  # metrics of how it was run


def run(config, workdir: str, gin: str | None = None) -> bool:
  """Runs what is to be run; True if all of that has ended.

  `gin` is what was bound of seqio's configurables: a part of every config.

  Raises:
    ConfigError: names the stage and the field; nothing has been run if it can
      be told beforehand.
  """
  if config.report:
    config_lib.check_choice('report', config.report, REPORTS)
  nodes = graph.nodes(config, pathlib.Path(workdir))
  if gin is not None:
    nodes = [node._replace(config=node.config | {'gin': gin})
             for node in nodes]
  for node in nodes:
    _named(node, run_lib.check, graph.resolved(node, nodes))
  chosen = graph.chosen(config, nodes)
  width = max(len(node.name) for node in nodes)
  statuses = {}
  for node in nodes:
    statuses[node.name] = _status(node, nodes, statuses)
  missing = {node.name: graph.missing(node) for node in chosen
             if not statuses[node.name].startswith('done')}
  for name, status in statuses.items():
    left_out = name not in {node.name for node in chosen}
    _say(f'{name:>{width}}  {status}' + (', left out' if left_out else ''))
    for field in missing.get(name, ()):
      _say(f'{"":>{width}}  config.stages.{name}.{field}')
  if config.dry_run:
    return False
  for name, fields in missing.items():
    if fields:
      raise config_lib.ConfigError(f'config.stages.{name}.{fields[0]}')
  for number, node in enumerate(chosen, 1):
    status = statuses[node.name] = _status(node, nodes, statuses)
    if status.startswith('done'):
      continue
    _say(f'\nstage {number} of {len(chosen)}: {node.name} ({status})')
    if not _run(node, nodes, status):
      return False
    statuses[node.name] = 'done'
    seconds = _total_seconds(chosen[:number])
    _say(f'stages {number} of {len(chosen)} have ended, after '
         f'{seconds // 60:.0f} min {seconds % 60:.0f} s')
  if config.report and len(chosen) == len(nodes) and distributed.is_main():
    module = importlib.import_module(REPORTS[config.report])
    _say(module.write(config.to_dict(), workdir))
  return True


def _inputs(node: graph.Node, nodes: list[graph.Node]
           ) -> dict[str, dict[str, str]]:
  """Digests of what lies there now of stages before, and of what else is read.

  What a person edits in place is another input.
  """
  return {other.name: summary_lib.digests(other.workdir) for other in nodes
          if other.name in node.inputs} | graph.outside(node)


def _status(node: graph.Node, nodes: list[graph.Node],
            statuses: dict[str, str]) -> str:
  """'done', 'to be resumed', 'new', 'changed: ...' or 'waits for ...'.

  The first two may add 'by other code', which is no other status, and the
  second what is lost. `statuses` are those of the stages before.
  """
  waits = [name for name in node.inputs
           if not statuses[name].startswith('done')]
  if waits:
    return f'waits for {", ".join(waits)}'
  begun = summary_lib.read_json(node.workdir / _BEGUN)
  if begun is None:
    return 'new'
  fields = config_lib.changed(begun['config'], node.config)
  if fields:
    return 'changed: ' + ', '.join(fields)
  before, inputs = begun['inputs'], _inputs(node, nodes)
  other = [name for name in sorted(before.keys() | inputs.keys())
           if before.get(name) != inputs.get(name)]
  if other:
    return 'changed: ' + ', '.join(f'input {name}' for name in other)
  manifest = summary_lib.read_json(node.workdir / _MANIFEST)
  longer = begun['config'].get('steps') != node.config.get('steps')
  status = 'to be resumed' if longer or manifest is None else 'done'
  if status == 'done' and (lost := _lost(node, manifest)):
    status = f'to be resumed, {", ".join(lost)} lost'
  same = _codes(begun)[-1:] == [version.code()]
  return status if same else f'{status}, by other code'


def _lost(node: graph.Node, manifest: dict[str, Any]) -> list[str]:
  """What a stage left and is gone; an earlier checkpoint is not its last."""
  there, left = summary_lib.digests(node.workdir), manifest['outputs']
  return [name for name, digest in left.items() if name not in there
          or name == 'checkpoint' and there[name] != digest]


def _codes(begun: dict[str, Any]) -> list[str]:
  """The versions of the code that worked on a stage, in their order."""
  code = begun.get('code', [])  # was once not there, then the last alone
  return [code] if isinstance(code, str) else code


def _total_seconds(nodes: list[graph.Node]) -> float:
  return sum(summary_lib.read_json(node.workdir / _MANIFEST)['seconds']
             for node in nodes)


def _run(node: graph.Node, nodes: list[graph.Node], status: str) -> bool:
  """Runs one stage; True if it has ended."""
  if status.startswith('waits'):
    raise config_lib.ConfigError(f'config.only: {node.name} {status}')
  _wait_for_all(f'{node.name} is next')  # whose directory now changes
  if distributed.is_main():
    begun = _begin(node, _inputs(node, nodes), status)
  _wait_for_all(f'{node.name} begins')
  config = graph.resolved(node, nodes)
  figures = _named(node, run_lib.stage, config, str(node.workdir),
                   config.to_dict())
  gc.collect()
  if figures is None:
    return False
  if distributed.is_main():
    _end(node, begun, figures)
  _wait_for_all(f'{node.name} has ended')
  return True


def _begin(node: graph.Node, inputs: dict[str, dict[str, str]], status: str
          ) -> dict[str, Any]:
  """Makes a stage's directory ready; returns what stands in begun.json."""
  begun, manifest = node.workdir / _BEGUN, node.workdir / _MANIFEST
  if status.startswith('changed'):
    _set_aside(node.workdir)
  node.workdir.mkdir(parents=True, exist_ok=True)
  before = summary_lib.read_json(begun)
  codes = _codes(before) if before else []
  if codes[-1:] != [version.code()]:
    codes = [*codes, version.code()]
  # Of fewer steps: what it says of the outputs is soon no longer so.
  if before and before['config'].get('steps') != node.config.get('steps'):
    manifest.unlink(missing_ok=True)
  found = {'config': node.config, 'code': codes, 'inputs': inputs}
  summary_lib.write_json(begun, found)
  return found


def _end(node: graph.Node, begun: dict[str, Any], figures: dict[str, Any]
        ) -> None:
  """Writes the manifest; refuses where what was lost is not there again."""
  path = node.workdir / _MANIFEST
  manifest, outputs = (
      summary_lib.read_json(path), summary_lib.digests(node.workdir))
  lost = sorted(manifest['outputs'].keys() - outputs) if manifest else []
  if lost:
    raise config_lib.ConfigError(
        f'config.stages.{node.name}: {", ".join(lost)} in {node.workdir} '
        'cannot be made again from what else is there; put it back, or remove '
        'that directory and the stage begins anew')
  summary_lib.write_json(path, begun | {
      'outputs': outputs,
      'figures': _figures(node.workdir, figures),
      'steps': figures['steps'], 'seconds': figures['seconds']})


def _figures(workdir: pathlib.Path, summary: dict[str, Any]) -> dict[str, Any]:
  """The evaluations, the metrics of the last step, and what was counted."""
  figures = {name: summary[name] for name in ('before', 'after')}
  last = {}
  for last in jsonl.stream(workdir / 'metrics.jsonl'):
    pass
  figures['last'] = {name: value for name, value in last.items()
                     if not name.startswith(_OF_THE_MACHINE)}
  for name in _COUNTED:
    if (counts := summary_lib.read_json(workdir / f'{name}.json')) is not None:
      figures[name] = counts
  return figures


def _wait_for_all(moment: str) -> None:
  """Until every process is here: the others read what the main one writes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'pipeline: {moment}')


def _named(node: graph.Node, function, *args):
  """function(*args), whose errors name the stage."""
  with config_lib.renamed('config.', f'config.stages.{node.name}.'):
    return function(*args)


def _set_aside(workdir: pathlib.Path) -> None:
  number = 1
  while (target := workdir.with_name(f'{workdir.name}.old{number}')).exists():
    number += 1
  workdir.rename(target)
  _say(f'what it had left is kept in {target}')


def _say(text: str) -> None:
  if distributed.is_main():
    print(text, flush=True)
