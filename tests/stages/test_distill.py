"""A student nears its teacher, however the batch is cut or placed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import ragged_rows
import tiny
from experiments import sections
from experiments import sft
from r1jax import errors
from r1jax.data import batches
from r1jax.kernels import distillation
from r1jax.parallel import sharding
from r1jax.stages import distill
from r1jax.stages import lm
from r1jax.stages import train_state
from r1jax.training import optim
from r1jax.types import LMBatch

OPTIMIZER = optim.make_optimizer(lr=1e-2, steps=100)
WIDE = dict(layers=1, width=32)  # the teacher's shape is another


def _batch(step):
  rng = np.random.default_rng(1)
  rows = batches.packed(ragged_rows.of(
      [rng.integers(2, 30, size) for size in rng.integers(3, 13, 80)]), 16)
  return LMBatch(*rows.batch(step, 8, 0))


def _teacher(**fields):
  return distill.Teacher(tiny.model(**WIDE), **dict(
      kind='forward', weight=1., temperature=1., top_k=0) | fields)


def _train(steps, sizes=None, micro_batches=1, **fields):
  setup, teaching = tiny.setup(sizes), tiny.setup(sizes, **WIDE)
  abstract = train_state.abstract_state(setup, OPTIMIZER, ref=False)
  state = train_state.state_from_params(
      setup, OPTIMIZER, abstract, tiny.placed(setup))
  teacher = _teacher(**fields)._replace(model=teaching.model)
  update = jax.jit(functools.partial(
      lm.train_step, setup.model, OPTIMIZER, micro_batches, 6, teacher),
                   out_shardings=(train_state.shardings_of(abstract), None))
  weights, history = tiny.placed(teaching, **WIDE), []
  for step in range(steps):
    state, metrics = update(
        state, sharding.from_host(_batch(step), setup.mesh), weights)
    history.append(jax.device_get(metrics))
  return jax.device_get(state), history


@pytest.fixture(name='trained', scope='module')
def _trained():
  return _train(2)


@pytest.mark.parametrize('sizes, micro_batches', [
    (None, 4), (dict(data=2, fsdp=2, tensor=2), 2)])
def test_micro_batches_and_meshes_change_nothing(trained, sizes, micro_batches):
  state, history = _train(2, sizes, micro_batches)
  tiny.assert_near(state.params, trained[0].params)
  tiny.assert_near(history, trained[1], 1e-4)


@pytest.mark.parametrize('kind', ('forward', 'reverse'))
def test_it_nears_its_teacher(kind):
  _, history = _train(60, kind=kind)
  first, *_, last = [row['distill/divergence'] for row in history]
  assert last < first / 2 and history[-1]['loss'] == pytest.approx(last)


def test_the_loss_is_what_the_weight_mixes():
  batch, params = _batch(0), tiny.params()
  batch = batch._replace(weight=batch.weight * np.linspace(
      .5, 1, batch.weight.shape[1], dtype='f'))
  loss = lambda **fields: jax.jit(functools.partial(
      distill.loss, tiny.model(), 6, _teacher(**fields)))(
          params, tiny.params(**WIDE), batch)
  plain, figures = jax.jit(functools.partial(lm.loss, tiny.model(), 6))(
      params, batch)
  alone = loss(weight=0.)[0]
  np.testing.assert_allclose(alone, plain, rtol=1e-6)
  logits = [np.asarray(jax.jit(lambda weights, model=model: model.unembed(
      weights, model.forward(weights, *batch[:3])[0]))(weights))[:, :-1]
            for model, weights in (
                (tiny.model(), params),
                (tiny.model(**WIDE), tiny.params(**WIDE)))]
  logp = jax.nn.log_softmax(logits[0])
  np.testing.assert_allclose(
      figures['lm/entropy'][0],
      -np.sum(batch.weight[:, 1:, None] * np.exp(logp) * logp), rtol=1e-5)
  apart = np.sum(batch.weight[:, 1:] * distillation.divergence(
      *logits, 'reverse', temperature=2., top_k=3))
  (mixed, count), figures = loss(
      kind='reverse', weight=.25, temperature=2., top_k=3)
  np.testing.assert_allclose(mixed, .25 * apart + .75 * plain[0], rtol=1e-5)
  assert count == plain[1]
  np.testing.assert_allclose(
      figures['distill/divergence'][0], apart, rtol=1e-5)
  np.testing.assert_allclose(
      figures['lm/cross_entropy'][0], plain[0], rtol=1e-5)


class _Other:
  """A vocabulary of the same size whose last piece is another."""

  def __init__(self, vocab):
    self.size, self._vocab = vocab.size, vocab

  def token(self, index):
    return 'other' if index == self.size - 1 else self._vocab.token(index)


def _load(length=None, pieces=0, other=False, **fields):
  config = sft.get_config('mini')
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  student = train_state.configured_model(config, mesh)
  shape = student.placed.model.config
  vocab = student.vocabulary(config.vocab)
  return distill.load_teacher(
      sections.distill(**fields), mesh, config.rules,
      length or config.lm.length,
      dataclasses.replace(shape, vocab=shape.vocab + pieces),
      _Other(vocab) if other else vocab)


def test_a_teacher_is_loaded_or_refused(tmp_path):
  teacher, params = _load(
      init_from='mini', kind='reverse', weight=.5, temperature=2., top_k=3)
  assert teacher[1:] == ('reverse', .5, 2., 3) and 'blocks' in params
  for fields in (dict(pieces=1), dict(other=True)):
    with pytest.raises(errors.ConfigError, match="the student's vocabulary"):
      _load(init_from='mini', **fields)
  with pytest.raises(errors.ConfigError, match='config.lm.length: expected at'):
    _load(init_from='mini', length=10 ** 6)
  with pytest.raises(errors.ConfigError, match='config.distill.init_from'):
    _load()
  with pytest.raises(errors.ConfigError, match='config.distill.init_from'):
    _load(init_from=str(tmp_path / 'nowhere'))
