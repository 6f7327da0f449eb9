"""Stages: one kind of training, sampling or evaluation each, run in a workdir."""

import importlib
import time
from typing import Any

from absl import logging
import jax

from r1jax import config as config_lib
from r1jax import errors
from r1jax.parallel import sharding
from r1jax.training import loop

KINDS = {  # config.stage: the module whose build(config, mesh, workdir) it is
    'collect': 'r1jax.stages.mixture',
    'lm': 'r1jax.stages.lm',
    'measure': 'r1jax.stages.evaluation',
    'preference': 'r1jax.stages.preference',
    'rl': 'r1jax.stages.rl',
    'sample': 'r1jax.stages.sample',
}


def check(config, others: tuple[str, ...] = ()) -> None:
  """Refuses, before anything compiles, what can be refused then.

  Args:
    config: of a stage.
    others: what else config.stage may be.

  Raises:
    ConfigError: names the field.
  """
  known = (*KINDS, *others)
  if config.get('stage') not in known:
    raise errors.ConfigError(
        f'config.stage: {config.get("stage")!r} is not a stage'
        + errors.nearest(str(config.get('stage')), known))
  if config.stage in KINDS:
    config_lib.check(config, jax.device_count())


def run_stage(config, workdir: str, record: dict[str, Any]
         ) -> dict[str, Any] | None:
  """Runs the stage to its end, from where `workdir` stands.

  Args:
    config: of one of KINDS, checked.
    workdir: an absolute path.
    record: the config as it is kept.

  Returns:
    Its summary, or None if it was told to stop.
  """
  module = importlib.import_module(KINDS[config.stage])
  started = time.monotonic()
  built = module.build(config, sharding.make_mesh(config.mesh), workdir)
  logging.info('stage built in %.1f s', time.monotonic() - started)
  return loop.train(built, loop_settings(config), workdir, record)


def loop_settings(config) -> loop.Settings:
  return loop.Settings(
      checkpoint_every_steps=config.checkpoint.every_steps,
      keep=config.checkpoint.keep,
      eval_every_steps=config.eval.every_steps,
      rollouts_every_steps=config.log.rollouts_every_steps,
      max_skipped_steps=config.optim.max_skipped_steps,
      tensorboard=config.log.tensorboard)
