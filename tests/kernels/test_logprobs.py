"""Log-probabilities in chunks and over shared prompts against plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import logprobs

TEMPERATURE = 0.7
TOKENS = np.random.default_rng(0).integers(0, tiny.SHAPE['vocab'], (2, 9))
POSITION = np.broadcast_to(np.arange(9), (2, 9))


def _log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  logits = logits - logits.max(-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_of_logits_by_hand():
  logits = jnp.log(jnp.array([[.5, .25, .25], [1., 1., 1.]]))
  logp, entropy = logprobs.of_logits(logits + 3., jnp.array([0, 2]))
  np.testing.assert_allclose(logp, np.log([.5, 1 / 3]), rtol=1e-6)
  # .5 ln 2 + 2 * .25 ln 4, and ln 3.
  np.testing.assert_allclose(entropy, [1.5 * np.log(2), np.log(3)], rtol=1e-6)


def test_the_entropy_carries_no_gradient():
  gradient = jax.grad(lambda x: logprobs.of_logits(x, jnp.int32(0))[1])
  np.testing.assert_array_equal(gradient(jnp.array([1., 2., 4.])), 0)


def _gradient(function, params, weight):
  """Of the weighted sum of log p, by all parameters; and both outputs."""
  def total(params):
    outs = function(params)
    return jnp.sum(weight * outs[0]), outs
  return jax.jit(jax.grad(total, has_aux=True))(params)


def _of_sequences(params, chunk, temperature=TEMPERATURE):
  return logprobs.of_sequences(
      tiny.model(), params, TOKENS, None, POSITION, chunk=chunk,
      temperature=temperature)


def test_chunks_change_neither_values_nor_gradients():
  model, params = tiny.model(), tiny.params()
  weight = np.random.default_rng(1).normal(size=TOKENS.shape)

  def naive(params):
    hidden, _ = model.forward(params, TOKENS, None, POSITION)
    logits = model.unembed(params, hidden[:, :-1]) / TEMPERATURE
    logp = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(logp) * logp, -1)
    logp = jnp.take_along_axis(logp, TOKENS[:, 1:, None], -1)[..., 0]
    shift = lambda x: jnp.pad(x, ((0, 0), (1, 0)))
    return shift(logp), shift(entropy)

  expected = _gradient(naive, params, weight)
  for chunk in (3, 100):  # of 8 positions: 3 leaves a rest
    got = _gradient(lambda p, c=chunk: _of_sequences(p, c), params, weight)
    tiny.assert_near(got, expected)


@pytest.mark.parametrize('chunk, products', [(8, 3), (9, 3), (4, 4)])
def test_logits_are_computed_twice_only_where_that_holds_less(chunk, products):
  """Forward, and for both gradients; of several chunks once more."""
  head, hidden = np.ones((5, 7), 'f'), np.ones((2, 8, 5), 'f')
  def total(head, hidden):
    return jnp.sum(logprobs.of_hidden(
        lambda head, x: x @ head, head, hidden, np.zeros((2, 8), int),
        temperature=1., chunk=chunk)[0])
  text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(head, hidden))
  assert text.count('dot_general[') == products


def test_a_value_sits_at_its_token_and_index_0_holds_0():
  model = tiny.model()
  logp, entropy = jax.jit(lambda p: _of_sequences(p, 4, 1.))(tiny.params())
  expected = _log_softmax(jax.jit(lambda p: model.unembed(p, model.forward(
      p, TOKENS, None, POSITION)[0]))(tiny.params()))
  for b, t in np.ndindex(2, 8):
    before = expected[b, t]
    np.testing.assert_allclose(
        logp[b, t + 1], before[TOKENS[b, t + 1]], atol=1e-5)
    np.testing.assert_allclose(
        entropy[b, t + 1], -np.sum(np.exp(before) * before), atol=1e-5)
  np.testing.assert_array_equal(logp[:, 0], 0)
  np.testing.assert_array_equal(entropy[:, 0], 0)


def test_behind_a_shared_prompt_a_response_follows_the_prompt():
  """Two prompts of 3 and 2 tokens, with responses of 2 and 2, and of 1."""
  tokens = np.concatenate([TOKENS[0], [4]])[None]
  segment = np.array([[3, 3, 3, 4, 4, 5, 5, 6, 6, 7]])
  parent = np.array([[3, 3, 3, 3, 3, 3, 3, 6, 6, 6]])
  position = np.array([[0, 1, 2, 3, 4, 3, 4, 0, 1, 2]])
  model, params = tiny.model(), tiny.params()
  score = jax.jit(functools.partial(logprobs.of_sequences, model, chunk=4))
  got, _ = score(params, tokens, segment, position, parent_BT=parent)
  for place in ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [7, 8, 9]):
    padding = [0] * (5 - len(place))  # seen by none: one shape for all
    alone, _ = score(
        params, tokens[:, place + padding], None, np.arange(5)[None])
    np.testing.assert_allclose(
        got[0, place[1:]], alone[0, 1:len(place)], atol=1e-5)


@pytest.mark.parametrize('length, switches, tile', [
    (6, dict(window=3, global_every=2), 128), (1, {}, 128), (6, {}, 4)])
def test_a_shared_prompt_is_worth_one_repeated_for_its_group(
    length, switches, tile, monkeypatch):
  """Values, and the gradients of all parameters; of rows filled up, too."""
  monkeypatch.setattr(logprobs, '_TILE', tile)
  monkeypatch.setattr(logprobs, '_LONG', {128: 1024, 4: 4}[tile])
  model, params = tiny.model(**switches), tiny.params(**switches)
  prompts, group = tiny.prompts((3, 5, 1)), 2
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, tiny.SHAPE['vocab'], (6, length))
  weight = rng.normal(size=tokens.shape)
  start = np.repeat(prompts.length, group)
  whole = np.repeat(np.pad(prompts.tokens, ((0, 0), (0, length))), group, 0)
  index = start[:, None] + np.arange(length)
  np.put_along_axis(whole, index, tokens, 1)

  def shared(params):
    return logprobs.of_responses(
        model, params, prompts, tokens, temperature=TEMPERATURE, chunk=4)

  def repeated(params):
    position = np.broadcast_to(np.arange(whole.shape[1]), whole.shape)
    outs = logprobs.of_sequences(model, params, whole, None, position, chunk=99,
                                 temperature=TEMPERATURE)
    return tuple(jnp.take_along_axis(x, index, 1) for x in outs)

  tiny.assert_near(_gradient(shared, params, weight),
                   _gradient(repeated, params, weight))


def test_what_stands_behind_a_prompt_does_not_matter():
  model, params = tiny.model(), tiny.params()
  tokens = TOKENS[:, :4]
  score = jax.jit(lambda prompts: logprobs.of_responses(
      model, params, prompts, tokens, temperature=1., chunk=4))
  some, other = (score(tiny.prompts((3, 2), pad=pad)) for pad in (0, 7))
  np.testing.assert_array_equal(some, other)


def test_last_is_the_state_of_each_prompts_last_token():
  prompts = tiny.prompts((3, 5))
  hidden = np.random.default_rng(0).normal(size=(2, 5, 4))
  np.testing.assert_array_equal(
      logprobs.last_states(jnp.asarray(hidden), prompts),
      np.float32([hidden[0, 2], hidden[1, 4]]))
