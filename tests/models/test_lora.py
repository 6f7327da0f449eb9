"""LoRA: what is added, where, and that merged it is the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax import errors
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.models import architecture
from r1jax.models import lora

ALL = lora.Settings(rank=2, alpha=3., targets=('*',))
LATENT = dict(
    latent=architecture.Latent(4, 4, 4, 2, 3), head_size=6, kv_heads=4)
MIXED = dict(
    moe=architecture.Experts(4, 2, 6, shared=1, dense_layers=1), layers=3)


def _model(**switches):
  return tiny.model(lora_scale=ALL.scale, **switches)


def _factors(settings=ALL, **switches):
  """Factors of which none is zero."""
  params = tiny.params(**switches)
  shapes = jax.eval_shape(functools.partial(
      lora.init, tiny.config(**switches), settings, params),
                          jax.random.key(0))
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


def _forward(model, params, tokens=np.arange(12).reshape(2, 6)):
  position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  return jax.jit(model.forward)(params, tokens, None, position)[0]


def _paths(factors):
  return {jax.tree_util.keystr(path[1:-1], simple=True, separator='/')
          for path, _ in jax.tree_util.tree_leaves_with_path(factors)}


@pytest.mark.parametrize('switches', [
    {}, LATENT, MIXED, dict(scan_layers=False)])
def test_factors_beside_the_weights_are_factors_merged(switches):
  model, base = _model(**switches), tiny.params(**switches)
  policy = lora.join(base, _factors(**switches))
  beside = _forward(model, policy)
  merged = lora.merge(policy, ALL.scale)
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  np.testing.assert_allclose(beside, _forward(model, merged), atol=1e-4)
  assert np.abs(beside - _forward(model, base)).max() > 0.1


def test_it_begins_as_the_base():
  base = tiny.params()
  factors = lora.init(tiny.config(), ALL, base, jax.random.key(0))
  np.testing.assert_array_equal(
      _forward(_model(), lora.join(base, factors)), _forward(_model(), base))
  a = np.concatenate([x.ravel() for path, x in
                      jax.tree_util.tree_leaves_with_path(factors)
                      if path[-1].key == 'a'])
  assert a.std() > 0.1


def test_one_weight_by_hand():
  base = tiny.params()
  factors = _factors(ALL._replace(targets=('attention/o',)))
  merged = lora.merge(lora.join(base, factors), 1.5)
  a, b = (np.asarray(factors['lora']['blocks']['attention']['o'][x])
          for x in 'ab')
  expected = base['blocks']['attention']['o'] + 1.5 * np.einsum(
      'lHhr,lrD->lHhD', a, b)
  np.testing.assert_allclose(
      merged['blocks']['attention']['o'], expected, rtol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, merged['blocks']['mlp'],
               base['blocks']['mlp'])


def test_patterns_choose_projections():
  chosen = lambda *targets, **switches: _paths(
      _factors(ALL._replace(targets=targets), **switches))
  everything = {f'blocks/attention/{x}' for x in 'qkvo'} | {
      f'blocks/mlp/{x}' for x in ('gate', 'up', 'down')}
  assert chosen('*') == everything
  assert chosen('attention/[qv]', 'mlp/down') == {
      'blocks/attention/q', 'blocks/attention/v', 'blocks/mlp/down'}
  # Routed experts and their router have no factors; what all tokens see has.
  assert chosen('*', **MIXED) >= {'blocks/moe/shared/up',
                                  'dense_blocks/mlp/up'}
  assert not any('router' in path or path.endswith('moe/up')
                 for path in chosen('*', **MIXED))


def test_a_pattern_that_names_nothing_is_refused():
  with pytest.raises(errors.ConfigError,
                     match=r"config.lora.targets.*'attention/qq'.*did you mean "
                     'attention/q'):
    _factors(ALL._replace(targets=('mlp/*', 'attention/qq')))


@pytest.mark.parametrize('switches', [{}, LATENT, dict(scan_layers=False)])
def test_the_sampler_is_the_scorer(switches):
  model = _model(**switches)
  policy = lora.join(tiny.params(**switches), _factors(**switches))
  prompts = tiny.prompts()
  keys = group_sampling.sample_keys(0, 0, prompts.id, 3)
  rollout = jax.jit(functools.partial(
      group_sampling.sample, model, response_tokens=9, eos_ids=(tiny.EOS,),
      temperature=1., chunk=4))(policy, prompts, keys)
  logp, _ = jax.jit(functools.partial(
      logprobs.of_responses, model, temperature=1., chunk=4))(
          policy, prompts, rollout.tokens)
  np.testing.assert_allclose(
      np.where(rollout.mask, logp, 0.), rollout.logp, atol=1e-4)


def test_axes_mirror_the_factors():
  params, model = tiny.params(), tiny.model()
  axes = lora.axes(tiny.config(), ALL, params, model.axes())
  factors = _factors()
  is_axes = lambda x: type(x) is tuple
  assert jax.tree.structure(axes, is_leaf=is_axes) == jax.tree.structure(
      factors)
  jax.tree.map(lambda names, leaf: _same(len(names), leaf.ndim), axes, factors,
               is_leaf=is_axes)


def _same(a, b):
  assert a == b
