"""The tiny model trained on rows of preferences or of steps, in memory."""

import functools

import jax

import tiny
from r1jax.parallel import sharding
from r1jax.stages import preference
from r1jax.stages import train_state
from r1jax.training import optim
from r1jax.types import Preferences

OPTIMIZER = optim.make_optimizer(lr=1e-2, steps=100)


@functools.cache
def _update(objective, sizes):
  """A model on a mesh of `sizes`, its abstract state, and the jitted step."""
  setup = tiny.setup(dict(sizes), scalar=True)
  abstract = train_state.abstract_state(setup, OPTIMIZER, ref=False)
  step = functools.partial(
      preference.train_step, setup.model, OPTIMIZER, objective)
  return setup, abstract, jax.jit(step, donate_argnums=0, out_shardings=(
      train_state.shardings_of(abstract), None))


def train(rows, steps, objective, sizes=None):
  """The state after some steps of 8 rows, the metrics of each, the setup."""
  setup, abstract, update = _update(objective, tuple((sizes or {}).items()))
  state = train_state.state_from_params(
      setup, OPTIMIZER, abstract, tiny.placed(setup, scalar=True))
  history = []
  for step in range(steps):
    batch = Preferences(*rows.batch(step, 8, 0))
    state, metrics = update(state, sharding.from_host(batch, setup.mesh))
    history.append(jax.device_get(metrics))
  return state, history, setup
