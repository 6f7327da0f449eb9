"""No stage has a setting that it does not read: none is there for nothing.

Every kind of stage of every experiment is built from a config that notes what
is read of it. Models, vocabularies and data are those of the mini world, few of
them; parameters are not loaded.
"""

from collections.abc import Mapping
import importlib
import json
import re

import jax
import ml_collections
import pytest

import every_config
from experiments import common
from experiments import prm
from experiments import reward_model
from r1jax import config as config_lib
from r1jax import stages
from r1jax.parallel import sharding
from r1jax.stages import train_state

# Read where a run begins, in main: how it is called, what it is, where.
BY_MAIN = {'name', 'stage', 'distributed', 'plan.topology', 'plan.sweep',
           'plan.price', 'plan.mean_response_tokens'}

# What makes a stage read what it otherwise need not.
SWITCHES = {
    'lora.rank': 2, 'critic.lora.rank': 2, 'eval.split': 'heldout',
    'data.template': 'mini', 'lm.prompt_weight': 0., 'data.shots': 1,
    'data.examples': 'mini_worked:short_en', 'rewards.weights.length_rule': .5}
JUDGES = (dict(init_from='mini_helper', template='mini', prompt_tokens=64,
               response_tokens=32),
          dict(init_from=None, url='http://localhost/v1', model='m'))


class Noted(Mapping):
  """A config that notes the fields that are read, by their dotted names.

  A copy of all, for the record, reads none of them; but for a data source's
  options, which are whole what it is given.
  """

  def __init__(self, config, read, prefix=''):
    self._config, self._read, self._prefix = config, read, prefix

  def __getitem__(self, name):
    value = self._config[name]
    if isinstance(value, ml_collections.ConfigDict):
      return Noted(value, self._read, f'{self._prefix}{name}.')
    self._read.add(self._prefix + name)
    return value

  def __getattr__(self, name):
    if name.startswith('__') or name not in self._config:
      raise AttributeError(name)
    return self[name]

  def __contains__(self, name):
    return name in self._config

  def __iter__(self):
    return iter(self._config)

  def __len__(self):
    return len(self._config)

  def to_dict(self):
    if self._prefix.endswith('options.'):
      self._read.update(
          self._prefix + name for name in config_lib.flatten(self._config))
    return self._config.to_dict()


def _kind(config):
  """The names of a config's fields, where a name is not an experiment's own."""
  names = set()
  for field in config_lib.flatten(config):
    if '.options.' in field or field.startswith('model.'):
      continue
    field = re.sub(r'^(rewards\.(?:tasks|weights))\..*', r'\1.*', field)
    names.add(re.sub(r'^(tests|collect|rewards\.models)\.\w+', r'\1.*', field))
  return config.stage, frozenset(names)


def _examples():
  """A stage of each kind and set of fields, of a miniature where there is one."""
  with pytest.MonkeyPatch.context() as patch:
    configs = every_config.every(patch)
  found = {}
  for name, config in sorted(
      every_config.stages(configs), key=lambda item: ':mini' not in item[0]):
    found.setdefault(_kind(config), (name, config))
  return dict(found.values())


EXAMPLES = _examples()


