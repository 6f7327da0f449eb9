"""Tree search against a plain one, on games that are tables of numbers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.kernels import tree_search

pytest.importorskip('mctx')

ROWS, WIDTH, DEPTH = 6, 3, 5
NODES = sum(WIDTH ** n for n in range(DEPTH + 1))


class Game(NamedTuple):
  """Nodes of a tree numbered by level; each row its own tables."""
  index: jax.Array  # i32[B]
  row: jax.Array  # i32[B]
  value: jax.Array
  prior: jax.Array


def _tables(rows, seed=0, ended=.1):
  """Values, priors (at least one action each) and ends of `rows` games."""
  rng = np.random.default_rng(seed)
  value = rng.random((rows, NODES)).astype(np.float32)
  prior = rng.normal(size=(rows, NODES, WIDTH)).astype(np.float32)
  prior[..., 1:][rng.random((rows, NODES, WIDTH - 1)) < .2] = -np.inf
  done = rng.random((rows, NODES)) < ended
  done[:, 0] = False
  done[:, -WIDTH ** DEPTH:] = True
  return value, prior, done


@functools.partial(jax.jit, static_argnums=(2,))
def _grown(tables, row, simulations, exploration):
  value, prior, done = tables

  def at(row, index):
    return Game(index, row, value[row, index], prior[row, index])

  def advance(node, action):
    ended = done[node.row, node.index]
    return at(node.row, jnp.where(
        ended, node.index, node.index * WIDTH + 1 + action))

  tree = tree_search.search(
      at(row, jnp.zeros_like(row)), advance, simulations=simulations,
      exploration=exploration)
  best = [tree_search.most_visited(tree, least) for least in (99, 3, 1)]
  return tree, [tree_search.nodes_at(tree, index).index for index in best]


def _search(tables, rows, simulations, exploration=1.25):
  return jax.device_get(
      _grown(tables, np.array(rows), simulations, exploration))


class _Plain:
  """A node of the plain search; the loop of AlphaZero in words of its paper."""

  def __init__(self, tables, row, index):
    self.tables, self.row, self.index = tables, row, index
    self.total, self.visits, self.children = 0., 0, {}

  def pick(self, c):
    logits = self.tables[1][self.row, self.index].astype(np.float64)
    prior = np.exp(logits - logits.max())
    prior /= prior.sum()
    c += np.log((self.visits + 19652 + 1) / 19652)
    scores = {}
    for a in range(WIDTH):
      child = self.children.get(a)
      total, n = (child.total, child.visits) if child else (self.total, 0)
      q = total / (n or self.visits)
      if prior[a]:
        scores[a] = q + c * prior[a] * np.sqrt(self.visits) / (1 + n)
    return max(scores, key=scores.get)

  def simulate(self, c):
    """Adds a node below; returns its value."""
    value = self.add() if not self.visits else self.child(self.pick(c), c)
    self.total, self.visits = self.total + value, self.visits + 1
    return value

  def add(self):
    return float(self.tables[0][self.row, self.index])

  def child(self, action, c):
    if action not in self.children:
      ended = self.tables[2][self.row, self.index]
      self.children[action] = _Plain(
          self.tables, self.row,
          self.index if ended else self.index * WIDTH + 1 + action)
    return self.children[action].simulate(c)

  def followed(self, least, first=True):
    best = max(self.children.values(), default=None, key=lambda child: (
        child.visits, child.total))
    if best is None or not first and best.visits < least:
      return self
    return best.followed(least, False)


def _flat(node):
  """{path of actions: (game's node, visits, mean)} of a plain tree."""
  found = {(): (node.index, node.visits, node.total / node.visits)}
  for action, child in node.children.items():
    found |= {(action, *path): x for path, x in _flat(child).items()}
  return found


def _flat_of(tree, b, n=0):
  """The same of row `b` of mctx's."""
  found = {(): (tree.embeddings.index[b, n], tree.node_visits[b, n],
                tree.node_values[b, n])}
  for action, child in enumerate(tree.children_index[b, n]):
    if child >= 0:
      found |= {(action, *path): x
                for path, x in _flat_of(tree, b, child).items()}
  return found


@pytest.mark.parametrize('simulations, exploration', [
    (1, 1.25), (24, 1.25), (60, .3), (60, 4.)])
def test_picks_visits_and_values_are_those_of_a_plain_search(
    simulations, exploration):
  tables = _tables(ROWS)
  tree, found = _search(tables, range(ROWS), simulations, exploration)
  for b in range(ROWS):
    root = _Plain(tables, b, 0)
    for _ in range(1 + simulations):
      root.simulate(exploration)
    got, expected = _flat_of(tree, b), _flat(root)
    assert got.keys() == expected.keys()
    for path, (index, visits, mean) in expected.items():
      assert got[path][:2] == (index, visits)
      np.testing.assert_allclose(got[path][2], mean, rtol=2e-5)
    for index, least in zip(found, (99, 3, 1)):
      assert index[b] == root.followed(least).index


def test_a_good_path_behind_a_bad_looking_step_is_found():
  value, prior, done = _tables(ROWS, ended=0.)
  value[:], prior[:] = .5, 0.
  path = [2, 0, 1]  # its first step looks worse than others
  index = [0]
  for action in path:
    index.append(index[-1] * WIDTH + 1 + action)
  value[0, index[1]] = .3
  value[0, index[2:]] = 1.
  done[0, index[-1]] = True
  _, (first, _, last) = _search((value, prior, done), range(ROWS), 60)
  assert (first[0], last[0]) == (index[1], index[-1])
  few, (first, *_) = _search((value, prior, done), range(ROWS), 1)
  assert first[0] != index[1] and few.node_visits.shape == (ROWS, 2)


def test_what_is_no_action_is_never_taken():
  tables = _tables(ROWS, seed=1)
  tree, _ = _search(tables, range(ROWS), 60)
  taken = tree.children_visits > 0
  assert not taken[np.isneginf(tree.children_prior_logits)].any()
  assert taken.sum() > ROWS * 40  # and of the others many are


def test_a_node_that_has_ended_leads_to_itself():
  value, prior, done = _tables(ROWS, seed=2)
  done[:, 1:1 + WIDTH] = True
  tree, _ = _search((value, prior, done), range(ROWS), 24)
  assert tree.embeddings.index.max() <= WIDTH
  assert (tree.node_visits[:, 0] == 25).all()


def test_a_tree_does_not_depend_on_the_others():
  value, prior, done = _tables(ROWS, seed=3)
  prior[:] = 0.  # all ties
  value[:] = .5
  whole, _ = _search((value, prior, done), range(ROWS), 24)
  part, _ = _search((value, prior, done), [4, 2], 24)
  for name in ('children_visits', 'children_index', 'node_values'):
    np.testing.assert_array_equal(
        getattr(whole, name)[[4, 2]], getattr(part, name))
  # Equal actions are taken in turn, none twice before another once.
  visits = np.sort(whole.children_visits[:, 0], -1)
  assert (visits[:, -1] - visits[:, 0] <= 1).all()
