"""Whole responses in shared rows: reference and update are what they were."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import test_routing_replay
import test_split_groups as split
import tiny
import tiny_rl
from experiments import r1_zero
from r1jax import config as config_lib
from r1jax import errors
from r1jax.kernels import values
from r1jax.models import architecture
from r1jax.stages import grpo
from r1jax.stages import micro_batches
from r1jax.stages import ppo
from r1jax.stages import rl
from r1jax.training import accumulate
from r1jax.types import Rollout, Support

B, G, R, K = 4, 6, 9, 3
N = B * G
BASE = tiny_rl.OBJECTIVE._replace(group=G)
PACKED = dict(micro_batch=4, packed_rows=1)
CRITIC = dict(gamma=1., lam=.95, whiten=True, value_clip=.2)
LATENT = dict(latent=architecture.Latent(
    q_rank=None, kv_rank=8, nope_size=4, rope_size=4, value_size=4))
SWITCHES = {
    'plain': {},
    'unrolled, of chunks': dict(scan_layers=False, attention_chunk=4),
    'window': dict(window=3, global_every=2),
    'latent': dict(head_size=8, kv_heads=4, **LATENT),
    'splash': dict(attention_kernel='splash', window=3, global_every=2)}


def _rollout(seed=0, **known) -> Rollout:
  """Responses of 1 to R tokens, most of them short, on a policy's past."""
  rng = np.random.default_rng(seed)
  length = np.minimum(rng.geometric(.5, (N, 1)), R)
  length[::7] = R
  mask = np.arange(R) < length
  tokens = np.where(mask, rng.integers(2, 30, (N, R)), 0).astype(np.int32)
  logp = np.where(mask, rng.normal(-3, .3, (N, R)), 0).astype(np.float32)
  return Rollout(tiny.prompts((3, 5, 1, 4)), tokens, mask, logp, **known)


def _reward():
  reward = np.random.default_rng(1).random((B, G)).astype('f')
  reward[2] = 1.
  return reward.ravel()


@functools.cache
def _learned(objective, switches='plain', support=False):
  """log p of the reference, advantages; gradient and metrics of the update."""
  model = tiny.model(**SWITCHES[switches])
  params = tiny.params(**SWITCHES[switches])
  rollout = _rollout()
  if support:
    kept = np.random.default_rng(2).integers(2, 30, (N, R, K))
    kept[..., 0] = rollout.tokens
    rollout = rollout._replace(support=Support(
        kept.astype(np.int32), np.full((N, R), .7, np.float32)))

  @jax.jit
  def make(params, rollout, reward):
    ref = jax.tree.map(lambda x: .9 * x, params)
    experience, measured = tiny_rl.experience(
        model, objective, ref, rollout, reward, policy=params)
    return experience, measured, accumulate.gradients_of(
        functools.partial(grpo.loss, model, objective), params,
        *grpo.mini_batch(model, objective, experience, 0))

  return jax.device_get(make(params, rollout, _reward()))


def _assert_alike(objective, switches='plain', support=False, **packed):
  packed = objective._replace(**PACKED | packed)
  got, want = (_learned(each, switches, support)
               for each in (packed, objective))
  tiny.assert_near(got, want, 2e-5)
  assert max(map(np.max, jax.tree.leaves(want[2][0]))) > .01


@pytest.mark.parametrize('changes', [
    dict(aggregate='sequence_mean'),
    dict(aggregate='token_mean', drop_equal_groups=True),
    dict(aggregate='constant', surrogate='cispo'),
    dict(ratio='sequence', entropy_bonus=.1),
    dict(correction='sequence_truncate', kl_in='reward', kl='k1'),
], ids=lambda changes: '-'.join(map(str, changes)))
def test_every_objective_is_that_of_a_row_each(changes):
  _assert_alike(BASE._replace(**changes))


@pytest.mark.parametrize('switches', [
    *[*SWITCHES][1:-1], pytest.param('splash', marks=pytest.mark.slow)])
