"""Every experiment of the repository, in all its variants."""

import importlib
import pathlib
import sys

from experiments import common

FOLDER = pathlib.Path(common.__file__).parent


def _variants(monkeypatch, module):
  """The variants that a module's get_config knows."""
  with monkeypatch.context() as patch:
    patch.setattr(
        common, 'variant', lambda file, arg, variants: sorted(variants))
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


def chains(make):
  """The experiments between `make` and `common.base`, of each stage.

  A value of a stage is set in one of them: on the way down as an argument, on
  the way up by a change of the config.
  """
  found = set()

  def hook(frame, event, value):
    del value
    if event == 'call' and frame.f_code is common.base.__code__:
      files = []
      while frame := frame.f_back:
        path = pathlib.Path(frame.f_code.co_filename)
        if path.parent == FOLDER and path.name not in ('common.py', *files):
          files.append(path.name)
      found.add(tuple(reversed(files)))

  sys.setprofile(hook)
  try:
    make()
  finally:
    sys.setprofile(None)
  return found


def stages(configs):
  """(name, config) of every stage of every experiment, pipelines' too."""
  for name, config in configs.items():
    if config.stage == 'pipeline':
      yield from ((f'{name}, {key}', stage)
                  for key, stage in config.stages.items())
    else:
      yield name, config
