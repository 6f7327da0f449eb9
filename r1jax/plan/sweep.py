"""Ranks ways to cut a stage's work that fit a machine.

Every one is a plan of its own, compiled. They are tried one kind at a time,
each from the best so far: how many devices share a matrix (mesh.tensor, the
rest of its devices in mesh.fsdp), how many responses are in flight, where they
are expected to be of different lengths, how much is computed at once, and what
the backward pass computes again. All combinations would be dozens of
compilations of minutes each. What is refused before it compiles, as a mesh that
does not divide the heads, is no way.
"""

from collections.abc import Callable, Iterator
from typing import Any

from r1jax import config as config_lib
from r1jax import errors
from r1jax.stages import model_source

Change = dict[str, Any]  # a way: fields and their values
_TENSOR = (1, 2, 4, 8)
_PARTS = (2, 4, 8)  # of a step's responses, the slots
_FACTORS = (0.25, 0.5, 2, 4)  # of what is computed at once
_AT_ONCE = {'rl': 'rl.micro_batch', 'lm': 'lm.micro_batches',
            'preference': 'preference.micro_batches'}


def run(config, plan: Callable[[Any], dict[str, Any]],
        say: Callable[[str], None]) -> list[tuple[Change, dict[str, Any]]]:
  """(changes, plan) of every way tried, the best first.

  Args:
    config: of the stage, where the search begins.
    plan: config -> the plan of that stage.
    say: told of each plan as it is made.

  Raises:
    ConfigError: not one way can be.
  """
  best, tried, refused = {}, [], None
  for ways in (_meshes, _slots, _at_once, _remat):
    known = [change for change, _ in tried]
    for change in ways(changed(config, best)):
      change = best | change
      if change in known:
        continue
      try:
        tried.append((change, plan(changed(config, change))))
      except errors.ConfigError as problem:
        refused = refused or problem
        continue
      say(line(*tried[-1]))
    tried.sort(key=lambda each: _rank(each[1]))
    if tried and tried[0][1]['fits']:
      best = tried[0][0]
  if not tried:
    raise refused
  return tried


def line(change: Change, plan: dict[str, Any]) -> str:
  """A plan in one line."""
  memory = max((part['memory']['total'] for part in plan['parts']
                if 'memory' in part), default=0) / 2**30
  names = ' '.join(f'{name}={value}' for name, value in change.items())
  if not plan['fits']:
    return f'{names}: does not fit' + (f', {memory:.1f} GiB' if memory else '')
  step = plan['step']
  return (f'{names}: {memory:.1f} GiB, a step at least {step["seconds"]:.4g} '
          f's, MFU {100 * step["mfu"]:.1f} %')


def changed(config, change: Change):
  """A copy of the config with other values."""
  config = config.copy_and_resolve_references().unlock()
  for name, value in change.items():  # a model may lack a field of its preset
    section, _, field = name.rpartition('.')
    config_lib.section(config, section)[field] = value
  return config.lock()


def _rank(plan: dict[str, Any]) -> tuple[bool, float]:
  """Those that fit by the time of a step, then the others."""
  return not plan['fits'], plan['step']['seconds'] if 'step' in plan else 0.


def _meshes(config) -> Iterator[Change]:
  """The mesh of the config first."""
  for tensor in sorted(_TENSOR, key=lambda n: (n != config.mesh.tensor, n)):
    yield {'mesh.tensor': tensor, 'mesh.fsdp': -1}


def _slots(config) -> Iterator[Change]:
  if config.plan.mean_response_tokens is not None:
    rows = config.rl.prompts * config.rl.group
    for parts in _PARTS:
      if rows % parts == 0:
        yield {'rl.slots': rows // parts}


def _at_once(config) -> Iterator[Change]:
  field = _AT_ONCE.get(config.stage)
  value = field and config_lib.flatten(config)[field]
  for factor in _FACTORS if value else ():
    if value * factor >= 1 and value * factor == int(value * factor):
      yield {field: int(value * factor)}


def _remat(config) -> Iterator[Change]:
  source = config.init_from and model_source.find(config.init_from)
  model = model_source.configured_architecture(config.model, source)
  for policy in ('full', 'dots'):
    if policy != model.remat:
      yield {'model.remat': policy}
