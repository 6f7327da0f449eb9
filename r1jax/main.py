r"""Runs a config: python -m r1jax.main --config=FILE:ARG --workdir=DIR.

    python -m r1jax.main --config=experiments/r1_zero.py:mini \
        --workdir=/tmp/r1_zero --config.optim.lr=1e-4

Every field of the config can be overridden; with --help the command prints them
all and runs nothing. The same command, started again, resumes the run. The exit
status is 0 when everything has ended, 1 when training diverged, 2 for a refused
configuration, 75 (EX_TEMPFAIL of sysexits.h) when SIGTERM or SIGINT stopped it.
"""

import importlib
import os

from absl import app
from absl import flags as absl_flags
from absl import logging
import jax
from ml_collections import config_flags

from r1jax import errors
from r1jax import flags
from r1jax import pipeline
from r1jax import stages
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.stages import inputs
from r1jax.training import logger
from r1jax.training import loop

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Experiment, e.g. experiments/r1_zero.py:mini')
_WORKDIR = absl_flags.DEFINE_string(
    'workdir', None, "The run's own directory, seen by every host")
_GIN_FILE = absl_flags.DEFINE_multi_string(
    'gin_file', [], "gin file for seqio's configurables; may be repeated")
_GIN_BINDINGS = absl_flags.DEFINE_multi_string(
    'gin_bindings', [], "gin binding for seqio's configurables; repeatable")

_STOPPED = 75


def main(argv: list[str]) -> int:
  try:
    if argv[1:]:
      raise errors.ConfigError(
          '', f'unexpected argument {argv[1]!r}; every setting is a '
          '--flag=value')
    ended = run()
  except errors.ConfigError as problem:
    flags.fail(problem)
  except (logger.Diverged, errors.RunError) as problem:
    flags.fail(problem, status=1)
  return 0 if ended else _STOPPED


def run() -> bool:
  """Runs what the flags say; False if it was stopped before its end."""
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
  stages.check(config)
  if config.stage != 'bench' and not _WORKDIR.value:
    raise errors.ConfigError('--workdir', 'expected a directory for this run')
  if '://' in (_WORKDIR.value or ''):
    raise errors.ConfigError(
        '--workdir', 'expected a path of a file system that every host mounts, '
        f'received {_WORKDIR.value!r}')
  # Absolute, so that the saved config still names it from elsewhere.
  if os.path.exists(config.get('init_from') or ''):
    config.init_from = os.path.abspath(config.init_from)
  fields = config.to_dict()
  if _GIN_FILE.value or _GIN_BINDINGS.value:
    fields['gin'] = bind_gin(_GIN_FILE.value, _GIN_BINDINGS.value)

  #########################################################################
  # Mesh → stage → loop
  #########################################################################
  workdir = os.path.abspath(_WORKDIR.value or '.')
  if config.stage == 'pipeline':
    ended = pipeline.run_pipeline(config, workdir, fields.get('gin'))
    return ended or config.dry_run
  mesh = sharding.make_mesh(config.mesh)
  if config.stage == 'bench':
    bench = importlib.import_module('r1jax.stages.bench')
    bench.run_bench(config, mesh)
    return True
  stage = stages.build(config, mesh, workdir)
  summary = loop.train(
      stage, stages.loop_settings(config), workdir, fields,
      inputs.digests(fields) if distributed.is_main() else {})
  return summary is not None


def bind_gin(files: list[str], bindings: list[str]) -> str:
  """Configures seqio's gin parts; returns the bindings, for the record.

  seqio must be imported first, which only `data/tasks.py` does: gin refuses
  names that it does not know.
  """
  import gin  # imported here, with seqio: they bring TensorFlow
  importlib.import_module('r1jax.data.tasks')
  try:
    gin.parse_config_files_and_bindings(files, bindings)
  except (OSError, SyntaxError, ValueError) as problem:
    raise errors.ConfigError(
        '--gin_file, --gin_bindings', str(problem)) from problem
  return gin.config_str()


if __name__ == '__main__':
  app.run(main, flags_parser=flags.parse)
