"""A graph of stages, each run from what others have left.

A pipeline's config holds a whole config for every stage; a string in it may
say '{sft}', the workdir of the stage of that name, which then comes first. In
the pipeline's own workdir every stage has a directory, and there, when it has
ended, a manifest.json: its config, the version of the code, the digests of what
went in and of what came out, its figures, its time.

Started again, stages that ended and are unchanged are passed over and one that
was interrupted goes on. One whose config, or whose input, is another than it
was begins anew; what it had left is kept beside it, as NAME.old1. Other code
alone makes nothing begin anew: that is said, and up to the reader.
"""

from collections.abc import Iterator, Mapping
import gc
import importlib
import pathlib
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import ml_collections

from r1jax import config as config_lib
from r1jax import run as run_lib
from r1jax import version
from r1jax.parallel import distributed
from r1jax.training import summary as summary_lib

REPORTS = {  # config.report: the module whose write(config, workdir) it is
    'comparison': 'r1jax.stages.comparison_report',
    'r1': 'r1jax.stages.r1_report',
    'rlhf': 'r1jax.stages.rlhf_report',
}

_BEGUN, _MANIFEST = 'begun.json', 'manifest.json'
_REFERENCE = re.compile(r'\{(\w+)\}')


class Node(NamedTuple):
  """A stage of the graph."""
  name: str
  config: dict[str, Any]  # plain, its references as they are written
  inputs: tuple[str, ...]  # names of stages, in their order
  workdir: pathlib.Path


def run(config, workdir: str, gin: str | None = None) -> bool:
  """Runs what is to be run; True if all of that has ended.

  `gin` is what was bound of seqio's configurables: a part of every config.

  Raises:
    ConfigError: names the stage and the field; nothing has been run if it can
      be told beforehand.
  """
  if config.report:
    config_lib.check_choice('report', config.report, REPORTS)
  nodes = graph(config, pathlib.Path(workdir))
  if gin is not None:
    nodes = [node._replace(config=node.config | {'gin': gin})
             for node in nodes]
  for node in nodes:
    _named(node, run_lib.check, _resolved(node, nodes))
  chosen = _chosen(config, nodes)
  width = max(len(node.name) for node in nodes)
  for name, status in _statuses(nodes).items():
    left_out = name not in {node.name for node in chosen}
    _say(f'{name:>{width}}  {status}' + (', left out' if left_out else ''))
  if config.dry_run:
    return False
  for number, node in enumerate(chosen, 1):
    status = _statuses(nodes)[node.name]
    if status.startswith('done'):
      continue
    _say(f'\nstage {number} of {len(chosen)}: {node.name} ({status})')
    if not _run(node, nodes, status):
      return False
    seconds = _total_seconds(chosen[:number])
    _say(f'stages {number} of {len(chosen)} have ended, after '
         f'{seconds // 60:.0f} min {seconds % 60:.0f} s')
  if config.report and len(chosen) == len(nodes) and distributed.is_main():
    module = importlib.import_module(REPORTS[config.report])
    _say(module.write(config.to_dict(), workdir))
  return True


def graph(config, workdir: pathlib.Path) -> list[Node]:
  """The stages of `config.stages` in an order in which they can be run."""
  plain = config.stages.to_dict()
  if config.get('seed') is not None:
    plain = {name: stage | dict(seed=config.seed)
             for name, stage in plain.items()}
  inputs = {name: sorted({found for text in _strings(stage)
                          for found in _REFERENCE.findall(text)
                          if found in plain and found != name})
            for name, stage in plain.items()}
  nodes, left = [], list(plain)
  while left:
    done = {node.name for node in nodes}
    name = next((name for name in left if done.issuperset(inputs[name])), None)
    if name is None:
      raise config_lib.ConfigError(
          'config.stages: each waits for another: ' + ', '.join(left))
    left.remove(name)
    nodes.append(
        Node(name, plain[name], tuple(inputs[name]), workdir / name))
  return nodes


