"""Every experiment: it can run as it is, and its stages fit together."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

from experiments import common
from experiments import distill
from experiments import ppo
from experiments import r1
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import fields
from r1jax import resuming
from r1jax import stages as stages_lib
from r1jax.data import vocabs
from r1jax.models import architecture
from r1jax.pipeline import graph
from r1jax.plan import topology
from r1jax.stages import rollouts
from r1jax.stages import scoring
import every_config
import small_vocabs

OLD = pathlib.Path(__file__).parent / 'old_configs'
LEAVES = {  # files that a stage leaves for others, by its kind
    'collect': ('collected.jsonl',), 'sample with keep': ('kept-*.jsonl',),
    'sample': ('preferences.jsonl',), 'search': ('steps.jsonl',),
    'search with keep': ('kept-*.jsonl', 'steps.jsonl'),
    'step_labels': ('steps.jsonl', 'preferences.jsonl')}


@pytest.fixture(name='configs', scope='module')
def _configs():
  with pytest.MonkeyPatch.context() as patch:
    return every_config.every(patch)


def test_every_config_passes_the_checks_that_need_no_data(configs):
  assert len(configs) > 30
  for name, config in configs.items():
    stages = (config.stages.values() if config.stage == 'pipeline'
              else [config])
    for stage in stages:
      assert stage.stage in (*stages_lib.KINDS, 'bench'), name
      machine = stage.get('plan', {}).get('topology')
      config_lib.check(
          stage, topology.parse(machine).devices if machine else 1)
    assert config.is_locked, name


def test_a_value_is_set_at_most_three_files_deep():
  with pytest.MonkeyPatch.context() as patch:
    found = every_config.chains(lambda: every_config.every(patch))
  assert ('r1.py', 'cold_start.py') in found
  assert max(map(len, found)) == 3


def test_a_pipelines_stages_refer_to_what_others_leave(configs):
  for name, config in configs.items():
    if config.stage != 'pipeline':
      continue
    stages = config.stages.to_dict()
    assert len(graph.nodes(config, pathlib.Path('/'))) == len(stages)
    for text in _strings(stages):
      for other, file in re.findall(r'\{(\w+)\}/?([^{}]*)', text):
        if other in ('split', 'task'):  # of a file's path; of a judge's prompt
          continue
        if other in config.get('models', ()):
          continue
        assert other in stages, f'{name}: {text}'
        stage = stages[other]
        kind = stage['stage'] + (' with keep' if 'keep' in stage else '')
        assert file in ('', *LEAVES.get(kind, ())), f'{name}: {text}'


def _strings(value):
  if isinstance(value, dict):
    value = list(value.values())
  if isinstance(value, (list, tuple)):
    for part in value:
      yield from _strings(part)
  if isinstance(value, str):
    yield value


def test_every_field_says_what_it_means(configs):
  for name, config in configs.items():
    known = dict(fields.declared(config))
    for field in config_lib.flatten(config):
      # Its name and meaning are the data source's, or the function's.
      assert field in known or '.options.' in f'.{field}' or (
          '.functions.' in field), f'{name}: {field}'
    for field, declared in known.items():
      assert declared.meaning, f'{name}: {field}'


def test_names_say_where_a_stage_is_from(configs):
  for name, stage in every_config.stages(configs):
    assert stage.name == name


def test_a_model_can_be_told_all_that_a_decoder_is():
  known = {field.name for field in dataclasses.fields(architecture.Config)}
  known -= {'latent', 'moe', 'rope_scaling', 'lora_scale'}
  for name in known:
    assert name in common.model(**{name: None}), name


def test_ppo_and_grpo_differ_in_the_estimator_alone():
  grpo, other = map(config_lib.flatten, (r1_zero.mini(), ppo.reasoning()))
  assert {field for field in grpo if grpo[field] != other[field]} == {
      'rl.advantage', 'rl.aggregate'}
  assert all(field.startswith('critic.') for field in other.keys() - grpo)


@pytest.mark.parametrize('file', sorted(OLD.glob('*.json')),
                         ids=lambda file: file.stem)
def test_a_run_begun_before_goes_on(configs, file):
  """tests/old_configs has config.json files of stages as they once were."""
  variant, _, key = file.stem.partition('.')
  module, _, arg = variant.rpartition('_')
  name = f'{module}.py:{arg}'
  config = configs[name].stages[key] if key else configs[name]
  old, new = json.loads(file.read_text('utf-8')), config.to_dict()
  unset = {field for field, value in config_lib.flatten(new).items()
           if value is None}
  assert config_lib.flatten(old).keys() > config_lib.flatten(
      new).keys() - unset - {
      'vocab.eos', 'data.template', 'lm.prompt_weight', *resuming.ADDED,
      *resuming._CHANGEABLE}
  assert not resuming.changed(old, new)
  # What it still has, and what it never had, is a difference.
  for section, field, value in (
      ('mesh', 'data', 7), ('mesh', 'dtaa', 1), ('collect', 'x', 1)):
    other = old | {section: old.get(section, {}) | {field: value}}
    assert [f'config.{section}.{field}'] == [
        text.partition(' ')[0] for text in resuming.changed(other, new)]


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
  for name in ('zero', 'zero_long', 'reasoning', 'rules', 'r1'):
    rl = stages[name].rl
    assert rl.mini_batches == 16 and rl.prompts * rl.group == 8192
    assert stages[name].optim.lr == 3e-6 and rl.beta == .001
    assert rl.ref_every_steps * rl.mini_batches == 400
  # The paper's steps are our updates, to within a rollout.
  zero, long, rules, last = (stages[name] for name in (
      'zero', 'zero_long', 'rules', 'r1'))
  assert 8_200 - 16 < 16 * zero.steps <= 8_200
  assert 16 * (zero.steps + long.steps) == 10_400
  assert zero.rl.prompt_tokens + zero.rl.response_tokens == 32_768
  assert long.rl.prompt_tokens + long.rl.response_tokens == 65_536
  assert 1_700 - 16 < 16 * (rules.steps + last.steps) <= 1_700
  assert 16 * last.steps == 400 and last.rl.temperature == .7
  assert rules.rl.temperature == .7 and not rules.rewards.models
  assert isinstance(rules.data.task, str) and len(last.data.task) == 3
  # Each kind of prompt has the model of its kind.
  assert {task: {name for name, weight in weights.items() if weight}
          for task, weights in last.rewards.tasks.to_dict().items()} == {
              'helpful': {'helpful'}, 'harmless': {'harmless'}}
  assert stages.helpful.preference.scores == 'summary'
  assert stages.harmless.preference.loss == 'pointwise'
  for name, lr in distill.STUDENTS.items():
    student = distill.get_config(name)
    assert student.optim.lr == lr and student.lm.batch == 64
    assert student.lm.length == 32_768 and student.optim.schedule == 'cosine'


def test_the_papers_stages_can_read_their_prompts(tmp_path, monkeypatch):
  """As they are set: their files, examples, templates, lengths, judges."""
  monkeypatch.chdir(tmp_path)
  row = json.dumps(dict(prompt='What is 6*7?', answer='42',
                        response='<think> 6*7=42 </think> 42')) + '\n'
  for name in ('reasoning', 'judged', 'examples', 'general', 'helpful',
               'harmless'):
    for split in ('train', 'test'):
      path = pathlib.Path(name, f'{split}.jsonl')
      path.parent.mkdir(exist_ok=True)
      path.write_text(row)
  draft = json.loads(row)
  draft['response'] = '7 ' * 10_000  # what R1-Zero says may be long
  pathlib.Path('zero_samples').mkdir()
  pathlib.Path('zero_samples/kept-00000.jsonl').write_text(json.dumps(draft))
  vocab = vocabs.load_vocab('huggingface', small_vocabs.save(
      tmp_path / 'vocab', small_vocabs.tokenizer(), tokenizer_config=dict(
          eos_token=small_vocabs.END, chat_template=(
              '{% for m in messages %}{{ m.content }}{% endfor %}'))))
  every, asked = graph.nodes(r1.get_config('paper'), tmp_path), {}
  for node in every:
    if 'rl' not in node.config:
      continue
    config = graph.resolve(node, every)
    config.rewards.judge.url = 'http://localhost/v1'  # nobody asks it
    found = rollouts.read_prompts(
        config.data, vocab, config.rl.prompt_tokens, split=config.data.split,
        count=4)
    scoring.check_judge(config.rewards, found)
    assert found.records, node.name
    asked[node.name] = vocab.decode(
        found.tokens[np.arange(1)][0, :found.length[0]].tolist())
  assert len(asked) == 12
  for name, text in asked.items():
    by_zero = name in ('zero', 'zero_long', 'zero_samples')
    assert text.startswith('A conversation between') == by_zero, name
  assert asked['few_shot'].count('6*7=42') == 1  # its example
  assert asked['refined'].count('7 7 7 7') > 2_000
