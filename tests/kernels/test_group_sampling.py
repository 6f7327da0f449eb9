"""Rollouts: whose noise is whose, what ends a response, what is drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import group_sampling
from r1jax.kernels import logprobs
from r1jax.parallel import sharding
from r1jax.types import Prompts

LENGTHS = (3, 5, 1, 4, 2, 5, 3, 4)
GROUP, RESPONSE = 3, 10
SETTINGS = dict(response_tokens=RESPONSE, eos_ids=(tiny.EOS,),
                temperature=0.8, chunk=RESPONSE)


@functools.partial(jax.jit, static_argnames=('model', 'group', 'settings'))
def _jitted(params, prompts, seed, step, model, group, settings):
  keys = group_sampling.sample_keys(seed, step, prompts.id, group)
  return group_sampling.sample(model, params, prompts, keys, **dict(settings))


def _sample(prompts, *, seed=0, step=0, group=GROUP, model=None, params=None,
            **changes):
  return _jitted(params or tiny.params(), prompts, np.uint32(seed),
                 np.uint32(step), model=model or tiny.model(), group=group,
                 settings=tuple((SETTINGS | changes).items()))


@pytest.fixture(name='prompts', scope='module')
def _prompts():
  return tiny.prompts(LENGTHS)


@pytest.fixture(name='rollout', scope='module')
def _rollout(prompts):
  return _sample(prompts)


def _assert_same_samples(got, expected):
  for name in ('tokens', 'mask'):
    np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  np.testing.assert_allclose(got.logp, expected.logp, atol=1e-4)


def _rows(rollout, prompts):
  """The part of a rollout that belongs to these prompts."""
  index = (np.asarray(prompts)[:, None] * GROUP + np.arange(GROUP)).ravel()
  return rollout._replace(tokens=rollout.tokens[index],
                          mask=rollout.mask[index], logp=rollout.logp[index])


def test_the_sampler_is_the_scorer(prompts, rollout):
  logp, _ = jax.jit(lambda tokens: logprobs.of_responses(
      tiny.model(), tiny.params(), prompts, tokens, temperature=0.8, chunk=4))(
          rollout.tokens)
  length = np.sum(rollout.mask, 1)
  assert length.min() < RESPONSE / 2 and length.max() == RESPONSE
  np.testing.assert_allclose(
      np.where(rollout.mask, logp, 0), rollout.logp, atol=1e-4)


def test_eos_is_part_of_the_response_and_nothing_follows_it(rollout):
  for tokens, mask in zip(*map(np.asarray, (rollout.tokens, rollout.mask))):
    length = mask.sum()
    np.testing.assert_array_equal(mask, np.arange(RESPONSE) < length)
    assert tiny.EOS not in tokens[:length - 1]
    assert length == RESPONSE or tokens[length - 1] == tiny.EOS
    np.testing.assert_array_equal(tokens[length:], 0)


def test_padding_with_eos_and_eos_within_a_prompt_are_harmless():
  zeros, ends = (tiny.prompts(LENGTHS, pad=pad) for pad in (0, tiny.EOS))
  for prompts in (zeros, ends):
    prompts.tokens[1, 2] = tiny.EOS
  rollout = _sample(ends)
  _assert_same_samples(rollout, _sample(zeros))
  assert np.sum(rollout.mask[GROUP:2 * GROUP]) > GROUP  # they began at all


def test_the_samples_do_not_depend_on_who_else_is_there(prompts, rollout):
  order = np.random.default_rng(0).permutation(len(LENGTHS))
  permuted = _sample(jax.tree.map(lambda x: x[order], prompts))
  _assert_same_samples(permuted, _rows(rollout, order))
  half = _sample(jax.tree.map(lambda x: x[4:], prompts))
  _assert_same_samples(half, _rows(rollout, np.arange(4, 8)))


def test_the_samples_do_not_depend_on_the_chunks(prompts, rollout):
  _assert_same_samples(_sample(prompts, chunk=3), rollout)  # 3, 6, 10


@pytest.mark.parametrize('sizes', [dict(data=8), dict(fsdp=4, tensor=2)])
def test_the_samples_do_not_depend_on_the_mesh(prompts, rollout, sizes):
  setup = tiny.setup(sizes)
  got = _sample(sharding.from_host(prompts, setup.mesh), model=setup.model,
                params=tiny.placed(setup))
  assert len(got.tokens.sharding.device_set) == 8
  _assert_same_samples(got, rollout)


def test_a_shared_prompt_is_worth_one_repeated_for_its_group(prompts, rollout):
  keys = group_sampling.sample_keys(0, 0, prompts.id, GROUP)
  repeated = jax.tree.map(lambda x: np.repeat(x, GROUP, 0), prompts)
  plain = jax.jit(lambda p: group_sampling.sample(
      tiny.model(), p, repeated, keys, **SETTINGS))(tiny.params())
  _assert_same_samples(plain, rollout)


def test_seed_step_prompt_and_sample_each_change_the_noise(prompts, rollout):
  differ = lambda a, b: np.any(np.asarray(a) != np.asarray(b))
  assert differ(_sample(prompts, seed=1).tokens, rollout.tokens)
  assert differ(_sample(prompts, step=1).tokens, rollout.tokens)
  assert differ(rollout.tokens[0], rollout.tokens[1])
  one = lambda x: np.repeat(x[:1], len(LENGTHS), 0)
  same = Prompts(one(prompts.tokens), one(prompts.length), prompts.id)
  others = _sample(same).tokens.reshape(len(LENGTHS), GROUP, -1)
  assert len(np.unique(others.reshape(-1, RESPONSE), axis=0)) > len(LENGTHS)
  same = _sample(same._replace(id=one(prompts.id))).tokens
  np.testing.assert_array_equal(
      same, np.tile(rollout.tokens[:GROUP], (len(LENGTHS), 1)))


def test_keys_are_distinct_and_a_function_of_their_names():
  ids = np.array([0, 1, 7])
  keys = np.concatenate([
      jax.random.key_data(group_sampling.sample_keys(seed, step, ids, 4))
      for seed in (0, 1) for step in (0, 1)])
  assert len(np.unique(keys, axis=0)) == 2 * 2 * 3 * 4
  few = group_sampling.sample_keys(0, 0, np.array([7]), 2)
  np.testing.assert_array_equal(jax.random.key_data(few), keys[8:10])


@pytest.mark.parametrize('seed, step', [(None, 0), (0, None)])
def test_a_seed_or_step_of_none_is_refused(seed, step):
  with pytest.raises((TypeError, ValueError)):
    group_sampling.sample_keys(seed, step, np.array([0]), 2)


def test_greedy_takes_the_likeliest_token_under_any_seed(prompts):
  rollout = _sample(prompts, temperature=0.)
  np.testing.assert_array_equal(
      rollout.tokens, _sample(prompts, temperature=0., seed=5).tokens)
  position = np.broadcast_to(np.arange(5), (len(LENGTHS), 5))
  model, params = tiny.model(), tiny.params()
  hidden, _ = jax.jit(model.forward)(params, prompts.tokens, None, position)
  logits = model.unembed(params, hidden)
  for b, length in enumerate(LENGTHS):
    assert rollout.tokens[b * GROUP, 0] == jnp.argmax(logits[b, length - 1])


def test_the_loop_ends_when_every_response_has(prompts):
  """A model that says EOS at once is asked for one token, then no more."""
  base, calls = tiny.model(), []

  def forward(params, tokens, *rest):
    jax.debug.callback(lambda: calls.append(tokens.shape))
    return base.forward(params, tokens, *rest)

  says_eos = lambda params, hidden: base.unembed(params, hidden).at[
      ..., tiny.EOS].set(1e4)
  rollout = _sample(prompts, chunk=3, model=base._replace(
      forward=forward, unembed=says_eos))
  jax.effects_barrier()
  np.testing.assert_array_equal(np.sum(rollout.mask, 1), 1)
  np.testing.assert_array_equal(rollout.tokens[:, 0], tiny.EOS)
  assert calls == [(8, 5), (24, 1)]


def test_without_end_tokens_no_response_ends(prompts):
  rollout = _sample(prompts, eos_ids=())
  assert np.all(rollout.mask) and np.any(rollout.tokens == tiny.EOS)


def test_each_of_several_end_tokens_ends_a_response(prompts):
  free, ended = (_sample(prompts, eos_ids=ids) for ids in ((), (tiny.EOS, 7)))
  ends = np.isin(free.tokens, (tiny.EOS, 7))
  before = np.cumsum(ends, 1) - ends
  np.testing.assert_array_equal(ended.mask, before == 0)
  assert {tiny.EOS, 7} <= set(np.array(free.tokens)[ends & (before == 0)])


def _kept(logits, top_k, top_p):
  """The tokens that are sampled among, one at a time: NumPy, by rank."""
  order = np.argsort(-logits, kind='stable')[:top_k or None]
  weight = np.exp(np.float64(logits[order] - logits.max()))
  share = weight / weight.sum()
  count, mass = 0, 0.
  while count < len(order) and (count == 0 or mass < top_p):
    mass += share[count]
    count += 1
  return set(order[:count] if top_p < 1 else order)


def _truncated(rows, top_k, top_p):
  """`truncate`, as sets of tokens; what is kept keeps its logit."""
  rows = np.float32(rows)
  found = np.asarray(group_sampling.truncate(jnp.asarray(rows), top_k, top_p))
  kept = found != -np.inf
  np.testing.assert_array_equal(found[kept], rows[kept])
  return [set(np.flatnonzero(row)) for row in kept]


@pytest.mark.parametrize('top_k, top_p', [
    (0, 1.), (1, 1.), (2, 1.), (5, 1.), (12, 1.), (13, 1.), (2**31 - 1, 1.),
    (0, .3), (0, .62), (0, .9), (0, 1e-6), (3, .5), (5, .9), (1, .1), (99, .7)])
def test_truncation_is_by_rank_as_in_numpy(top_k, top_p):
  """Rows with ties and without, among them ties at the last place."""
  rng = np.random.default_rng(0)
  rows = [*rng.normal(size=(8, 12)), *rng.integers(-2, 3, (24, 12)),
          *np.sort(rng.integers(-1, 2, (4, 12))), np.zeros(12)]
  for row, kept in zip(rows, _truncated(rows, top_k, top_p)):
    assert kept == _kept(np.float32(row), top_k, top_p)


@pytest.mark.parametrize('logits, top_k, top_p, kept', [
    ([0, 0, 0, 0], 1, 1., {0}), ([0, 0, 0, 0], 3, 1., {0, 1, 2}),
    ([0, 1, 1, 1], 2, 1., {1, 2}), ([1, 0, 2, 1, 1], 3, 1., {2, 0, 3}),
    # Each has a quarter.
    ([0, 0, 0, 0], 0, .25, {0}), ([0, 0, 0, 0], 0, .26, {0, 1}),
    ([0, 0, 0, 0], 0, .5, {0, 1}), ([0, 0, 0, 0], 0, .99, {0, 1, 2, 3}),
    # Of the first three, each has a third.
    ([0, 0, 0, 0], 3, .6, {0, 1}), ([-9, 0, 0, 0], 0, 1e-9, {1}),
    # Of twelve, 8 have 8/12, whatever their sum is rounded to.
    ([0] * 12, 0, 8 / 12, set(range(8))),
    ([-np.inf, 0, -np.inf, 0], 3, 1., {1, 3}), ([0, -0., 0], 1, 1., {0})])
def test_truncation_by_hand(logits, top_k, top_p, kept):
  assert _truncated([logits], top_k, top_p) == [kept]


def test_ties_draw_only_the_first():
  """Four equally likely tokens, a thousand draws."""
  keys = jax.random.split(jax.random.key(0), 1000)
  drawn = lambda **how: set(np.asarray(group_sampling.draw(
      jnp.zeros((1000, 4)), keys, 0, temperature=.7, **how)[0]).tolist())
  assert drawn(top_k=1, top_p=1.) == {0}
  assert drawn(top_k=2, top_p=1.) == drawn(top_k=0, top_p=.5) == {0, 1}
  assert drawn(top_k=0, top_p=1.) == {0, 1, 2, 3}


def test_a_draw_has_its_probability():
  """Chi-squared of 20,000 draws over blocks of tokens, below its 99.9 %."""
  logits = np.random.default_rng(1).normal(size=11).astype('f')
  count = 20_000
  token, logp = group_sampling.categorical(
      jnp.tile(logits, (count, 1)), jax.random.uniform(
          jax.random.key(3), (count, 2)))
  expected = np.exp(logits) / np.exp(logits).sum()
  np.testing.assert_allclose(logp, np.log(expected)[token], atol=1e-5)
  seen = np.bincount(token, minlength=11)
  assert ((seen - count * expected) ** 2 / (count * expected)).sum() < 29.6


@pytest.mark.parametrize('vocab', [1, 2, 3, 5, 16, 17])
def test_the_ends_of_the_uniforms_are_the_ends_of_the_vocabulary(vocab):
  ends = jnp.array([[0., 0.], [1 - 2**-24, 1 - 2**-24]])
  logits = jnp.zeros((2, vocab))
  token, _ = group_sampling.categorical(logits, ends)
  assert token.tolist() == [0, vocab - 1]
  shut = logits.at[:, 0].set(-jnp.inf).at[:, -1].set(-jnp.inf)
  if vocab > 2:
    token, logp = group_sampling.categorical(shut, ends)
    assert token.tolist() == [1, vocab - 2]
    np.testing.assert_allclose(logp, -np.log(vocab - 2), rtol=1e-5)


def test_the_cache_doubles_to_the_response():
  assert group_sampling.cache_sizes(10, 3) == [3, 6, 10]
  assert group_sampling.cache_sizes(8, 2) == [2, 4, 8]
  assert group_sampling.cache_sizes(4, 9) == [4]
