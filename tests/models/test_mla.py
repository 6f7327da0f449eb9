"""Latent attention: what it keeps, and that absorbing changes nothing."""

import dataclasses
import functools

from flax import linen as nn
import jax
import numpy as np
import pytest

import tiny
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.models import architecture
from r1jax.models import layers
from r1jax.models import lora

SIZES = architecture.Latent(q_rank=8, kv_rank=4, nope_size=4, rope_size=2,
                     value_size=3)
SWITCHES = dict(
    latent=SIZES, head_size=6, kv_heads=4, tied=False, vocab=32,
    rope_scaling=architecture.RopeScaling('yarn', 4., 16, mscale=1.,
                                   mscale_all_dim=.5))


@functools.partial(jax.jit, static_argnums=0)
def _sample(model, params, prompts):
  keys = group_sampling.sample_keys(0, 0, prompts.id, 3)
  return group_sampling.sample(
      model, params, prompts, keys, response_tokens=9, eos_ids=(tiny.EOS,),
      temperature=1., chunk=4)


@functools.partial(jax.jit, static_argnums=0)
def _score(model, params, rollout):
  return logprobs.of_responses(model, params, rollout.prompts, rollout.tokens,
                               temperature=1., chunk=4)[0]


def _gradient(sizes):
  """The sum of a rollout's log-probs, and its slopes."""
  rollout = jax.device_get(_sample(
      tiny.model(**SWITCHES), tiny.params(**SWITCHES), tiny.prompts()))
  setup = tiny.setup(sizes, **SWITCHES)
  loss = lambda params: jax.numpy.sum(
      rollout.mask * _score(setup.model, params, rollout))
  return jax.jit(jax.value_and_grad(loss))(tiny.placed(setup, **SWITCHES))


@pytest.fixture(name='on_one', scope='module')
def _on_one():
  return _gradient(None)


@pytest.mark.parametrize('changes', [
    {}, dict(scan_layers=False), dict(attention_chunk=2),
    dict(latent=dataclasses.replace(SIZES, q_rank=None))])
def test_the_absorbed_decode_is_the_unabsorbed_pass(changes):
  """The sampler absorbs, the scorer does not (law 5)."""
  switches = SWITCHES | changes
  model, params = tiny.model(**switches), tiny.params(**switches)
  rollout = _sample(model, params, tiny.prompts())
  logp = _score(model, params, rollout)
  assert rollout.mask.sum() > 60
  np.testing.assert_allclose(
      np.where(rollout.mask, logp, 0.), rollout.logp, atol=1e-5)


def test_factors_of_lora_are_absorbed_with_their_weights():
  settings = lora.Settings(rank=2, alpha=3., targets=('kv_b',))
  model, base = tiny.model(lora_scale=settings.scale, **SWITCHES), tiny.params(
      **SWITCHES)
  params = lora.join(base, jax.tree.map(lambda x: x + .3, lora.init(
      model.config, settings, base, jax.random.key(0))))
  rollout = _sample(model, params, tiny.prompts())
  np.testing.assert_allclose(
      np.where(rollout.mask, _score(model, params, rollout), 0.), rollout.logp,
      atol=1e-5)


def test_the_norms_of_latents_have_the_eps_of_deepseeks_code():
  found = {}

  def look(call, args, kwargs, context):
    if isinstance(context.module, layers.RMSNorm):
      found[context.module.name] = context.module.eps
    return call(*args, **kwargs)

  jax.clear_caches()  # or nothing may be called: a trace is kept
  with nn.intercept_methods(look):
    tiny.model(**SWITCHES).init(jax.random.key(0))
  assert found.pop('q_norm') == found.pop('kv_norm') == 1e-6
  assert found and set(found.values()) == {None}  # the config's


@pytest.mark.parametrize('scan_layers', [True, False])
def test_a_past_is_one_latent_and_one_position_key_a_token(scan_layers):
  switches = SWITCHES | dict(scan_layers=scan_layers)
  prompts = tiny.prompts()
  batch, length = prompts.tokens.shape
  _, (k, v) = jax.jit(tiny.model(**switches).forward)(
      tiny.params(**switches), prompts.tokens, None,
      np.broadcast_to(np.arange(length), (batch, length)))
  assert v is None
  each = (batch, 1, SIZES.kv_rank + SIZES.rope_size, length)
  assert jax.tree.map(np.shape, list(k)) == [each] * tiny.SHAPE['layers']


def test_what_stands_in_the_padding_never_matters():
  model, params = tiny.model(**SWITCHES), tiny.params(**SWITCHES)
  rollouts = [_sample(model, params, tiny.prompts(pad=pad)) for pad in (0, 7)]
  for field in ('tokens', 'logp'):
    np.testing.assert_array_equal(*(getattr(r, field) for r in rollouts))


@pytest.mark.parametrize('sizes', [
    dict(data=2, tensor=4), dict(fsdp=4, tensor=2)])
def test_one_device_is_eight(on_one, sizes):
  """Log-probs and gradients, heads split over `tensor` (law 4)."""
  tiny.assert_near(_gradient(sizes), on_one)
