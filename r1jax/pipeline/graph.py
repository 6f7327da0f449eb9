"""The graph that a pipeline's config describes: its stages and their order.

A string in a stage's config may say '{sft}', the workdir of the stage of that
name, which then comes first; or '{base}', what config.models.base says, one
place for a model that several stages begin from. What it names outside the
graph, files of records and workdirs of other runs, is an input like any other;
'{split}' in the path of a file is replaced by the splits that the stage reads.
"""

from collections.abc import Collection, Mapping
import os
import pathlib
import re
from typing import Any, NamedTuple

import ml_collections

from r1jax import buckets
from r1jax import config as config_lib
from r1jax import errors
from r1jax.stages import inputs as inputs_lib
from r1jax.stages import model_source

_REFERENCE = re.compile(r'\{([^{}]+)\}')
# What a config says in braces, of files and templates: no stage and no model.
_PLACES = ('split', 'prompt', 'task')


class Node(NamedTuple):
  """A stage of the graph."""
  name: str
  config: dict[str, Any]  # plain, its references as they are written
  inputs: tuple[str, ...]  # names of stages, in their order
  workdir: pathlib.Path


def nodes(config, workdir: pathlib.Path) -> list[Node]:
  """The stages of `config.stages` in an order in which they can be run.

  Raises:
    ConfigError: a model or a file is said to be of a stage that there is not,
      or stages wait for each other.
  """
  models = config.models.to_dict() if 'models' in config else {}
  config_lib.check_names('stages', config.stages, _PLACES)
  config_lib.check_names('models', models, (*_PLACES, *config.stages))
  given = {name: value for name, value in models.items() if value is not None}
  plain = _filled(config.stages.to_dict(), given)
  if config.get('seed') is not None:
    plain = {name: stage | dict(seed=config.seed)
             for name, stage in plain.items()}
  for name, stage in plain.items():
    _check_references(name, stage, [*plain, *models])
  inputs = {name: sorted({found for text in inputs_lib.strings(stage)
                          for found in _REFERENCE.findall(text)
                          if found in plain and found != name})
            for name, stage in plain.items()}
  found, left = [], list(plain)
  while left:
    done = {node.name for node in found}
    name = next((name for name in left if done.issuperset(inputs[name])), None)
    if name is None:
      raise errors.ConfigError(
          'stages', 'each waits for another: ' + ', '.join(left))
    left.remove(name)
    found.append(
        Node(name, plain[name], tuple(inputs[name]), workdir / name))
  return found


def _check_references(name: str, stage: dict[str, Any],
                      known: Collection[str]) -> None:
  """Refuses '{sfx}' where a model or a file is named and 'sft' is known."""
  for field, value in config_lib.flatten(stage).items():
    named = inputs_lib.strings if field.split('.')[-1] == 'init_from' else (
        inputs_lib.patterns)
    for other in _REFERENCE.findall(' '.join(named(value))):
      if other not in known and f'{{{other}}}' != inputs_lib.SPLIT:
        raise errors.ConfigError(
            f'stages.{name}.{field}', f'{{{other}}} is not a stage'
            + errors.nearest(other, known))


def choose(config, every: list[Node]) -> list[Node]:
  """The stages that config.only and config.until leave, in their order.

  `until` leaves a stage and what it depends on, through others too.
  """
  names = [node.name for node in every]
  for field in ('only', 'until'):
    if config[field] is not None:
      errors.check_choice(field, config[field], names)
  if config.only is not None and config.until is not None:
    raise errors.expected('until', 'nothing beside config.only', config.until)
  if config.only is not None:
    return [every[names.index(config.only)]]
  if config.until is None:
    return every
  needed = {config.until}
  for node in reversed(every):
    if node.name in needed:
      needed.update(node.inputs)
  return [node for node in every if node.name in needed]


def resolve(node: Node, every: list[Node]) -> ml_collections.ConfigDict:
  """The stage's config with paths in the place of references."""
  return ml_collections.ConfigDict(_filled(
      node.config,
      {other.name: buckets.named(other.workdir) for other in every}))


def _filled(value: Any, places: Mapping[str, str]) -> Any:
  """What a config says with `places` for the references that they name."""
  if isinstance(value, str):
    return _REFERENCE.sub(lambda found: places.get(found[1], found[0]), value)
  if isinstance(value, Mapping):
    return {key: _filled(part, places) for key, part in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_filled(part, places) for part in value)
  return value


def find_missing(node: Node, every: Collection[str]
                 ) -> list[errors.ConfigError]:
  """The errors of fields that are to be set before a stage can run.

  Such are models and prompts that a config leaves to its user, and models and
  files that do not exist. The outputs of other stages, of the names of
  `every`, are not among them.
  """
  leaves = config_lib.flatten(node.config)
  no_models, no_files = [], []
  for name, value in leaves.items():
    field = f'stages.{node.name}.{name}'
    if value is None and _needed(node.config['stage'], name, leaves):
      no_models.append(errors.ConfigError(field, 'is not set'))
    elif value is not None and name.split('.')[-1] == 'init_from':
      no_models += _no_model(field, value, every)
    no_files += [
        errors.ConfigError(field, errors.no_file(os.path.abspath(path)))
        for path in inputs_lib.patterns(value)
        if not _REFERENCE.search(path.replace(inputs_lib.SPLIT, ''))
        and not inputs_lib.matches(path, node.config)]
  return no_models + no_files


def _no_model(field: str, model: str, every: Collection[str]
              ) -> list[errors.ConfigError]:
  """The error of a model that no stage makes, if there is one."""
  reference = _REFERENCE.fullmatch(model)
  if reference is not None:
    return [] if reference[1] in every else [
        errors.ConfigError(f'models.{reference[1]}', 'is not set')]
  if _REFERENCE.search(model):
    return []
  try:
    model_source.find(model, field)
  except errors.ConfigError as problem:
    return [problem]
  return []


def _needed(stage: str, field: str, leaves: Mapping[str, Any]) -> bool:
  """Whether a stage cannot run while this field of its config is unset."""
  *section, name = field.split('.')
  if field == 'rewards.judge.init_from':
    judged = any(value == 'judge' for other, value in leaves.items()
                 if other.split('.')[-1] == 'verifier')
    return judged and leaves.get('rewards.judge.url') is None
  if field == 'init_from':  # only pretraining starts from random weights
    return stage != 'lm' or leaves.get('data.template') is not None
  if section[-1:] == ['data']:
    shots = leaves.get('.'.join([*section, 'shots']), 0)
    return name == 'task' or name == 'examples' and shots > 0
  # By default a critic starts from the policy, and no value leads a search.
  return name == 'init_from' and section not in (['critic'], ['search'])
