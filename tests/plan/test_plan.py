"""Plans of whole stages, compiled for CPUs; and for a TPU where libtpu is."""

import json
import os
import subprocess
import sys

import jax
import pytest

from experiments import common
from experiments import machine_sections
from experiments import plan as plans
from experiments import reward_sections
from experiments import sections
from r1jax import errors
from r1jax import plan
from r1jax import run
from r1jax.kernels import attention
from r1jax.models import presets
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.plan import compiled
from r1jax.plan import counts
from r1jax.plan import report
from r1jax.plan import topology
from r1jax.stages import train_state

MODEL = dict(vocab=64, width=32, layers=3, heads=4, kv_heads=2, head_size=8,
             mlp=48, max_len=64)
LENGTHS = dict(prompts=8, group=2, prompt_tokens=8, response_tokens=24,
               micro_batch=16, sample_chunk=8, logp_chunk=8)


def _config(kind='rl', **changes):
  made = dict(model=common.model(**MODEL, remat='full'), steps=7,
              vocab=common.vocab(kind='huggingface', path=None))
  if kind == 'rl':
    made |= dict(
        data=sections.prompts(None), rl=sections.rl(**LENGTHS),
        rewards=reward_sections.rewards())
  if kind == 'lm':
    made |= dict(data=sections.texts(None), eval=dict(split=None),
                 lm=sections.lm(batch=8, length=32, logp_chunk=8))
  if kind == 'preference':
    made |= dict(
        data=sections.preferences(), model=common.model(**MODEL, scalar=True),
        preference=sections.preference(batch=8, length=32))
  return common.base(kind, **made | changes).lock()


@pytest.fixture(name='planned', scope='module')
def _planned():
  """The plan of a machine of 8 devices and its text, by config."""
  def make(config, workdir=None, name='h100:8'):
    config.plan.topology = name
    said = []
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(topology, 'prepare', lambda machine: '')  # 8 are there
      patch.setattr(plan.terminal, 'say', said.append)
      plan.run(config, workdir)
    return said
  return make


def test_a_plan_of_rl(planned, tmp_path):
  said = planned(_config(), str(tmp_path / 'new'))
  made = json.loads((tmp_path / 'new/plan.json').read_text('utf-8'))
  assert made['fits'] and made['mesh'] == {'fsdp': 8}
  parts = {part['name']: part for part in made['parts']}
  assert list(parts) == ['sampling', 'scoring', 'update']
  rows = {row['name']: row for part in made['parts'] for row in part['rows']}
  assert list(rows) == ['prefill', 'decode', 'scoring', 'update']
  # 24 times a token of two responses; attention to the cache is beside it.
  weights = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 32 * 64
  products = 24 * 2 * 2 * weights
  assert products < rows['decode']['flops'] < 1.5 * products
  # What is trained: forward, again, and twice backward.
  assert 3 < rows['update']['flops'] / rows['scoring']['flops'] < 4.2
  kinds = parts['update']['memory']['kinds']
  assert kinds['moments'] > 2 * kinds['parameters'] - 100
  assert kinds['gradients'] == kinds['reference'] == kinds['parameters']
  step = sum(row['seconds'] for row in rows.values())
  assert made['step']['seconds'] == pytest.approx(step)
  assert made['run']['chip_hours'] == pytest.approx(7 * step * 8 / 3600)
  assert made['run']['dollars'] == pytest.approx(
      made['run']['chip_hours'] * 4.916)
  assert 'plan of  on h100:8: 8 chips, mesh fsdp 8' in said[-1]
  assert 'R1-Zero, 64 x 8 GPUs' in said[-1]
  assert 'update is bound by ' in said[-1]  # its MFU is low
  assert 'price of a chip-hour: aws.amazon.com/ec2' in said[-1]


def test_keys_and_values_of_the_longest_response(planned, tmp_path):
  planned(_config(), str(tmp_path))
  made = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  known = made['parts'][0]['memory']['kinds']['keys and values']
  assert known == 2 * 3 * 2 * 2 * 8 * 24 * 4  # k, v; L, N / 8, K, h, R, float32


@pytest.mark.parametrize('kind', ['lm', 'preference'])
def test_a_plan_of_a_step(kind, planned, tmp_path):
  planned(_config(kind), str(tmp_path))
  made = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  (part,) = made['parts']
  assert part['name'] == 'update' and part['rows'][0]['flops'] > 0
  assert made['step']['tokens'] == 8 * 32


