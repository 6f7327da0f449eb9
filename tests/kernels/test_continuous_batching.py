"""Continuous batching: the samples are the same, and no slot stands idle."""

import collections
import functools
import re

import jax
import numpy as np
import pytest

import tiny
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax.kernels import attention
from r1jax.models import architecture
from r1jax.models import past
from r1jax.parallel import sharding
from r1jax.stages import rollouts

LENGTHS, GROUP, RESPONSE = (3, 5, 1, 4, 2, 5, 3, 4), 3, 12
SETTINGS = rollouts.Settings(GROUP, RESPONSE, (tiny.EOS, 7), .8, chunk=RESPONSE)
LATENT = dict(
    latent=architecture.Latent(
        q_rank=8, kv_rank=4, nope_size=4, rope_size=2, value_size=3),
    head_size=6, kv_heads=4)
EXPERTS = dict(layers=3, moe=architecture.Experts(
    experts=8, active=2, mlp=8, shared=1, groups=4, active_groups=2,
    dense_layers=1))

_slow = functools.partial(pytest.param, marks=pytest.mark.slow)
_sample = jax.jit(rollouts.sample_groups, static_argnums=(0, 1))


@functools.cache
def _rollout(slots=None, sizes=(), switches=(), **changes):
  """A rollout of the tiny model, on the host; without `slots` all at once."""
  setup = tiny.setup(dict(sizes), **dict(switches))
  settings = SETTINGS._replace(slots=slots, **changes)
  return jax.device_get(_sample(
      setup.model, settings, tiny.placed(setup, **dict(switches)),
      sharding.from_host(tiny.prompts(LENGTHS), setup.mesh), np.uint32(0),
      np.uint32(0)))


def _assert_same(slots, sizes=(), switches=None, chunk=RESPONSE, **changes):
  """Every value of every token drawn is that of the plain sampler."""
  switches = tuple((switches or {}).items())
  plain = _rollout(switches=switches, **changes)
  got = _rollout(slots, tuple(dict(sizes).items()), switches, chunk=chunk,
                 **changes)
  np.testing.assert_array_equal(got.tokens, plain.tokens)
  np.testing.assert_array_equal(got.mask, plain.mask)
  # The products of other shapes may be rounded otherwise.
  np.testing.assert_allclose(got.logp, plain.logp, atol=1e-5)
  drawn = plain.mask
  if plain.support is not None:
    np.testing.assert_array_equal(
        got.support.tokens[drawn], plain.support.tokens[drawn])
    np.testing.assert_allclose(
        got.support.mass[drawn], plain.support.mass[drawn], atol=1e-5)
  if plain.experts is not None:
    np.testing.assert_array_equal(got.experts[drawn], plain.experts[drawn])
    np.testing.assert_array_equal(got.prompts.experts, plain.prompts.experts)
  lengths = drawn.sum(1)
  assert lengths.min() < RESPONSE / 3 and lengths.max() == RESPONSE


@pytest.mark.parametrize('slots, chunk', [
    (5, RESPONSE), (5, 4), *(_slow(n, RESPONSE) for n in (1, 2, 16, 23))])
def test_the_samples_do_not_depend_on_the_slots(slots, chunk):
  """Nor on the room that they have at first."""
  _assert_same(slots, chunk=chunk)


@pytest.mark.parametrize('switches, changes', [
    (dict(window=2, global_every=2, rope_theta_local=50., softcap_attention=5.,
          scan_layers=False), dict(top_k=4, top_p=.8, keep_support=True)),
    (LATENT, {}),
    _slow(dict(window=3), dict(top_k=4, top_p=.8, keep_support=True)),
    _slow(LATENT | dict(scan_layers=False), {}),
    _slow(EXPERTS, dict(keep_experts=True)),
    _slow(EXPERTS | dict(scan_layers=False), {}),
    _slow({}, dict(temperature=0.))])
def test_of_every_family_and_with_all_that_is_kept(switches, changes):
  _assert_same(6, switches=switches, **changes)


@pytest.mark.parametrize('switches', [
    dict(window=3), *map(_slow, ({}, dict(scan_layers=False), LATENT))])
def test_a_long_cache_is_read_in_blocks(switches, set_traced):
  """A row's own tokens, in blocks that another row fills and it does not."""
  plain = _rollout(switches=tuple(switches.items()))
  set_traced(attention, 'BLOCK', 5)
  # Traced here alone, by its chunk.
  got = _rollout(6, switches=tuple(switches.items()), chunk=5)
  np.testing.assert_array_equal(got.tokens, plain.tokens)
  np.testing.assert_allclose(got.logp, plain.logp, atol=1e-5)


@pytest.mark.parametrize('slots, sizes, switches', [
    (6, {}, dict(window=3)), _slow(6, {}, dict(scan_layers=False)),
    _slow(6, {}, LATENT), _slow(8, dict(fsdp=4, tensor=2), {}),
    _slow(6, {}, dict(head_size=128)), _slow(8, dict(data=8), EXPERTS)])
