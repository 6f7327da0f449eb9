"""Runs one stage: python -m r1jax.main --config=FILE:ARG --workdir=DIR.

    python -m r1jax.main --config=experiments/r1_zero.py:mini \
        --workdir=/tmp/r1_zero --config.optim.lr=1e-4

Every field of the config can be overridden. The same command, started again,
goes on where the run was stopped or killed.
"""

import importlib
import os
import time

from absl import app
from absl import flags as absl_flags
from absl import logging
import jax
from ml_collections import config_flags

from r1jax import config as config_lib
from r1jax import flags
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import mesh as mesh_lib
from r1jax.training import log as log_lib
from r1jax.training import loop

STAGES = {  # config.stage: the module whose build(config, mesh, workdir) it is
    'lm': 'r1jax.stages.lm',
    'rl': 'r1jax.stages.rl',
    'preference': 'r1jax.stages.preference',
    'sample': 'r1jax.stages.sample',
    'bench': 'r1jax.stages.bench',  # run(config, mesh): no state, no workdir
}

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment, e.g. experiments/r1_zero.py:mini')
_WORKDIR = absl_flags.DEFINE_string(
    'workdir', None, "The run's own directory, seen by every host")
_GIN_FILE = absl_flags.DEFINE_multi_string(
    'gin_file', [], "gin file for seqio's configurables; may be repeated")
_GIN_BINDINGS = absl_flags.DEFINE_multi_string(
    'gin_bindings', [], "gin binding for seqio's configurables; repeatable")
absl_flags.mark_flag_as_required('config')


def main(argv: list[str]) -> int:
  try:
    if argv[1:]:
      raise config_lib.ConfigError(
          f'unexpected argument {argv[1]!r}; every setting is a --flag=value')
    run()
  except config_lib.ConfigError as problem:
    flags.fail(problem)
  except log_lib.Diverged as problem:
    flags.fail(problem, status=1)
  return 0


def run() -> None:
  config = _CONFIG.value

  #########################################################################
  # Hosts and devices
  #########################################################################
  distributed.initialize(force=bool(config.get('distributed')))
  if jax.default_backend() == 'cpu':
    memory.keep_freed()
  logging.info('process %d of %d, devices %s', jax.process_index(),
               jax.process_count(), jax.devices())

  #########################################################################
  # What is refused is refused here, before anything compiles
  #########################################################################
  if config.get('stage') not in STAGES:
    raise config_lib.ConfigError(
        f'config.stage: {config.get("stage")!r} is not a stage'
        + config_lib.nearest(str(config.get('stage')), STAGES))
  if config.stage != 'bench' and not _WORKDIR.value:
    raise config_lib.ConfigError('--workdir: expected a directory for this run')
  if '://' in (_WORKDIR.value or ''):
    raise config_lib.ConfigError(
        '--workdir: expected a path of a file system that every host mounts, '
        f'received {_WORKDIR.value!r}')
  config_lib.check(config, jax.device_count())
  if os.path.exists(config.get('init_from') or ''):  # also from elsewhere later
    config.init_from = os.path.abspath(config.init_from)
  record = config.to_dict()
  if _GIN_FILE.value or _GIN_BINDINGS.value:
    record['gin'] = bind_gin(_GIN_FILE.value, _GIN_BINDINGS.value)

  #########################################################################
  # Mesh → stage → loop
  #########################################################################
  mesh = mesh_lib.make(config.mesh)
  stage_module = importlib.import_module(STAGES[config.stage])
  if config.stage == 'bench':
    stage_module.run(config, mesh)
    return
  workdir = os.path.abspath(_WORKDIR.value)
  started = time.monotonic()
  stage = stage_module.build(config, mesh, workdir)
  logging.info('stage built in %.1f s', time.monotonic() - started)
  loop.run(stage, settings(config), workdir, record)


def settings(config) -> loop.Settings:
  return loop.Settings(
      checkpoint_every_steps=config.checkpoint.every_steps,
      keep=config.checkpoint.keep,
      eval_every_steps=config.eval.every_steps,
      rollouts_every_steps=config.log.rollouts_every_steps,
      max_skipped_steps=config.optim.max_skipped_steps,
      tensorboard=config.log.tensorboard)


def bind_gin(files: list[str], bindings: list[str]) -> str:
  """Configures seqio's gin parts; returns the bindings, for the record.

  seqio must be imported first, which only `data/tasks.py` does: gin refuses
  names that it does not know.
  """
  import gin  # with TensorFlow behind seqio, seconds: only where asked for
  importlib.import_module('r1jax.data.tasks')
  try:
    gin.parse_config_files_and_bindings(files, bindings)
  except (OSError, SyntaxError, ValueError) as problem:
    raise config_lib.ConfigError(f'--gin_file, --gin_bindings: {problem}'
                                 ) from problem
  return gin.config_str()


if __name__ == '__main__':
  app.run(main, flags_parser=flags.parse)