def test_loops_that_end_by_their_data_are_part_of_an_update(
    planned, tmp_path, monkeypatch):
  monkeypatch.setattr(counts, 'count', lambda *_: (
      counts.Counts(flops=1.), counts.Counts(flops=2.)))
  planned(_config('lm'), str(tmp_path))
  made = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  assert made['parts'][0]['rows'][0]['flops'] == 3


def test_a_price_of_ones_own(planned, tmp_path):
  config = _config('lm')
  config.plan.price = 100.
  said = planned(config, str(tmp_path))
  run = json.loads((tmp_path / 'plan.json').read_text('utf-8'))['run']
  assert run['dollars'] == pytest.approx(100 * run['chip_hours'])
  assert 'price of a chip-hour: config.plan.price' in said[-1]


@pytest.mark.parametrize('field, value', [
    ('plan.price', 0.), ('rl.group', 0), ('rl.temperature', -1.)])
def test_a_value_out_of_bounds_is_refused(field, value, planned):
  config = _config()
  section, _, name = field.rpartition('.')
  config[section][name] = value
  with pytest.raises(errors.ConfigError, match=f'config.{field}'):
    planned(config)


def test_slots_take_more_steps_of_fewer_responses(
    planned, tmp_path, monkeypatch):
  """All of full length; the cache is read in blocks."""
  monkeypatch.setattr(attention, 'BLOCK', 8)
  planned(common.base(
      'sample', model=common.model(**MODEL), data=sections.prompts(None),
      vocab=common.vocab(kind='huggingface', path=None),
      rl=sections.sampling(
          prompts=8, group=2, prompt_tokens=8, response_tokens=32, slots=8)
  ).lock(), str(tmp_path))
  part, = json.loads((tmp_path / 'plan.json').read_text('utf-8'))['parts']
  assert part['decoding_steps'] == 2 * 32  # 16 responses
  kept = part['memory']['kinds']['keys and values']
  assert kept == 2 * 3 * 2 * 8 * 32 * 4  # of one response on each device
  weights = 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 32 * 64
  products = 2 * 32 * 2 * weights
  assert products < part['rows'][1]['flops'] < 1.5 * products


def test_a_mean_length_is_expected(planned, tmp_path):
  """Of slots, and of rows that several responses share."""
  config = _config()
  config.rl.update(group=4, slots=8, packed_rows=1, micro_batch=8)
  config.plan.mean_response_tokens = 6
  said = planned(config, str(tmp_path))
  made = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  steps = made['parts'][0]['decoding_steps']
  assert 24 <= steps < 4 * 24 and abs(made['step']['tokens'] - 32 * 6) < 9
  assert f'decode: {steps} steps, each a token of all' in said[-1]
  sampling, scoring, update = made['parts']
  assert sampling['model_flops'] == pytest.approx(scoring['model_flops'])
  # A pass has 8 + 24 columns on each device; 4 passes have all responses.
  columns = 2 * (8 + 24) * 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
  passes = scoring['rows'][0]['flops'] / columns
  assert 1 < passes < 3
  assert 3 < update['rows'][0]['flops'] / scoring['rows'][0]['flops'] < 4.2


@pytest.mark.parametrize('config, words', [
    (lambda: _config(), 'at most rl.response_tokens = 24'),
    (lambda: _config('lm'), 'unset in a plan of a stage that samples nothing')])
def test_a_mean_length_that_cannot_be_is_refused(config, words, planned):
  config = config()
  config.plan.mean_response_tokens = 25
  with pytest.raises(errors.ConfigError, match=words):
    planned(config)


def test_a_plan_of_partial_rollouts_is_refused(planned):
  config = _config()
  config.rl.partial_tokens = 8
  with pytest.raises(errors.ConfigError, match='rl.partial_tokens: expected'):
    planned(config)


def test_a_sweep_of_no_machine_is_refused(monkeypatch):
  monkeypatch.setattr(run.backend, 'check_environment', lambda: None)
  config = _config('lm')
  config.plan.sweep = True
  with pytest.raises(errors.ConfigError, match='config.plan.topology'):
    run.run(config, None)


def test_a_machine_without_a_name_is_refused(monkeypatch):
  monkeypatch.setattr(run.backend, 'check_environment', lambda: None)
  config = _config('lm')
  config.plan.topology = ''
  with pytest.raises(errors.ConfigError, match='one of v4'):
    run.run(config, None)


def test_a_stage_without_programs_of_its_own_is_refused():
  config = common.base('collect', collect=dict(a=sections.part('jsonl:x')))
  config.plan.topology = 'h100:8'
  with pytest.raises(errors.ConfigError, match="of kind 'collect'"):
    plan.run(config, None)


