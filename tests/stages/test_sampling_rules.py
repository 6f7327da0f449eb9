"""Sampling may place a model otherwise than training, and samples the same."""

import jax
import numpy as np

import tiny
import tiny_rl
from experiments import machine_sections
from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.stages import rollouts
from r1jax.stages import train_state

WHOLE = ('embed', None), ('table', None)


def _placed(rules):
  mesh = sharding.make_mesh(dict(fsdp=4, tensor=2))
  return train_state.place_model(
      tiny.config(), mesh, machine_sections.RULES, sampling_rules=rules)


def _sampled(placed):
  batch = tiny_rl.draw(0, 4)
  return rollouts.Sampler(placed, tiny_rl.SETTINGS)(
      tiny.placed(placed), batch, 0, 0)


def _gathered(placed):
  """The bytes that a device gathers for each token, over fsdp."""
  batch, where = tiny_rl.draw(0, 4), placed.batch
  prompts = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
      rollouts.Prompts(batch.tokens, batch.length, batch.id))
  program = rollouts.jitted_sampling(placed.mesh).lower(
      placed.sampling, tiny_rl.SETTINGS, placed.params, prompts, np.uint32(0),
      np.uint32(0)).compile()
  _, inside = counts.count(
      hlo.parse(program.as_text()), groups.of_mesh(placed.mesh), lambda _: 1)
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


def test_without_rules_of_its_own_it_is_the_same_model():
  placed = _placed(())
  assert placed.sampling is placed.model
