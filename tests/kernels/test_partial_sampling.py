"""Partial rollouts: however often interrupted, the samples are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import group_sampling
from r1jax.kernels import partial_sampling
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.types import Support

LENGTHS, GROUP, RESPONSE = (3, 5, 1, 4, 2, 5, 3, 4), 3, 12
ROWS = len(LENGTHS) * GROUP
STREAMS = np.int32([0, 0, 1, 1, 2, 2, 3, 3])
EOS = tiny.EOS, 7
LATENT = dict(
    latent=architecture.Latent(
        q_rank=8, kv_rank=4, nope_size=4, rope_size=2, value_size=3),
    head_size=6, kv_heads=4)

_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def _empty(top_k=0):
  shape = ROWS, RESPONSE
  return partial_sampling.Drawn(
      jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.zeros(shape),
      Support(jnp.zeros((*shape, top_k), jnp.int32), jnp.zeros(shape))
      if top_k else None, None)


@functools.partial(jax.jit, static_argnums=0, static_argnames=(
    'slots', 'block', 'top_k', 'top_p'))
def _extend(model, params, prompts, due_B, drawn, tokens, wanted,
            age_B=np.arange(len(LENGTHS)), **settings):
  keys = partial_sampling.keys(np.uint32(0), STREAMS, prompts.id, GROUP)
  return partial_sampling.extend(
      model, params, prompts, keys, age_B, due_B, drawn, tokens=tokens,
      wanted=wanted, eos_ids=EOS, temperature=.8, **settings)


@functools.partial(jax.jit, static_argnums=0, static_argnames=(
    'top_k', 'top_p'))
def _plain(model, params, prompts, **truncation):
  keys = partial_sampling.keys(np.uint32(0), STREAMS, prompts.id, GROUP)
  return group_sampling.sample(
      model, params, prompts, keys, response_tokens=RESPONSE, eos_ids=EOS,
      temperature=.8, keep_support=truncation.get('top_k', 0) > 0, **truncation)


def _assert_same(setup, tokens, slots, block=5, switches=None, wanted=99,
                 **truncation):
  """All is drawn in steps; returns how many there were."""
  switches, steps = switches or {}, 0
  params, prompts = tiny.placed(setup, **switches), sharding.from_host(
      tiny.prompts(LENGTHS), setup.mesh)
  plain = _plain(tiny.model(**switches), tiny.params(**switches),
                 tiny.prompts(LENGTHS), **truncation)
  drawn = sharding.from_host(_empty(truncation.get('top_k', 0)), setup.mesh)
  complete = np.zeros(len(LENGTHS), bool)
  none = np.zeros(len(LENGTHS), bool)
  while not complete.all():
    before = np.asarray(drawn.mask).sum(1)
    drawn, complete = _extend(
        setup.model, params, prompts, none, drawn, tokens, wanted, slots=slots,
        block=block, **truncation)
    assert (np.asarray(drawn.mask).sum(1) - before).max() <= tokens
    steps += 1
    assert steps < 99
  mask = np.asarray(plain.mask)
  np.testing.assert_array_equal(drawn.mask, mask)
  np.testing.assert_array_equal(drawn.tokens, plain.tokens)
  np.testing.assert_allclose(drawn.logp, plain.logp, atol=1e-5)
  if plain.support is not None:
    np.testing.assert_array_equal(
        np.asarray(drawn.support.tokens)[mask],
        np.asarray(plain.support.tokens)[mask])
  return steps


@pytest.mark.parametrize('tokens, slots', [
    (3, 5), *(_slow(*pair) for pair in (
      (1, 24), (3, 24), (5, 1), (12, 24), (99, 24)))])
def test_the_samples_do_not_depend_on_the_steps(tokens, slots):
  steps = _assert_same(tiny.setup(), tokens, slots)
  if slots == ROWS:
    assert steps == -(-RESPONSE // min(tokens, RESPONSE))


@pytest.mark.parametrize('switches, truncation', [
    _slow(LATENT | dict(scan_layers=False), {}),
    _slow(dict(window=2, global_every=2, rope_theta_local=50.,
               softcap_attention=5.), dict(top_k=4, top_p=.8)),
    _slow(LATENT, {})])
def test_of_every_family_and_with_what_is_kept(switches, truncation):
  _assert_same(tiny.setup(**switches), 4, 6, 3, switches, **truncation)


def _few(tokens, wanted, due=(), age_B=None):
  """Of a first step: how many tokens there are of each, and what is complete.
  """
  setup, prompts = tiny.setup(), tiny.prompts(LENGTHS)
  drawn, complete = _extend(
      setup.model, tiny.placed(setup), sharding.from_host(prompts, setup.mesh),
      np.isin(np.arange(len(LENGTHS)), due),
      sharding.from_host(_empty(), setup.mesh), tokens, wanted,
      np.arange(len(LENGTHS)) if age_B is None else age_B, slots=5, block=5)
  return np.asarray(drawn.mask).sum(1), np.asarray(complete)


def test_it_ends_as_soon_as_enough_groups_are_complete():
  counts = [_few(99, wanted)[1].sum() for wanted in (1, 3, 99)]
  assert counts[0] < 3 <= counts[1] < 8 == counts[2]


def test_what_is_due_is_drawn_to_its_end():
  lengths, complete = _few(1, 99, due=(6,))
  assert complete[6] and not complete.all()
  assert lengths.max() > 1


def test_the_oldest_go_first():
  lengths, _ = _few(1, 99, age_B=np.arange(len(LENGTHS))[::-1].copy())
  assert np.flatnonzero(lengths).tolist() == [18, 19, 21, 22, 23]
  lengths, _ = _few(1, 99)
  assert np.flatnonzero(lengths).tolist() == [0, 1, 2, 3, 4]