def test_what_is_written_after_the_layers_is_read_in_them(
    slots, sizes, switches, set_traced):
  """As on TPUs; also in blocks of a cache."""
  set_traced(past, 'writes_late', lambda place, layout: (
      layout.filled is not None and layout.filled.ndim > 0))
  set_traced(attention, 'BLOCK', 5)
  # Traced here alone, by its chunk.
  _assert_same(slots, sizes, switches, chunk=6)


@pytest.mark.parametrize('sizes, slots, switches', [
    (dict(fsdp=4, tensor=2), 12, {}),
    _slow(dict(data=8), 8, {}),
    _slow(dict(data=8), 16, dict(scan_layers=False)),
    _slow(dict(expert=4, fsdp=2), 8, EXPERTS),
    _slow(dict(data=2, fsdp=2, tensor=2), 8, LATENT | dict(scan_layers=False))])
def test_on_a_mesh_each_device_has_slots_of_its_own(sizes, slots, switches):
  _assert_same(slots, sizes, switches,
               keep_experts='moe' in switches)


def test_a_group_on_several_devices_enters_where_its_prompt_lies():
  prompts = tiny.prompts((3, 5))
  sample = lambda slots, setup: jax.device_get(_sample(
      setup.model, SETTINGS._replace(group=16, slots=slots), tiny.placed(setup),
      sharding.from_host(prompts, setup.mesh, uneven=True), np.uint32(0),
      np.uint32(0)).tokens)
  np.testing.assert_array_equal(
      sample(16, tiny.setup(dict(data=8))), sample(None, tiny.setup()))


def _sizes(lengths, slots, rooms):
  """How many rows of which room there are at each token, by a queue."""
  waiting, left, sizes, longest = list(lengths), [], [], 0
  while waiting or left:
    while waiting and len(left) < slots:
      left.append((waiting.pop(0), 0))
    few = slots // 4
    narrow = not waiting and len(left) <= few
    longest = max(longest, *(index + 1 for _, index in left))
    sizes.append((few, RESPONSE) if narrow else (
        slots, next(room for room in rooms if room >= longest)))
    left = [(n, index + 1) for n, index in left if index + 1 < n]
  return collections.Counter(sizes)


def _counted(model, calls):
  def forward(params, tokens, segment, position, cache=None):
    size = tokens.shape if cache is None else (
        len(tokens), jax.tree.leaves(cache.k)[0].shape[-1])
    jax.debug.callback(lambda: calls.append(size))
    return model.forward(params, tokens, segment, position, cache)
  return model._replace(forward=forward)


@pytest.mark.parametrize('slots', [8, *map(_slow, (1, 3, 17))])
def test_no_slot_is_empty_while_a_response_waits(slots):
  """And none has room for more than is needed so far, rounded up."""
  calls = []
  rollout = _sample(
      _counted(tiny.model(), calls), SETTINGS._replace(slots=slots, chunk=6),
      tiny.params(), tiny.prompts(LENGTHS), np.uint32(0), np.uint32(0))
  jax.effects_barrier()
  lengths = np.sum(rollout.mask, 1)
  calls.remove((len(LENGTHS), 5))  # the prompts
  assert collections.Counter(calls) == _sizes(
      lengths, slots, [6, RESPONSE])
  if slots == 8:
    longest = lengths.reshape(-1, slots).max(1).sum()  # batch by batch
    assert len(calls) < .8 * longest


def test_as_many_slots_as_responses_are_the_plain_sampler():
  text = lambda slots: _sample.lower(
      tiny.model(), SETTINGS._replace(slots=slots), tiny.params(),
      tiny.prompts(LENGTHS), np.uint32(0), np.uint32(0)).as_text()
  assert text(24) == text(None) != text(23)


def test_no_cache_travels():
  """On eight devices nothing but sums goes between them, of the loops' ends."""
  setup = tiny.setup(dict(data=8))
  prompts = sharding.from_host(tiny.prompts(LENGTHS), setup.mesh)
  text = rollouts.jitted_sampling(setup.mesh).lower(
      setup.model, SETTINGS._replace(slots=16), setup.params, prompts,
      np.uint32(0), np.uint32(0)).compile().as_text()
  moved = re.findall(
      r'= (.*) (all-\w+|collective-\w+|ragged-\w+)(?:-start)?\(', text)
  assert {kind for _, kind in moved} == {'all-reduce'}
  assert all(re.fullmatch(r'\(?(pred|s32|u32)\[\].*', x) for x, _ in moved)


def test_slots_that_do_not_divide_over_the_devices_are_refused():
  config = r1_zero.get_config('mini')
  config.mesh.update(data=2, fsdp=4)
  config.rl.slots = 16
  config_lib.check(config, 8)
  config.rl.slots = 12
  with pytest.raises(errors.ConfigError, match='rl.slots: expected a multiple '
                     r'of mesh data\*fsdp\*expert.* = 8, received 12'):
    config_lib.check(config, 8)