def test_a_machine_that_the_mesh_does_not_fit_is_refused(planned):
  config = _config(mesh=dict(tensor=3))
  with pytest.raises(errors.ConfigError, match='config.mesh.tensor'):
    planned(config)


def test_a_model_that_is_not_here_is_not_looked_for(planned, tmp_path):
  config = _config('lm', init_from='nowhere/model')
  planned(config, str(tmp_path))
  assert config.init_from == 'nowhere/model'


def test_what_does_not_fit_is_a_result(monkeypatch):
  """A program whose compilation ends for want of memory, and what helps."""
  config = _config('lm')
  config.plan.topology = 'h100:8'
  machine = topology.parse('h100:8')
  mesh = sharding.make_mesh(config.mesh)
  monkeypatch.setattr(jax.stages.Lowered, 'compile', _exhausted)
  done = list(compiled.stage(config, mesh, machine))
  made = report.make(config, mesh, machine, done)
  assert not made['fits'] and 'step' not in made
  text = report.text(made)
  assert 'update does not fit: Ran out of memory on HBM' in text
  for field in memory.smaller(config):
    assert field.split()[-1] in text.replace('\n', ' ')


def _exhausted(*args, **kwargs):
  raise jax.errors.JaxRuntimeError(
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory ...')


def test_the_largest_buffers_are_read_from_the_compilers_table():
  table = '''
  cumulative_size;       size;       offset; used_by_n_values; shapes_list
  ------------------------------------------------------------
   13.42GiB( 67%);   13.42GiB;            0;                1; f32[60000,60000]
   20.13GiB(100%);    6.71GiB;  14407680000;                1; bf16[60000,60000]
   20.13GiB(100%);   236.0KiB;  21611528192;                2; 2×f32[60000]
'''
  found = compiled.largest_buffers(table)
  assert [shapes for _, shapes in found] == [
      'f32[60000,60000]', 'bf16[60000,60000]', '2×f32[60000]']
  assert found[0][0] == 13.42 * 2**30 and found[2][0] == 236 * 2**10


@pytest.mark.parametrize('sizes, named', [
    (dict(data=8), True), (dict(fsdp=8), False), (None, False)])
def test_parameters_that_lie_whole_on_every_device_are_named(sizes, named):
  mesh = (sharding.make_mesh({}, jax.devices()[:1]) if sizes is None
          else sharding.make_mesh(sizes))
  placed = train_state.place_model(
      presets.PRESETS['smollm2_135m'], mesh, machine_sections.RULES)
  size = 49_152 * 576 * 4
  assert compiled.whole_parameters(placed.params, size) == (
      [('embedding', size)] if named else [])
  assert compiled.whole_parameters(placed.params, size + 1) == []


@pytest.mark.slow
@pytest.mark.parametrize('machine, changes', [
    ('v5e:2x2', ()), ('v4-8', ()), ('v7x:2x2x1', ()),
    ('v5e:2x2', ('rl.slots=16', 'rl.packed_rows=1',
                 'plan.mean_response_tokens=16'))])
def test_a_tpu_is_planned_for_without_one(machine, changes, tmp_path):
  """In a process of its own: libtpu takes its settings once."""
  pytest.importorskip('libtpu', reason='needs the extra tpu')
  done = subprocess.run(
      [sys.executable, '-m', 'r1jax.main', f'--workdir={tmp_path}',
       f'--config=experiments/plan.py:small,{machine}',
       *(f'--config.{change}' for change in changes)],
      env=os.environ | {'XLA_FLAGS': ''}, capture_output=True, text=True,
      check=False)
  assert done.returncode == 0, done.stderr
  made = json.loads((tmp_path / 'plan.json').read_text('utf-8'))
  assert made['fits'] and len(made['parts']) == 3
  assert {x['kind'] for part in made['parts'] for row in part['rows']
          for x in row['collectives']}


def test_another_machine_is_named_after_a_comma():
  assert plans.get_config('small,v6e:4x4').plan.topology == 'v6e:4x4'
  config = plans.get_config('qwen32b_zero,topology=v5p-512')
  assert config.plan.topology == 'v5p-512'
  assert config.mesh.fsdp == -1 and config.mesh.tensor == 4
  for machine in ('v6e:16x16', 'topology=v6e-256'):  # whose chips have less
    assert plans.get_config(f'qwen32b_zero,{machine}').mesh.tensor == 8
