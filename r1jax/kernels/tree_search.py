"""Monte-Carlo tree search as in AlphaZero, over a batch of trees at once.

The tree and the rule by which it grows, PUCT, are those of DeepMind's mctx
(pip install 'r1jax[search]'). What a node is, is up to the caller: a tree of
arrays of which this module reads `value` and `prior`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.types import Array

Node = Any  # arrays [B, ...] with fields `value` and `prior`


def search(root: Node, advance: Callable[[Node, Array], Node], *,
           simulations: int, exploration: float):
  """Grows a tree of `simulations` nodes below each of B roots.

  A simulation goes from the root to a node that has an action not yet taken,
  each time by the action that maximises

    Q(a) + c P(a) sqrt(n) / (1 + n(a))

  (AlphaZero, Silver et al., Science 2018): P is the prior, n and n(a) are the
  visits of the node and of its action, and c is `exploration` and grows with
  log(1 + (n + 1) / 19652). Q(a) is the mean value of all nodes below; of an
  action not yet taken it is that of the node itself (AlphaZero's 0 would lead
  along the first path whose value is high, and past all others). It takes that
  action, and the value of the new node enters the means of all above it. Of
  equal actions the same one is always taken.

  Args:
    root: the B roots. `value` is f32[B], 0 to 1; `prior` f32[B, A], the logits
      of the actions, -inf where there is no such action.
    advance: (nodes, action i32[B]) -> the nodes that these actions lead to. A
      node that has no actions must lead to itself by each.
    simulations: nodes that are added to each tree.
    exploration: c.

  Returns:
    mctx.Tree; its `embeddings` are the nodes, [B, 1 + simulations, ...].
  """
  import mctx  # pylint: disable=g-import-not-at-top
  score = lambda tree, node: jnp.where(
      tree.children_visits[node] > 0, tree.qvalues(node),
      tree.node_values[node])

  def select(key, tree, node, depth=0):
    # mctx knows actions that are invalid at depth 0 alone, and settles what is
    # equal by a key that depends on the place in the batch.
    del key, depth
    no_action = jnp.isneginf(tree.children_prior_logits[node])
    return mctx.muzero_action_selection(
        jax.random.key(0), tree.replace(root_invalid_actions=no_action), node,
        0, pb_c_init=exploration, qtransform=score)

  def expand(params, key, action, node):
    del params, key
    node = advance(node, action)
    return mctx.RecurrentFnOutput(
        reward=jnp.zeros_like(node.value), discount=jnp.ones_like(node.value),
        prior_logits=node.prior, value=node.value), node

  return mctx.search(
      None, jax.random.key(0), root=mctx.RootFnOutput(
          prior_logits=root.prior, value=root.value, embedding=root),
      recurrent_fn=expand, root_action_selection_fn=select,
      interior_action_selection_fn=select, num_simulations=simulations)


def most_visited(tree, least: int) -> Array:
  """The node that the most visited steps lead to from each root, i32[B].

  The first step is always taken, another only if its node has at least `least`
  visits. Of several actions with most visits, that of the highest mean value.
  """
  least = max(least, 1)

  def follow(visits, mean, child):
    def best(node):
      action = jnp.argmax(visits[node] + mean[node] / 2)  # means are at most 1
      return child[node, action], visits[node, action]

    return lax.while_loop(lambda node: best(node)[1] >= least,
                          lambda node: best(node)[0], best(0)[0])

  return jax.vmap(follow)(
      tree.children_visits, tree.children_values, tree.children_index)


def nodes_at(tree, index_B: Array) -> Node:
  """The nodes of these numbers, one of each tree."""
  rows = jnp.arange(index_B.size)
  return jax.tree.map(lambda x: x[rows, index_B], tree.embeddings)
