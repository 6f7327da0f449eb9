"""Every experiment of the repository, in all its variants."""

import importlib
import pathlib

from experiments import common

FOLDER = pathlib.Path(common.__file__).parent


def _variants(monkeypatch, module):
  """The variants that a module's get_config knows."""
  with monkeypatch.context() as patch:
    patch.setattr(common, 'variant', lambda file, arg, variants: sorted(variants))
    return module.get_config('?')


def every(monkeypatch):
  """The config of every variant of every experiment, by FILE:ARG."""
  found = {}
  for path in sorted(FOLDER.glob('*.py')):
    module = importlib.import_module(f'experiments.{path.stem}')
    if not hasattr(module, 'get_config'):
      continue
    for arg in _variants(monkeypatch, module):
      found[f'{path.name}:{arg}'] = module.get_config(arg)
  return found


def stages(configs):
  """(name, config) of every stage of every experiment, pipelines' too."""
  for name, config in configs.items():
    if config.stage == 'pipeline':
      yield from ((f'{name}, {key}', stage)
                  for key, stage in config.stages.items())
    else:
      yield name, config
