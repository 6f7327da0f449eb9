"""Stages: the kinds of training, sampling and evaluation that a config names.

A stage is a module whose `build(config, mesh, workdir)` reads the config once
and returns a `loop.Stage`, functions of the TrainState; training/loop.py runs
it. The other modules are parts of stages (rollouts, scoring, grpo, ...); bench
runs without the loop. TensorFlow is imported inside functions that read a data
set: the core works without it.
"""

import importlib

import jax

from r1jax import config as config_lib
from r1jax import errors
from r1jax.training import loop

KINDS = {  # config.stage: its module
    'collect': 'r1jax.stages.collect',
    'evaluate': 'r1jax.stages.evaluate',
    'lm': 'r1jax.stages.lm',
    'preference': 'r1jax.stages.preference',
    'rl': 'r1jax.stages.rl',
    'sample': 'r1jax.stages.sample',
    'search': 'r1jax.stages.search',
    'step_labels': 'r1jax.stages.step_labels',
}
_OTHERS = ('bench', 'pipeline')  # that `main` runs without the loop


def check(config) -> None:
  """Refuses, before anything compiles, what can be refused without data.

  Raises:
    ConfigError: names the field.
  """
  known = (*KINDS, *_OTHERS)
  if config.get('stage') not in known:
    raise errors.ConfigError(
        'stage', f'{config.get("stage")!r} is not a stage'
        + errors.nearest(str(config.get('stage')), known))
  if config.stage == 'pipeline':  # which checks each of its stages
    config_lib.check_fields(config)
    config_lib.check_parts(config)
  else:
    config_lib.check(config, jax.device_count())


def build(config, mesh: jax.sharding.Mesh, workdir: str) -> loop.Stage:
  """The stage of a checked config; compiles nothing yet."""
  return importlib.import_module(KINDS[config.stage]).build(
      config, mesh, workdir)


_LOOP = {  # loop.Settings: the field of a config that sets it
    'checkpoint_every_steps': ('checkpoint', 'every_steps'),
    'keep': ('checkpoint', 'keep'),
    'eval_every_steps': ('eval', 'every_steps'),
    'rollouts_every_steps': ('log', 'rollouts_every_steps'),
    'max_skipped_steps': ('optim', 'max_skipped_steps'),
    'tensorboard': ('log', 'tensorboard'),
}


def loop_settings(config) -> loop.Settings:
  """How often the loop saves, evaluates and logs.

  A kind of stage has the fields that matter to it.
  """
  return loop.Settings(hang_seconds=config.get('hang_seconds', 0.), **{
      name: config[section][field] for name, (section, field) in _LOOP.items()
      if section in config and field in config[section]})