def test_every_attention_is_that_of_a_row_each(switches):
  _assert_alike(BASE, switches)


@pytest.mark.parametrize('size, rows', [(6, 3), (8, 4)])
def test_any_number_of_rows_is_alike(size, rows):
  _assert_alike(BASE, micro_batch=size, packed_rows=rows)


def test_softmaxes_over_the_kept_tokens_are_those_of_a_row_each():
  _assert_alike(BASE, support=True)


def test_mini_batches_are_those_of_a_row_each():
  _assert_alike(BASE._replace(mini_batches=2))


def test_only_what_has_tokens_is_computed():
  """Rows are counted; of what is dropped there is none."""
  rollout = _rollout()
  length = rollout.mask.sum(1).reshape(B, G)
  made = micro_batches.make(rollout, (), 2, 1, None)
  least = -(-length.sum(1) // R)
  assert -(-least.sum() // 2) <= made.count <= -(-(least + 1).sum() // 2)
  assert made.count <= made.most // 2
  seen = [made.take(i)[0] for i in range(made.count)]
  assert sum(part.mask.sum() for part in seen) == length.sum()
  drop = rollout._replace(mask=rollout.mask & (np.arange(N) < G)[:, None])
  some = micro_batches.make(drop, (), 1, 1, None)
  assert least[0] <= some.count <= least[0] + 1
  none = micro_batches.make(
      rollout._replace(mask=rollout.mask & False), (), 2, 1, None)
  assert none.count == 0


def test_a_batch_without_tokens_has_no_gradient():
  objective = BASE._replace(drop_equal_groups=True, **PACKED)
  experience, _ = jax.jit(functools.partial(
      tiny_rl.experience, tiny.model(), objective))(
          tiny.params(), _rollout(), np.ones(N, 'f'))
  grads, metrics = jax.jit(lambda params, experience: accumulate.gradients_of(
      functools.partial(grpo.loss, tiny.model(), objective), params,
      *grpo.mini_batch(tiny.model(), objective, experience, 0)))(
          tiny.params(), experience)
  assert not any(map(np.any, jax.tree.leaves((grads, metrics))))


def test_a_critics_values_and_gradient_are_those_of_a_row_each():
  critic = ppo.Critic(tiny.model(scalar=True), **CRITIC)
  base = BASE._replace(
      advantage='gae', aggregate='token_mean', kl='k1', kl_in='reward')

  def learn(objective):
    @jax.jit
    def make(params, rollout, reward):
      experience, measured = tiny_rl.experience(
          tiny.model(), objective, tiny.params(), rollout, reward, params,
          estimate=functools.partial(ppo.gae, critic),
          values=functools.partial(ppo.values, critic))
      experience = experience._replace(value=experience.value - .1)
      return experience, measured, accumulate.gradients_of(
          functools.partial(ppo.loss, critic), params,
          *grpo.mini_batch(critic.model, objective, experience, 0))
    return jax.device_get(make(
        tiny.params(scalar=True), _rollout(), _reward()))

  tiny.assert_near(learn(base._replace(**PACKED)), learn(base), 2e-5)


def test_replayed_experts_are_those_of_a_row_each():
  """The sampler's, by other biases than the scorer's: some are changed."""
  moe = test_routing_replay.MOE
  model, params = tiny.model(**moe), tiny.params(**moe)
  rollout = test_routing_replay._rollout(True)
  base = tiny_rl.OBJECTIVE._replace(group=3)

  def learn(objective):
    @jax.jit
    def make(params, rollout):
      experience, _ = tiny_rl.experience(
          model, objective, params, rollout, jnp.arange(12.) % 5)
      return accumulate.gradients_of(
          functools.partial(grpo.loss, model, objective), params,
          *grpo.mini_batch(model, objective, experience, 0))
    return jax.device_get(make(params, rollout))

  want = learn(base)
  assert want[1]['policy/experts_changed'] > .01
  got = learn(base._replace(**PACKED))
  for grads, _ in (got, want):  # a prompt counts in each row that has it
    del grads['blocks']['moe']['router_bias']
  tiny.assert_near(got, want, 2e-5)


@pytest.mark.parametrize('sizes, prompts', [
    (dict(data=2, fsdp=4), 8), (dict(data=4), 2)])
def test_a_mesh_takes_the_steps_of_one_device(sizes, prompts):
  """Also where the responses to a prompt lie on several devices."""
  def run(sizes, **changes):
    return tiny_rl.logged(tiny_rl.Run(
        sizes, tiny_rl.OBJECTIVE._replace(**changes),
        draw=lambda number: tiny_rl.draw(number, prompts)), 2)

  state, rows, history = run(sizes, micro_batch=8, packed_rows=1)
  expected, same_rows, metrics = run(None)
  assert rows == same_rows
  tiny.assert_near(state.params, expected.params, 1e-4)
  for name in ('policy/loss', 'kl/ref', 'policy/entropy', 'optim/grad_norm'):
    np.testing.assert_allclose(
        [step[name] for step in history], [step[name] for step in metrics],
        rtol=1e-3, atol=1e-5, err_msg=name)


def test_no_row_leaves_its_device():
  """Parameters are whole on every device here: only sums are exchanged."""
  run = tiny_rl.Run(dict(data=8), tiny_rl.OBJECTIVE._replace(
      micro_batch=8, packed_rows=1))
  assert list(map(split._moved, split._programs(run))) == [[], [], []]


def test_states_before_first_tokens_are_the_prompts():
  """Of the second response of a row, too."""
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  prompts = tiny.prompts((3,))
  of = lambda *row: np.asarray(values.of_states(
      model, params, prompts, jnp.int32([row[0]]), *map(jnp.int32, row[1:])))
  both = of([4, 5, 6, 7, 8, 0], [[1, 1, 2, 2, 2, 0]])
  np.testing.assert_allclose(both[0, :2], of([4, 5])[0], atol=1e-5)
  np.testing.assert_allclose(both[0, 2:5], of([6, 7, 8])[0], atol=1e-5)


def test_a_kernel_without_packed_rows_is_refused():
  config = r1_zero.get_config('mini')
  placed = tiny.setup()
  of = lambda kernel: placed._replace(model=placed.model._replace(
      config=tiny.config(attention_kernel=kernel)))
  with pytest.raises(errors.ConfigError, match=(
      "rl.packed_rows: .*model.attention_kernel='xla'")):
    rl.check_policy(config.rl, of('cudnn'))
  rl.check_policy(config.rl, of('xla'))
  rl.check_policy(config.rl, of('splash'))
  config.rl.response_tokens = 65_537
  with pytest.raises(errors.ConfigError, match='rl.packed_rows: .* 65536'):
    rl.check_policy(config.rl, of('splash'))


@pytest.mark.parametrize('fields, named', [
    (dict(micro_batch=None), 'rl.micro_batch'),
    (dict(micro_batch=48, packed_rows=5), 'rl.micro_batch'),
    (dict(micro_batch=9, packed_rows=9), 'rl.packed_rows: .*rl.group = 8')])
def test_rows_at_once_are_a_multiple_of_packed_rows(fields, named):
  config = r1_zero.get_config('mini')
  config.rl.update({'packed_rows': 1} | fields)
  with pytest.raises(errors.ConfigError, match=named):
    config_lib.check(config, 1)


def test_rows_divide_over_all_devices_that_the_rules_split_a_batch_over():
  config = r1_zero.get_config('mini').unlock()
  config.mesh.update(data=2, context=4)
  config.rl.update(packed_rows=1, micro_batch=4)
  config.rules = [('batch', ('data', 'fsdp', 'expert', 'context')),
                  *[(name, None if name == 'length' else axes)
                    for name, axes in config.rules if name != 'batch']]
  with pytest.raises(errors.ConfigError, match='rl.micro_batch: .* 8, '):
    config_lib.check(config, 8)
  config.rl.micro_batch = 8
  config_lib.check(config, 8)
