"""Runs a config that the command line has given: hosts → mesh → stage → loop.

Apart from main.py, since to import this takes seconds.
"""

from collections.abc import Sequence
import importlib
import os
from typing import Any

from absl import logging
import jax

from r1jax import config as config_lib
from r1jax import errors
from r1jax import objects
from r1jax import pipeline
from r1jax import stages
from r1jax.parallel import backend
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import roll_call
from r1jax.parallel import sharding
from r1jax.stages import inputs
from r1jax.training import loop
from r1jax.training import mirror
from r1jax.training import surroundings


def run(config, workdir: str | None, gin_files: Sequence[str] = (),
        gin_bindings: Sequence[str] = ()) -> bool:
  """Runs `config`; False if a signal stopped it before its end.

  Args:
    config: of a stage or a pipeline.
    workdir: absolute, or in a bucket; None for a bench, or a plan that is only
      printed.
    gin_files, gin_bindings: for seqio's configurables.
  """
  backend.check_environment()
  plan = config.get('plan', {})
  if plan.get('sweep') and plan.topology is None:
    raise errors.expected(
        'plan.topology', 'a machine, for config.plan.sweep', None)
  if plan.get('topology') is not None:
    if objects.is_bucket(workdir or ''):
      raise errors.expected(
          '--workdir', 'a path of a file system for a plan', workdir)
    importlib.import_module('r1jax.plan').run(config, workdir)
    return True

  # Hosts and devices.
  distributed.initialize(force=bool(config.get('distributed')))
  backend.check_devices()
  surroundings.keep_programs()
  with roll_call.answered():
    return _run(config, workdir, gin_files, gin_bindings)


def _run(config, workdir: str | None, gin_files: Sequence[str],
         gin_bindings: Sequence[str]) -> bool:
  """As `run`, on the devices that there are."""
  if jax.default_backend() == 'cpu':
    memory.keep_freed()
  logging.info('process %d of %d, devices %s', jax.process_index(),
               jax.process_count(), jax.devices())

  # What is refused is refused here, before anything compiles.
  distributed.alike(lambda: {
      '--workdir': workdir, '--gin_file': [*gin_files],
      '--gin_bindings': [*gin_bindings], **surroundings.of_program(),
      **config_lib.flatten(config.to_dict(), 'config.')})
  stages.check(config)
  # Absolute, so that the saved config still names it from elsewhere.
  if os.path.exists(config.get('init_from') or ''):
    config.init_from = os.path.abspath(config.init_from)
  fields = config.to_dict()
  if gin_files or gin_bindings:
    fields['gin'] = bind_gin(gin_files, gin_bindings)

  with mirror.mirrored(
      workdir, of_stages=config.stage == 'pipeline') as folder:
    return _run_in(folder, config, fields)


def _run_in(workdir: str | None, config, fields: dict[str, Any]) -> bool:
  """As `run`, in a folder of this machine: mesh → stage → loop."""
  if config.stage == 'pipeline':
    ended = pipeline.run_pipeline(config, workdir, fields.get('gin'))
    return ended or config.dry_run
  with memory.explained(config):
    mesh = sharding.make_mesh(config.mesh)
    if config.stage == 'bench':
      bench = importlib.import_module('r1jax.stages.bench')
      bench.run_bench(config, mesh)
      return True
    digests = distributed.alike(lambda: inputs.digests(fields))
    stage = stages.build(config, mesh, workdir)
    summary = loop.train(
        stage, stages.loop_settings(config), workdir, fields, digests)
  return summary is not None


def bind_gin(files: Sequence[str], bindings: Sequence[str]) -> str:
  """Configures seqio's gin parts; returns the bindings, for the record.

  seqio must be imported first, as `data/seqio_tasks.py` does: gin refuses
  names that it does not know.
  """
  import gin  # imported here, with seqio: they bring TensorFlow
  importlib.import_module('r1jax.data.seqio_tasks')
  try:
    gin.parse_config_files_and_bindings(files, bindings)
  except (OSError, SyntaxError, ValueError) as problem:
    raise errors.ConfigError(
        '--gin_file, --gin_bindings', str(problem)) from problem
  return gin.config_str()
