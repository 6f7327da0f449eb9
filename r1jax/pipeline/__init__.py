"""Pipelines: a DAG of stages, each run from the outputs of others; resumable.

A pipeline's config holds a whole config for every stage; '{sft}' in a string is
the workdir of the stage of that name, which then runs first (graph.py). Every
stage has a directory in the pipeline's workdir, and in it, when it has ended, a
manifest (manifest.py).

Started again, a pipeline skips the stages that have ended and resumes one that
was interrupted or has lost an output. A stage whose config or inputs have
changed runs again from its start; its earlier outputs are kept as NAME.old1. A
change of the code alone is reported, and nothing runs again.
"""

import gc
import importlib
import pathlib

from r1jax import errors
from r1jax import interrupts
from r1jax import reports
from r1jax import stages
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.pipeline import graph
from r1jax.pipeline import manifest
from r1jax.stages import inputs
from r1jax.stages import model_source
from r1jax.training import checkpoint
from r1jax.training import files
from r1jax.training import lock
from r1jax.training import loop
from r1jax.training import mirror

Kind = manifest.Kind


def run_pipeline(config, workdir: str, gin: str | None = None) -> bool:
  """Runs the stages that have to run; True if all of them have ended.

  False if a signal stopped it, or if nothing was to be run.

  Args:
    config: of kind 'pipeline'.
    workdir: has a directory for each stage.
    gin: what was bound of seqio's configurables: a part of every config.

  Raises:
    ConfigError: names the stage and the field, wherever possible before
      anything runs.
  """
  if config.report:
    errors.check_choice('report', config.report, reports.REPORTS)
  nodes = graph.nodes(config, pathlib.Path(workdir))
  if gin is not None:
    nodes = [node._replace(config=node.config | {'gin': gin})
             for node in nodes]
  for node in nodes:
    with errors.stage(node.name, node.config):
      stages.check(config.stages[node.name])
  chosen = graph.choose(config, nodes)
  if config.dry_run:
    _plan(nodes, chosen)
    return False
  with interrupts.handled(), lock.held(pathlib.Path(workdir)):
    try:
      if not _run(nodes, chosen):
        return False
      if config.report and len(chosen) == len(nodes):
        module = importlib.import_module(reports.REPORTS[config.report])
        distributed.say(distributed.in_main(
            lambda: module.write_report(config.to_dict(), workdir)))
    except interrupts.Stopped:
      distributed.say('stopped while no stage took steps, nothing is lost; '
                      'start the same command again to go on')
      return False
  return True


def _plan(nodes: list[graph.Node], chosen: list[graph.Node]
         ) -> tuple[dict[str, manifest.Status],
                    dict[str, list[errors.ConfigError]]]:
  """Says what would run; the status of each stage, and what is missing."""
  statuses = {}
  for node in nodes:
    statuses[node.name] = _status(node, nodes, statuses)
  missing = {node.name: graph.find_missing(node, statuses) for node in chosen
             if statuses[node.name].kind is not Kind.DONE}
  _show_plan(nodes, chosen, statuses, missing)
  return statuses, missing


def _run(nodes: list[graph.Node], chosen: list[graph.Node]) -> bool:
  """Runs the stages that have to run; False if a signal stopped one."""
  statuses, missing = _plan(nodes, chosen)
  for problems in missing.values():
    if problems:
      raise problems[0]
  for number, node in enumerate(chosen, 1):
    distributed.check_stopped()
    status = statuses[node.name] = _status(node, nodes, statuses)
    if status.kind is Kind.DONE:
      continue
    distributed.say(
        f'\nstage {number} of {len(chosen)}: {node.name} ({status.text})')
    if not _run_stage(node, nodes, status):
      return False
    statuses[node.name] = manifest.Status(Kind.DONE, 'done')
    seconds = sum(map(manifest.seconds, chosen[:number]))
    distributed.say(
        f'{number} of {len(chosen)} stages have ended, after '
        f'{seconds // 60:.0f} min {seconds % 60:.0f} s')
  return True


