"""A graph of stages, each run from what others have left.

A pipeline's config holds a whole config for every stage; a string in it may
say '{sft}', the workdir of the stage of that name, which then comes first. In
the pipeline's own workdir every stage has a directory, and there, when it has
ended, a manifest (manifest.py).

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

from r1jax import errors
from r1jax import stages
from r1jax.parallel import distributed
from r1jax.pipeline import graph
from r1jax.pipeline import manifest
from r1jax.training import files

REPORTS = {  # config.report: the module whose write(config, workdir) it is
    'comparison': 'r1jax.stages.comparison_report',
    'r1': 'r1jax.stages.r1_report',
    'rlhf': 'r1jax.stages.rlhf_report',
}


def run_pipeline(config, workdir: str, gin: str | None = None) -> bool:
  """Runs what is to be run; True if all of that has ended.

  `gin` is what was bound of seqio's configurables: a part of every config.

  Raises:
    ConfigError: names the stage and the field; nothing has been run if it can
      be told beforehand.
  """
  if config.report:
    errors.check_choice('report', config.report, REPORTS)
  nodes = graph.nodes(config, pathlib.Path(workdir))
  if gin is not None:
    nodes = [node._replace(config=node.config | {'gin': gin})
             for node in nodes]
  for node in nodes:
    _named(node, stages.check, graph.resolve(node, nodes))
  chosen = graph.choose(config, nodes)
  width = max(len(node.name) for node in nodes)
  statuses = {}
  for node in nodes:
    statuses[node.name] = _status(node, nodes, statuses)
  missing = {node.name: graph.find_missing(node, statuses) for node in chosen
             if not statuses[node.name].startswith('done')}
  said = set()
  for name, status in statuses.items():
    left_out = name not in {node.name for node in chosen}
    distributed.say(f'{name:>{width}}  {status}' + (', left out' if left_out else ''))
    for field in missing.get(name, ()):
      if field not in said:  # a model of several stages, once
        said.add(field)
        distributed.say(f'{"":>{width}}  {field}')
  if config.dry_run:
    if said:
      distributed.say(f'{len(said)} to be set or put there first; the file of the config '
           'says what they are')
    return False
  for fields in missing.values():
    if fields:
      raise errors.ConfigError(fields[0])
  for number, node in enumerate(chosen, 1):
    status = statuses[node.name] = _status(node, nodes, statuses)
    if status.startswith('done'):
      continue
    distributed.say(f'\nstage {number} of {len(chosen)}: {node.name} ({status})')
    if not _run(node, nodes, status):
      return False
    statuses[node.name] = 'done'
    seconds = sum(map(manifest.seconds, chosen[:number]))
    distributed.say(f'stages {number} of {len(chosen)} have ended, after '
         f'{seconds // 60:.0f} min {seconds % 60:.0f} s')
  if config.report and len(chosen) == len(nodes) and distributed.is_main():
    module = importlib.import_module(REPORTS[config.report])
    distributed.say(module.write(config.to_dict(), workdir))
  return True


def _inputs(node: graph.Node, nodes: list[graph.Node]
           ) -> dict[str, dict[str, str]]:
  """Digests of what lies there now of stages before, and of what else is read.

  What a person edits in place is another input.
  """
  return {other.name: files.output_digests(other.workdir) for other in nodes
          if other.name in node.inputs} | graph.external_inputs(node)


def _status(node: graph.Node, nodes: list[graph.Node],
            statuses: dict[str, str]) -> str:
  """That of manifest.status, or 'waits for ...'; of those before: statuses."""
  waits = [name for name in node.inputs
           if not statuses[name].startswith('done')]
  if waits:
    return f'waits for {", ".join(waits)}'
  return manifest.status(node, _inputs(node, nodes))


def _run(node: graph.Node, nodes: list[graph.Node], status: str) -> bool:
  """Runs one stage; True if it has ended.

  Refused before its first step, nothing of what was there has changed.
  """
  if status.startswith('waits'):
    raise errors.ConfigError(
        f'config.only: {node.name} {status}; --config.until={node.name} runs '
        'those before it, too')
  begun = aside = None
  _wait_for_all(f'{node.name} is next')  # whose directory now changes
  if distributed.is_main():
    if status.startswith('changed'):
      aside = manifest.set_aside(node)
      distributed.say(f'what it had left is kept in {aside}')
    begun = manifest.begin(node, _inputs(node, nodes))
  _wait_for_all(f'{node.name} begins')
  config = graph.resolve(node, nodes)
  try:
    summary = _named(node, stages.run_stage, config, str(node.workdir),
                     config.to_dict())
  except errors.ConfigError:
    fresh = aside is not None or status == 'new'
    if distributed.is_main() and fresh and manifest.undo(node, aside) and aside:
      distributed.say(f'what it had left is in {node.workdir} again')
    raise
  gc.collect()
  if summary is None:
    return False
  if distributed.is_main():
    manifest.end(node, begun, summary)
  _wait_for_all(f'{node.name} has ended')
  return True


def _wait_for_all(moment: str) -> None:
  """Until every process is here: the others read what the main one writes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'pipeline: {moment}')


def _named(node: graph.Node, function, *args):
  """function(*args), whose errors name the stage."""
  with errors.renamed('config.', f'config.stages.{node.name}.'):
    return function(*args)