def _chosen(config, nodes: list[Node]) -> list[Node]:
  """The stages that config.only and config.until leave."""
  names = [node.name for node in nodes]
  for field in ('only', 'until'):
    if config[field] is not None:
      config_lib.check_choice(field, config[field], names)
  if config.only is not None:
    return [nodes[names.index(config.only)]]
  if config.until is not None:
    return nodes[:names.index(config.until) + 1]
  return nodes


def _statuses(nodes: list[Node]) -> dict[str, str]:
  """'done', 'to be resumed', 'new', 'changed: ...' or 'waits for ...' each.

  'done, by other code' is done, too.
  """
  found, left = {}, {}
  for node in nodes:
    waits = [name for name in node.inputs
             if not found[name].startswith('done')]
    if waits:
      found[node.name] = f'waits for {", ".join(waits)}'
      continue
    manifest = summary_lib.read_json(node.workdir / _MANIFEST)
    begun = manifest or summary_lib.read_json(node.workdir / _BEGUN)
    inputs = {name: left[name] for name in node.inputs}
    found[node.name] = _status(node, inputs, begun, ended=manifest is not None)
    left[node.name] = manifest and manifest['outputs']
  return found


def _status(node: Node, inputs, begun, ended: bool) -> str:
  """Of a stage that has its inputs, and was `begun` under some config."""
  if begun is None:
    return 'new'
  fields = config_lib.changed(begun['config'], node.config)
  if fields:
    return 'changed: ' + ', '.join(fields)
  other = [name for name, outputs in inputs.items()
           if begun['inputs'].get(name) != outputs]
  if other:
    return 'changed: what came of ' + ', '.join(other)
  longer = begun['config'].get('steps') != node.config.get('steps')
  if longer or not ended:
    return 'to be resumed'
  same = begun.get('code') == version.code()
  return 'done' if same else 'done, by other code'


def _total_seconds(nodes: list[Node]) -> float:
  return sum(summary_lib.read_json(node.workdir / _MANIFEST)['seconds']
             for node in nodes)


def _run(node: Node, nodes: list[Node], status: str) -> bool:
  """Runs one stage; True if it has ended."""
  if status.startswith('waits'):
    raise config_lib.ConfigError(f'config.only: {node.name} {status}')
  inputs = {other.name: summary_lib.read_json(other.workdir / _MANIFEST)[
      'outputs'] for other in nodes if other.name in node.inputs}
  begun = {
      'config': node.config, 'code': version.code(), 'inputs': inputs}
  if distributed.is_main():
    if status.startswith('changed'):
      _set_aside(node.workdir)
    node.workdir.mkdir(parents=True, exist_ok=True)
    summary_lib.write_json(node.workdir / _BEGUN, begun)
    # Of fewer steps: what it says of the outputs is soon no longer so.
    (node.workdir / _MANIFEST).unlink(missing_ok=True)
  _wait_for_all(f'{node.name} begins')
  config = _resolved(node, nodes)
  figures = _named(node, run_lib.stage, config, str(node.workdir),
                   config.to_dict())
  gc.collect()
  if figures is None:
    return False
  if distributed.is_main():
    summary_lib.write_json(node.workdir / _MANIFEST, begun | {
        'outputs': summary_lib.digests(node.workdir),
        'figures': {name: figures[name] for name in ('before', 'after')},
        'steps': figures['steps'], 'seconds': figures['seconds']})
  _wait_for_all(f'{node.name} has ended')
  return True


def _wait_for_all(moment: str) -> None:
  """Until every process is here: the others read what the main one writes."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f'pipeline: {moment}')


def _resolved(node: Node, nodes: list[Node]) -> ml_collections.ConfigDict:
  """The stage's config with paths in the place of references."""
  places = {other.name: str(other.workdir) for other in nodes}

  def one(value):
    if isinstance(value, str):
      return _REFERENCE.sub(
          lambda found: places.get(found[1], found[0]), value)
    if isinstance(value, Mapping):
      return {key: one(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
      return type(value)(map(one, value))
    return value
  return ml_collections.ConfigDict(one(node.config))


def _strings(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, (Mapping, list, tuple)):
    for part in value.values() if isinstance(value, Mapping) else value:
      yield from _strings(part)


def _named(node: Node, function, *args):
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