def _show_plan(nodes: list[graph.Node], chosen: list[graph.Node],
               statuses: dict[str, manifest.Status],
               missing: dict[str, list[errors.ConfigError]]) -> None:
  """Prints the status of every stage, and the fields that must be set."""
  width = max(len(node.name) for node in nodes)
  names = {node.name for node in chosen}
  shown = set()
  for name, status in statuses.items():
    left_out = '' if name in names else ', left out'
    distributed.say(f'{name:>{width}}  {status.text}{left_out}')
    for problem in map(str, missing.get(name, ())):
      if problem not in shown:  # a model of several stages, once
        shown.add(problem)
        distributed.say(f'{"":>{width}}  {problem}')
  if shown:
    distributed.say(
        f'{len(shown)} fields or files are missing; the experiment file says '
        'what each is')


def _inputs(node: graph.Node, nodes: list[graph.Node]) -> manifest.Inputs:
  """Digests of the outputs of the stages before, and of all else it reads.

  A file that a person has edited is another input.
  """
  before = {other.name: files.output_digests(other.workdir) for other in nodes
            if other.name in node.inputs}
  return manifest.Inputs(before | inputs.external(node.config),
                         inputs.named(node.config))


def _status(node: graph.Node, nodes: list[graph.Node],
            statuses: dict[str, manifest.Status]) -> manifest.Status:
  """The status of a stage; `statuses` has those of the stages before."""
  waits = [name for name in node.inputs
           if statuses[name].kind is not Kind.DONE]
  if waits:
    return manifest.Status(Kind.WAITS, f'waits for {", ".join(waits)}')
  # Of several processes one reads, while none writes.
  kind, text = distributed.in_main(
      lambda: manifest.status(node, _inputs(node, nodes)))
  return manifest.Status(Kind(kind), text)


def _run_stage(node: graph.Node, nodes: list[graph.Node],
               status: manifest.Status) -> bool:
  """Runs one stage; True if it has ended.

  One that is refused before its first step leaves its workdir as it was.
  """
  if status.kind is Kind.WAITS:
    raise errors.ConfigError(
        'only', f'{node.name} {status.text}; --config.until={node.name} runs '
        'those before it, too')
  aside = None
  if status.kind is Kind.CHANGED:
    with lock.held(node.workdir):
      pass  # no other process works in what is now moved
    aside = pathlib.Path(
        distributed.in_main(lambda: str(manifest.set_aside(node))))
    mirror.settle()  # before new files have the old ones' names
    distributed.say(f'its earlier outputs are kept in {aside}')
  found = manifest.Inputs(**distributed.alike(
      lambda: _inputs(node, nodes)._asdict()))
  begun = distributed.in_main(lambda: manifest.begin(node, found))
  config = graph.resolve(node, nodes)
  try:
    with errors.stage(node.name, config), memory.explained(config):
      mesh = sharding.make_mesh(config.mesh)
      stage = stages.build(config, mesh, str(node.workdir))
      summary = loop.train(stage, stages.loop_settings(config),
                           str(node.workdir), config.to_dict())
  except errors.ConfigError as problem:
    fresh = status.kind in (Kind.CHANGED, Kind.NEW)
    if distributed.is_main() and fresh and manifest.undo(node, aside) and aside:
      distributed.say(f'its earlier outputs are in {node.workdir} again')
    _note_damage(problem, nodes)
    raise
  gc.collect()
  if summary is None:
    return False
  distributed.in_main(lambda: manifest.end(node, begun, summary))
  return True


def _note_damage(problem: Exception, nodes: list[graph.Node]) -> None:
  """If a stage's checkpoint is the problem, that stage is to be resumed."""
  path = model_source.damaged(problem)
  for node in nodes:
    if path is not None and path.parent == node.workdir / 'checkpoints' and (
        distributed.is_main()):
      checkpoint.set_aside(path)
      distributed.say(f'the checkpoint is kept in {path.parent}/damaged-'
                      f'{path.name}; start the same command again: stage '
                      f'{node.name} is then resumed')
