"""Ways to cut a stage's work, ranked; the plans of a model of their costs."""

import pytest

from experiments import common
from experiments import plan as plans
from r1jax import config as config_lib
from r1jax import errors
from r1jax.plan import sweep
from r1jax.plan import topology

MACHINE = topology.parse('h100:4')


def _plan(memory, seconds):
  """config -> a plan whose figures are functions of the config."""
  def make(config):
    config_lib.check(config, MACHINE.devices)
    if config.mesh.tensor == 2:
      raise errors.expected('mesh.tensor', 'a divisor of 9 heads', 2)
    gib = memory(config)
    return {'fits': gib < 10, 'step': {'seconds': seconds(config), 'mfu': .1},
            'parts': [{'memory': {'total': gib * 2**30}}]}
  return make


def _run(memory, seconds, mean=None):
  said, config = [], plans.small()
  config.plan.mean_response_tokens = mean
  ways = sweep.run(config, _plan(memory, seconds), said.append)
  return ways, said


def test_each_kind_is_tried_from_the_best_before():
  ways, said = _run(
      lambda config: 4.,
      lambda config: (10 + config.mesh.tensor + 1 / config.rl.micro_batch
                      + (config.model.get('remat') == 'full')))
  assert len(ways) == len(said) == len({str(way) for way, _ in ways})
  best, made = ways[0]
  assert best['mesh.tensor'] == 1 and best['model.remat'] == 'dots'
  assert best['rl.micro_batch'] == 32  # 64 and more do not divide 8 x 4
  seconds = [made['step']['seconds'] for _, made in ways]
  assert seconds == sorted(seconds)


def test_slots_are_tried_where_responses_are_of_other_lengths():
  """Of 32 responses, on 4 devices: a slot of each is the least."""
  seconds = lambda config: 5. + (config.rl.slots or 32)
  tried = lambda mean: {way.get('rl.slots') for way, _ in _run(
      lambda config: 4., seconds, mean)[0]}
  assert tried(None) == {None}
  assert tried(32) == {None, 16, 8, 4}


def test_what_does_not_fit_comes_last_and_leads_nowhere():
  ways, said = _run(
      lambda config: 20. / config.mesh.tensor + (
          50 if config.model.remat == 'dots' else 0),
      lambda config: 5. + config.mesh.tensor)
  fits = [made['fits'] for _, made in ways]
  assert fits == sorted(fits, reverse=True) and not fits[-1]
  assert ways[0][0]['mesh.tensor'] > 2
  assert any('does not fit' in words for words in said)


def test_what_is_refused_is_no_way():
  tried, _ = _run(lambda config: 1., lambda config: 1.)
  # Not 2, and not 8 on a machine of 4; the micro-batch divides 32 responses.
  assert {way['mesh.tensor'] for way, _ in tried} == {1, 4}
  assert {way.get('rl.micro_batch', 16) for way, _ in tried} <= {4, 8, 16, 32}


def test_where_nothing_is_possible_the_first_error_is_told():
  config = sweep.changed(plans.small(), {'rl.mini_batches': 3})
  with pytest.raises(errors.ConfigError, match='rl.prompts'):
    sweep.run(config, _plan(lambda _: 1., lambda _: 1.), print)


def test_a_field_that_the_model_has_of_its_preset_can_be_changed():
  config = plans.distillation('qwen2.5_14b', 'qwen2.5_14b', 'v5p:4x4x4')
  assert 'remat' not in config.model
  assert sweep.changed(config, {'model.remat': 'dots'}).model.remat == 'dots'
  assert 'remat' not in config.model


def test_a_stage_that_only_samples_has_a_mesh_alone():
  config = common.base(
      'sample', model=common.model(preset='smollm2_135m', remat='full'),
      rl=plans.sections.sampling(prompts=8))
  config.mesh.tensor = 4
  ways = sweep.run(config, _plan(lambda _: 1., lambda _: 1.), print)
  assert [way for way, _ in ways[:2]] == [
      {'mesh.tensor': tensor, 'mesh.fsdp': -1} for tensor in (4, 1)]
