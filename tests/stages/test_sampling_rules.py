"""Sampling may place a model otherwise than training, and samples the same."""

import re

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import machine_sections
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.stages import rollouts
from r1jax.stages import train_state

WHOLE = ('embed', None), ('table', None)
# As DeepSeek-V3: experts of two layers, latent attention.
EXPERTS = dict(
    layers=3, head_size=6, kv_heads=4,
    latent=architecture.Latent(4, 4, 4, 2, 3), moe=architecture.Experts(
        experts=8, active=3, mlp=8, shared=1, groups=4, active_groups=2,
        dense_layers=1))
# Of all devices: responses, and experts over two axes or one.
WIDE = (*WHOLE, ('latent', None), ('expert_embed', None), ('length', None),
        ('batch', ('data', 'fsdp', 'expert', 'context')))
OVER = dict(context=('expert', 'context'), fsdp=('fsdp', 'expert'))


def _placed(rules, sizes=None, **switches):
  mesh = sharding.make_mesh(sizes or dict(fsdp=4, tensor=2))
  return train_state.place_model(tiny.config(**switches), mesh,
                                 machine_sections.RULES, sampling_rules=rules)


def _sampled(placed, **switches):
  batch = tiny_rl.draw(0, 4)
  return rollouts.Sampler(placed, tiny_rl.SETTINGS)(
      tiny.placed(placed, **switches), batch, 0, 0)


def _program(placed):
  batch, where = tiny_rl.draw(0, 4), placed.batch
  prompts = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
      rollouts.Prompts(batch.tokens, batch.length, batch.id))
  return rollouts.jitted_sampling(placed.mesh).lower(
      placed.sampling, tiny_rl.SETTINGS, placed.params, prompts, np.uint32(0),
      np.uint32(0)).compile()


def _gathered(placed):
  """The bytes that a device gathers for each token, over fsdp."""
  _, inside = counts.count(
      hlo.parse(_program(placed).as_text()), groups.of_mesh(placed.mesh),
      lambda _: 1)
  return sum(size for (kind, group), (size, _) in inside.sent.items()
             if kind == 'all-gather' and 'fsdp' in str(group))


def test_samples_are_those_of_the_trainings_rules():
  samples, same = _sampled(_placed(())), _sampled(_placed(WHOLE))
  np.testing.assert_array_equal(samples.tokens, same.tokens)
  np.testing.assert_allclose(samples.logp, same.logp, atol=1e-6)
  assert samples.tokens.sharding == same.tokens.sharding


def test_whole_weights_are_not_gathered_for_every_token():
  assert _gathered(_placed(())) > 1000
  assert _gathered(_placed(WHOLE)) == 0


@pytest.fixture(name='of_experts', scope='module')
def _of_experts():
  """The samples of a mixture of experts on one device."""
  return _sampled(tiny.setup(**EXPERTS), **EXPERTS)


@pytest.mark.parametrize('over', OVER)
def test_samples_of_a_batch_and_experts_over_all_devices(over, of_experts):
  """Also over axes that split neither in training; and they come back."""
  placed = _placed((*WIDE, ('expert', OVER[over])),
                   dict(fsdp=2, expert=2, context=2), **EXPERTS)
  assert placed.model.place.batch_shards == 4
  assert placed.sampling.place.batch_shards == 8
  samples = _sampled(placed, **EXPERTS)
  np.testing.assert_array_equal(samples.tokens, of_experts.tokens)
  np.testing.assert_allclose(samples.logp, of_experts.logp, atol=1e-5)
  assert samples.tokens.sharding == placed.batch


def test_each_device_samples_its_own_responses_with_its_own_experts():
  """What a device computes of a batch, an expert and a cache is an eighth."""
  placed = _placed((*WIDE, ('expert', OVER['context'])),
                   dict(fsdp=2, expert=2, context=2), **EXPERTS)
  text = _program(placed).as_text()
  rows = 4 * tiny_rl.GROUP // 8
  latent = EXPERTS['latent'].kv_rank + EXPERTS['latent'].rope_size
  assert f'f32[3,{rows},1,{latent},{tiny_rl.RESPONSE}]' in text  # its cache
  assert 'f32[2,2,16,8]' in text  # its experts' gates, of two layers
  assert not re.search(r'f32\[(2,)?(4|8),16,8\]', text)  # never more of them


def test_a_dense_model_beside_one_with_experts_samples_the_same():
  """As a judge does: over the axis `expert`, its responses alone are split."""
  alone, over = (_sampled(tiny.setup(sizes)) for sizes in (
      None, dict(fsdp=2, expert=4)))
  np.testing.assert_array_equal(alone.tokens, over.tokens)
  np.testing.assert_allclose(alone.logp, over.logp, atol=1e-5)


def test_without_rules_of_its_own_it_is_the_same_model():
  placed = _placed(())
  assert placed.sampling is placed.model
