"""Runs one stage of a config in a directory; `main` and `pipeline` ask it."""

import importlib
import time
from typing import Any

from absl import logging
import jax

from r1jax import config as config_lib
from r1jax.parallel import mesh as mesh_lib
from r1jax.training import loop

STAGES = {  # config.stage: the module whose build(config, mesh, workdir) it is
    'collect': 'r1jax.stages.collect',
    'lm': 'r1jax.stages.lm',
    'measure': 'r1jax.stages.measure',
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
  known = (*STAGES, *others)
  if config.get('stage') not in known:
    raise config_lib.ConfigError(
        f'config.stage: {config.get("stage")!r} is not a stage'
        + config_lib.nearest(str(config.get('stage')), known))
  if config.stage in STAGES:
    config_lib.check(config, jax.device_count())


def stage(config, workdir: str, record: dict[str, Any]
         ) -> dict[str, Any] | None:
  """Runs the stage to its end, from where `workdir` stands.

  Args:
    config: of one of STAGES, checked.
    workdir: an absolute path.
    record: the config as it is kept.

  Returns:
    Its summary, or None if it was told to stop.
  """
  module = importlib.import_module(STAGES[config.stage])
  started = time.monotonic()
  built = module.build(config, mesh_lib.make(config.mesh), workdir)
  logging.info('stage built in %.1f s', time.monotonic() - started)
  return loop.run(built, settings(config), workdir, record)


def settings(config) -> loop.Settings:
  return loop.Settings(
      checkpoint_every_steps=config.checkpoint.every_steps,
      keep=config.checkpoint.keep,
      eval_every_steps=config.eval.every_steps,
      rollouts_every_steps=config.log.rollouts_every_steps,
      max_skipped_steps=config.optim.max_skipped_steps,
      tensorboard=config.log.tensorboard)
