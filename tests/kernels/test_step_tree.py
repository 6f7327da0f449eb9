"""Nodes of a tree of steps against forward passes over the whole text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny
from r1jax.kernels import group_sampling
from r1jax.kernels import step_tree

pytest.importorskip('mctx')

STOPS = (5, 9, 14, 20, 23, 27)
SETTINGS = step_tree.Settings(
    width=4, step_tokens=6, response_tokens=12, eos_ids=(tiny.EOS, 3),
    stop_ids=STOPS, temperature=.9, top_k=0, top_p=1., simulations=5,
    exploration=1.25, least_visits=2)


def _models(**switches):
  models = step_tree.Models(
      tiny.model(**switches), tiny.model(scalar=True, **switches))
  params = step_tree.Models(
      tiny.params(**switches), tiny.params(1, scalar=True, **switches))
  return models, step_tree.Models(*(
      model.prepare(tree) for model, tree in zip(models, params)))


def _keys(prompts, seed=0):
  return group_sampling.sample_keys(
      jnp.uint32(seed), jnp.uint32(2), jnp.asarray(prompts.id), 1)


def _begin(models, params, settings=SETTINGS, prompts=None, seed=0):
  prompts = tiny.prompts() if prompts is None else prompts
  return jax.jit(step_tree.begin, static_argnums=(0, 4))(
      models, params, jax.tree.map(jnp.asarray, prompts),
      _keys(prompts, seed), settings)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _advance(models, params, settings, node, action):
  return step_tree.advance(models, params, settings, node, action)


def _texts(prompts, node):
  """Prompt and steps of each node, one array each."""
  return [np.concatenate([
      prompts.tokens[b, :prompts.length[b]],
      np.asarray(node.tokens)[b, :node.length[b]]])
          for b in range(len(prompts.length))]


@functools.partial(jax.jit, static_argnums=0)
def _states(model, params, tokens):
  rows, length = tokens.shape
  return model.forward(params, tokens, None, jnp.broadcast_to(
      jnp.arange(length), (rows, length)))[0]


def _last_states(model, params, texts):
  """The hidden state at the end of each, of passes over all of them."""
  tokens = np.zeros((16, 24), np.int32)
  for row, text in zip(tokens, texts):
    row[:len(text)] = text
  states = _states(model, params, tokens)
  return [states[n, len(text) - 1] for n, text in enumerate(texts)]


@pytest.mark.parametrize('switches', [{}, dict(scan_layers=False)])
def test_a_node_is_what_a_pass_over_its_whole_text_gives(switches):
  models, params = _models(**switches)
  prompts, node = tiny.prompts(), _begin(models, params)
  rng = np.random.default_rng(0)
  for _ in range(3):
    before, texts = jax.device_get(node), _texts(prompts, node)
    chosen = [(b, w) for b in range(4) for w in range(4) if not before.done[b]]
    step = lambda b, w, x=before: x.steps[b, w, :x.step_length[b, w]]
    states = _last_states(models.policy, params.policy, [
        np.concatenate([texts[b], step(b, w)]) for b, w in chosen])
    tiny.assert_near(
        [before.step_hidden[b, w] for b, w in chosen], states, 1e-4)
    action = rng.integers(SETTINGS.width, size=4)
    node = _advance(models, params, SETTINGS, node, action)
    expected = [
        text if before.done[b] else np.concatenate([text, step(b, action[b])])
        for b, text in enumerate(texts)]
    texts = _texts(prompts, node)
    assert [x.tolist() for x in texts] == [x.tolist() for x in expected]
    # An end token changes no value.
    said = [x[:-1] if x[-1] in SETTINGS.eos_ids else x for x in texts]
    scores = models.value.score(params.value, jnp.stack(
        _last_states(models.value, params.value, said))[None])[0]
    value = np.where([len(x) > n for x, n in zip(said, prompts.length)],
                     jax.nn.sigmoid(scores), .5)
    np.testing.assert_allclose(node.value, value, atol=1e-5)


def test_steps_end_where_they_should_and_paths_at_the_limit():
  models, params = _models()
  node = _begin(models, params)
  ends = {*STOPS, *SETTINGS.eos_ids}
  for _ in range(SETTINGS.response_tokens):
    steps, length = map(np.asarray, (node.steps, node.step_length))
    room = SETTINGS.response_tokens - np.asarray(node.length)
    for b, w in np.ndindex(*length.shape):
      step = steps[b, w, :length[b, w]].tolist()
      assert not steps[b, w, length[b, w]:].any()
      if node.done[b]:
        assert not step and node.drawn[b] == 0
        continue
      assert len(step) == min(SETTINGS.step_tokens, room[b]) or step[-1] in ends
      assert not ends.intersection(step[:-1])
    assert (node.drawn == length.sum(-1)).all()
    node = _advance(models, params, SETTINGS, node, np.ones(4, int))
  assert np.asarray(node.done).all()
  last = np.asarray(node.tokens)[np.arange(4), np.asarray(node.length) - 1]
  assert all(n == 12 or token in SETTINGS.eos_ids
             for n, token in zip(node.length, last))
  again = _advance(models, params, SETTINGS, node, np.zeros(4, int))
  for name in ('tokens', 'length', 'done', 'value', 'prior'):
    np.testing.assert_array_equal(getattr(again, name), getattr(node, name))


def test_equal_steps_are_one_action_of_their_joint_prior():
  steps = np.array([[[4, 5], [4, 0], [4, 5], [6, 0]]])
  prior = step_tree._prior(steps, np.array([[2, 1, 2, 1]]))
  np.testing.assert_allclose(jax.nn.softmax(prior), [[.5, .25, 0, .25]])
  prior = step_tree._prior(steps[:, :, :1] * 0, np.array([[1, 1, 1, 1]]))
  assert prior.tolist() == [[np.log(4, dtype=np.float32)] + 3 * [-np.inf]]
  # 0 is a token, too: a step of one and a step of two of them differ.
  prior = step_tree._prior(np.zeros((1, 2, 2)), np.array([[1, 2]]))
  assert prior.tolist() == [[0., 0.]]


def test_no_token_passes_twice_through_a_model():
  """Of a node all that is computed are its own step and its samples."""
  calls = {'policy': [], 'value': []}

  def noted(name, model):
    def forward(params, tokens, segment, position, *rest):
      jax.debug.callback(
          lambda x: calls[name].append(np.asarray(x)), position, ordered=True)
      return model.forward(params, tokens, segment, position, *rest)
    return model._replace(forward=forward)

  models, params = _models()
  prompts = tiny.prompts((3,))
  models = step_tree.Models(*map(noted, calls, models))
  node = _begin(models, params, prompts=prompts)
  before = at = 3  # tokens before the last step, and with it
  size = SETTINGS.step_tokens
  for taken in range(2):
    jax.effects_barrier()
    if taken == 0:  # the prompt, with its padding, once
      prefill = [calls[name].pop(0).tolist() for name in calls]
      assert prefill == 2 * [[[0, 1, 2, 3, 4]]] and not calls['value']
    else:
      assert [x.tolist() for x in calls['value']] == [
          [list(range(before, before + size))]]
    # A row for each sample, from the first token after the path on.
    longest = int(node.step_length.max())
    assert [x[:, 0].tolist() for x in calls['policy']] == [
        4 * [n] for n in range(at, at + longest)]
    for found in calls.values():
      found.clear()
    before, at = at, at + int(node.step_length[0, 0])
    node = _advance(models, params, SETTINGS, node, np.zeros(1, int))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _searched(models, params, settings, node):
  return step_tree.search(models, params, settings, node)


def _search(prompts, models=None, sizes=None):
  found = models or _models()
  node = _begin(*found, prompts=prompts)
  return jax.device_get(_searched(*found, SETTINGS, node))


def test_a_tree_does_not_depend_on_the_batch():
  prompts, rows = tiny.prompts(), [3, 0]
  whole = _search(prompts)
  part = _search(jax.tree.map(lambda x: x[rows], prompts))
  tiny.assert_near(jax.tree.map(lambda x: x[rows], whole[1]), part[1], 1e-5)
  for name in ('key', 'tokens', 'steps', 'step_hidden'):
    tiny.assert_near(getattr(whole[0], name)[rows], getattr(part[0], name))


def test_a_search_shows_its_nodes_and_goes_on_from_the_best():
  prompts = tiny.prompts()
  models, params = _models()
  root = _begin(models, params)
  best, seen = _search(prompts)
  assert seen.tokens.shape == (4, 6, 12) and seen.visits.shape == (4, 4)
  assert (seen.visits.sum(-1) == 5).all()
  assert (seen.length[:, 0] == 0).all() and (seen.value[:, 0] == .5).all()
  for b in range(4):
    texts = [tuple(tokens[:n]) for tokens, n in zip(
        seen.tokens[b], seen.length[b])]
    mine = tuple(best.tokens[b, :best.length[b]])
    assert mine in texts[1:]
    # Every node but the root goes on from one that was there before it.
    for n, text in enumerate(texts[1:], 1):
      assert any(text[:len(x)] == x for x in texts[:n])
    first = root.steps[b, seen.visits[b].argmax()]
    count = root.step_length[b, seen.visits[b].argmax()]
    assert mine[:count] == tuple(np.asarray(first)[:count])
  # Tokens drawn are those of the samples of all nodes but the root.
  again, more = jax.device_get(_searched(models, params, SETTINGS, best))
  assert (more.drawn[best.done] == 0).all() and more.drawn.sum() > 0
  np.testing.assert_array_equal(
      again.tokens[best.done], best.tokens[best.done])


def test_without_a_value_model_every_node_is_worth_a_half():
  models, params = _models()
  _, seen = _search(tiny.prompts(), (
      models._replace(value=None), params._replace(value=None)))
  assert (seen.value == .5).all()
  # Nothing but the prior leads: all actions have their turn.
  assert ((seen.visits > 0).sum(-1) > 2).all()
