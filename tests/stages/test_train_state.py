"""The optimizer's state: what a section makes of it, saved, placed, resumed."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from experiments import common
from r1jax import errors
from r1jax.stages import train_state
from r1jax.training import checkpoint
from r1jax.training import moments
from r1jax.training import optim

FLOAT, HALF = ({'w': jnp.ones((2, 2), dtype), 'bias': jnp.ones(2)}
               for dtype in ('float32', 'bfloat16'))


def _optimizer(params, updates=9, field='optim', **values):
  return train_state.optimizer(common.optim(**values), updates, params, field)


def test_what_bfloat16_rounds_away_is_said(capsys):
  _optimizer(FLOAT)
  _optimizer(HALF, master_weights=True)
  _optimizer(HALF, updates=0)
  # A router's bias has steps of its own, and is not trained by AdamW.
  _optimizer(FLOAT | {'router_bias': jnp.ones(2, jnp.bfloat16)})
  assert not capsys.readouterr().out
  _optimizer(HALF, field='critic.optim')
  assert capsys.readouterr().out == (
      'config.critic.optim.master_weights is False: parameters are bfloat16, '
      'where an update of less than 1/256 of a parameter may be rounded away\n')


def test_master_weights_of_float32_are_refused():
  with pytest.raises(errors.ConfigError, match=(
      'config.critic.optim.master_weights: expected False: .*float32 already')):
    _optimizer(FLOAT, field='critic.optim', master_weights=True)


def test_a_warm_up_beyond_the_run_names_its_section():
  for kind in ('constant', 'cosine'):
    with pytest.raises(errors.ConfigError,
                       match='config.critic.optim.warmup_steps'):
      _optimizer(FLOAT, field='critic.optim', schedule=kind, warmup_steps=9)


def test_random_parameters_are_those_of_the_seed():
  placed = tiny.setup()
  first, again, other = (
      jax.tree.leaves(train_state.init_params(placed, None, seed))
      for seed in (1, 1, 2))
  assert all(map(np.array_equal, first, again))
  assert not all(map(np.array_equal, first, other))


MESH = dict(fsdp=4, tensor=2)


@pytest.mark.parametrize('sizes, fields', [
    (None, dict()), (MESH, dict()),
    (MESH, dict(first_moment='bfloat16', second_moment='factored')),
    (MESH, dict(b1=0., second_moment='factored', offload=True)),
    (None, dict(first_moment='bfloat16', second_moment='bfloat16',
                offload=True))])
def test_a_run_with_master_weights_resumes_bitwise(
    tmp_path, monkeypatch, sizes, fields):
  monkeypatch.setattr(moments, 'FACTORED_SIZE', 4)
  placed = tiny.setup(sizes, param_dtype='bfloat16')
  optimizer = _optimizer(
      placed.trained, lr=1e-3, master_weights=True, **fields)
  abstract = train_state.abstract_state(placed, optimizer, ref=False)
  params = jax.tree.map(
      lambda x, shape: jax.device_put(x.astype(shape.dtype), shape.sharding),
      tiny.params(), placed.params)
  state = train_state.state_from_params(placed, optimizer, abstract, params)
  shape = lambda tree: jax.tree.map(
      lambda x: (x.shape, x.dtype, x.sharding), tree)
  assert shape(state) == shape(abstract)
  jax.tree.map(lambda master, param: np.testing.assert_array_equal(
      master, param.astype(jnp.float32)), state.opt_state.weights, state.params)

  @functools.partial(jax.jit, donate_argnums=0,
                     out_shardings=train_state.shardings_of(abstract))
  def update(state):
    grads = jax.tree.map(lambda x: jnp.sin(x.astype(jnp.float32)), state.params)
    return optim.update(optimizer, grads, state)[0]

  state = update(state)._replace(step=jax.device_put(
      jnp.int32(1), abstract.step.sharding))
  copied = jax.tree.map(np.array, state)
  with contextlib.closing(checkpoint.Checkpointer(
      tmp_path / 'checkpoints', keep=1)) as saved:
    saved.save(1, state)
    after = update(state)  # while it is written
    saved.wait()
    restored, step = saved.restore_latest(abstract)
  assert step == 1 and shape(restored) == shape(abstract) == shape(after)
  jax.tree.map(np.testing.assert_array_equal, restored, copied)
  jax.tree.map(np.testing.assert_array_equal, update(restored), after)
  # Unlike the rounded parameters, their masters are between bfloat16's numbers.
  assert any((master != param.astype('float32')).any() for master, param in zip(
      *map(jax.tree.leaves, (copied.opt_state.weights, copied.params))))


def test_moments_that_an_earlier_version_kept_in_bfloat16_go_on(tmp_path):
  placed = tiny.setup(None, param_dtype='bfloat16')
  optimizer = _optimizer(placed.trained, lr=1e-3)
  abstract = train_state.abstract_state(placed, optimizer, ref=False)
  state = jax.tree.map(
      lambda x: jax.device_put(jnp.full(x.shape, 1/3, x.dtype), x.sharding),
      abstract)
  half = lambda x: x.astype('bfloat16') if x.dtype == jnp.float32 else x
  old = state._replace(opt_state=jax.tree.map(half, state.opt_state))
  with contextlib.closing(checkpoint.Checkpointer(
      tmp_path / 'checkpoints', keep=1)) as saved:
    saved.save(0, old)
    saved.wait()
    restored, _ = saved.restore_latest(abstract)
  exact = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
  jax.tree.map(np.testing.assert_array_equal, exact(restored), exact(old))
  assert jax.tree.map(lambda x: (x.dtype, x.sharding), restored) == (
      jax.tree.map(lambda x: (x.dtype, x.sharding), abstract))


def test_what_cannot_be_factored_or_followed_is_refused_by_its_field():
  with pytest.raises(errors.ConfigError, match=(
      "config.critic.optim.second_moment: expected 'float32': no matrix that "
      "is trained has two sides of 128, received 'factored'")):
    _optimizer({'w': jnp.ones((3, 2, 200))}, field='critic.optim',
               second_moment='factored')
  large = {'w': jnp.ones((128, 200))}
  _optimizer(large, second_moment='factored', b2=.999)
  with pytest.raises(errors.ConfigError, match='config.critic.optim.b2'):
    _optimizer(large, field='critic.optim', second_moment='bfloat16', b2=.999)
  assert _optimizer(large, offload=True).offload == ('dense_blocks', 'blocks')