def _small(config, folder):
  """The stage on little data of the mini world, with all switches on."""
  config = config.copy_and_resolve_references().unlock()
  leaves = config_lib.flatten(config)
  for field, value in (SWITCHES | {
      'init_from': 'mini', 'distill.init_from': 'mini', 'steps': None,
      'epochs': 1., 'rl.prompt_tokens': 200, 'rl.response_tokens': 16,
      'optim.warmup_steps': 0, 'critic.optim.warmup_steps': 0,
      'data.num_prompts': 16, 'eval.problems': 4,
      'rl.ref_every_steps': 0}).items():
    if field in leaves:
      config.update_from_flattened_dict({field: value})
  if 'model' in config:
    config.model = common.mini_model(
        max_len=512, **{name: config.model[name] for name in ('scalar',)
                        if name in config.model})
  if 'vocab' in config:
    config.vocab = common.mini_vocab().copy_and_resolve_references()
  if config.stage in ('lm', 'preference'):
    steps = leaves.get('preference.loss') == 'stepwise'
    config.data.task, config.data.options = dict(
        lm='mini_writing', preference=f'jsonl:{folder}/'
        f'{"steps" if steps else "pairs"}.jsonl'
        )[config.stage], dict(size=16) if config.stage == 'lm' else {}
  if config.stage == 'preference':
    config.data.split, config.eval.split = 'train[:2]', 'train[2:]'
  if config.stage in ('rl', 'bench'):
    config.update(steps=2) if config.stage == 'rl' else _tiny(config)
  for part in config.get('collect', {}).values():
    part.task, part.options = f'jsonl:{folder}/kept.jsonl', {}
  for test in config.get('tests', {}).values():
    test.data.update(shots=1, examples='mini_worked:short_en')
    test.problems = 4
    if not test.data.task.startswith('mini'):
      test.data.update(task='mini_reasoning', template='mini', options={})
      test.split = 'heldout'
    if test.prompt_tokens:
      test.prompt_tokens = 200
  if 'search' in config:
    config.search.init_from = str(folder / 'scores')
  for model in config.get('rewards', {}).get('models', {}).values():
    model.init_from = str(folder / ('steps' if model.cut else 'scores'))
  return config


def _tiny(config):
  config.bench.update(steps=2, warmup=1, matmul=8)
  config.init_from = None
  config.model = common.model(
      vocab=32, width=16, layers=1, heads=2, kv_heads=1, head_size=8, mlp=24,
      max_len=8, dtype='float32', scan_layers=False)
  config.rl.update(prompts=2, group=2, prompt_tokens=3, response_tokens=5,
                   micro_batch=None, sample_chunk=2, logp_chunk=2)


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  """Files as other stages leave them, and the workdir of a reward model."""
  folder = tmp_path_factory.mktemp('inputs')
  rows = [dict(prompt=f'Count {n}', responses=['1 2', '2 1'], grades=[1, 0])
          for n in range(4)]
  (folder / 'pairs.jsonl').write_text(''.join(
      json.dumps(row) + '\n' for row in rows))
  (folder / 'kept.jsonl').write_text(''.join(
      json.dumps(dict(prompt=row['prompt'], response='1 2')) + '\n'
      for row in rows))
  (folder / 'steps.jsonl').write_text(''.join(json.dumps(dict(
      prompt=row['prompt'], steps=['1', '2'], labels=[1, 0])) + '\n'
                                              for row in rows))
  for name, made in (('scores', reward_model.mini('mini')),
                     ('steps', prm.process_model())):
    (folder / name / 'checkpoints').mkdir(parents=True)
    (folder / name / 'config.json').write_text(json.dumps(made.to_dict()))
  return folder


def _build(config, workdir):
  """What is read of a stage from its beginning to its first step."""
  read = set()
  noted = Noted(config, read)
  sharding.make_mesh(noted.mesh)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  if config.stage == 'bench':
    importlib.import_module('r1jax.stages.bench').run_bench(noted, mesh)
    return read
  importlib.import_module(stages.KINDS[config.stage]).build(
      noted, mesh, str(workdir))
  stages.loop_settings(noted)
  return read


@pytest.mark.parametrize('name', EXAMPLES)
def test_every_field_of_a_stage_is_read(name, folder, tmp_path, monkeypatch):
  if EXAMPLES[name].stage != 'bench':
    monkeypatch.setattr(train_state, 'init_params', lambda *args, **kwargs: {})
  config, read = _small(EXAMPLES[name], folder), set()
  judges = JUDGES if 'rewards' in config else ({},)
  for judge in judges:
    if judge:
      config.rewards.judge.update(judge)
    read |= _build(config, tmp_path)
  unread = set(config_lib.flatten(config)) - read - BY_MAIN
  assert not unread


def test_a_field_that_is_not_read_is_found():
  read = set()
  config = ml_collections.ConfigDict(dict(
      a=1, b=dict(c=2, d=3), data=dict(options=dict(x=1, y=dict(z=2)))))
  noted = Noted(config, read)
  assert noted.b.c == noted.b.get('c') == 2 and 'd' in noted.b
  noted.to_dict()
  noted.b.to_dict()
  assert read == {'b.c'}
  assert noted.data.options.to_dict() == dict(x=1, y=dict(z=2))
  assert read == {'b.c', 'data.options.x', 'data.options.y.z'}
