"""Every experiment: it can run as it is, and its stages fit together."""

import importlib
import pathlib
import re

import pytest

from experiments import common
from experiments import distill
from experiments import r1
from r1jax import config as config_lib
from r1jax import graph
from r1jax import run

FOLDER = pathlib.Path(common.__file__).parent
LEAVES = {  # what a stage leaves for others, by its kind
    'collect': {'collected.jsonl'}, 'kept': {'kept-*.jsonl'},
    'sample': {'preferences.jsonl'}}


def _variants(monkeypatch, module):
  """The variants that a module's get_config knows."""
  with monkeypatch.context() as patch:
    patch.setattr(common, 'variant', lambda arg, variants: sorted(variants))
    return module.get_config('?')


@pytest.fixture(name='configs', scope='module')
def _configs():
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    for path in sorted(FOLDER.glob('*.py')):
      module = importlib.import_module(f'experiments.{path.stem}')
      if not hasattr(module, 'get_config'):
        continue
      for arg in _variants(patch, module):
        found[f'{path.name}:{arg}'] = module.get_config(arg)
  return found


def test_every_config_passes_the_checks_that_need_no_data(configs):
  assert len(configs) > 30
  for name, config in configs.items():
    stages = (config.stages.values() if config.stage == 'pipeline'
              else [config])
    for stage in stages:
      assert stage.stage in (*run.STAGES, 'bench'), name
      config_lib.check(stage, device_count=1)
    assert config.is_locked, name


def test_a_pipelines_stages_refer_to_what_others_leave(configs):
  for name, config in configs.items():
    if config.stage != 'pipeline':
      continue
    stages = config.stages.to_dict()
    assert len(graph.nodes(config, pathlib.Path('/'))) == len(stages)
    for text in _strings(stages):
      for other, file in re.findall(r'\{(\w+)\}/?([^{}]*)', text):
        if other == 'split':
          continue
        assert other in stages, f'{name}: {text}'
        stage = stages[other]
        kind = 'kept' if 'keep' in stage else stage['stage']
        assert file in LEAVES.get(kind, {''}) | {''} and (
            not file or kind in LEAVES), f'{name}: {text}'


def _strings(value):
  if isinstance(value, dict):
    value = list(value.values())
  if isinstance(value, (list, tuple)):
    for part in value:
      yield from _strings(part)
  if isinstance(value, str):
    yield value


def test_the_papers_values():
  """R1_FACTS of arXiv 2501.12948v2: 3.2.1, 3.2.2, B.4.2, B.4.3."""
  stages = r1.get_config('paper').stages
  for name in ('cold_start', 'sft'):
    stage = stages[name]
    assert stage.optim.lr == 5e-5 and stage.optim.final_fraction == .1
    assert stage.lm.batch == 128 and stage.lm.length == 32_768
    assert stage.epochs in (2., 3.)
  assert stages.reasoning.rl.clip_high == stages.reasoning.rl.clip_low == 10
  assert stages.reasoning.rewards.weights.language == 1.
  assert stages.zero.rewards.weights.language == 0.
  last = stages.r1
  assert last.steps == 1700 and last.rl.temperature == .7
  assert {model.from_step for model in last.rewards.models.values()} == {1300}
  assert stages.helpful.preference.scores == 'summary'
  assert stages.harmless.preference.loss == 'pointwise'
  for name, lr in distill.STUDENTS.items():
    student = distill.get_config(name)
    assert student.optim.lr == lr and student.lm.batch == 64
    assert student.lm.length == 32_768 and student.optim.schedule == 'cosine'
