"""Trees of reasoning steps: the nodes of tree_search for a language model.

A node is a prompt and the steps taken so far. Its actions are `width` next
steps, sampled when the node is made: the cap on a node's extensions
(DeepSeek-R1, arXiv 2501.12948, 4.2). A step ends with a token that ends a step
or the response, or after so many tokens. Equal steps are one action, and the
prior is the share of the samples that are this step, an estimate of the
policy's probability (Sampled MuZero, arXiv 2104.06303). A node that has ended
leads to itself, and draws nothing.

A node holds the keys and values of its path and of its steps, in the policy,
and of its path in the value model. Those of a child are those of its parent and
of the step that leads to it: no token passes twice through a model. Every
random number is a function of (seed, stream, prompt id, the actions from the
prompt to the node, sample, token).
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from r1jax.kernels import group_sampling
from r1jax.kernels import tree_search
from r1jax.types import Array, Cache, Params, Prompts

# Here also with the batch first.
KeysValues = group_sampling.KeysValues


class Models(NamedTuple):
  """The policy and the value model, or the parameters of both."""
  policy: Any
  value: Any  # scalar: log odds that the response will be right; None: 1/2


class Settings(NamedTuple):
  """How a tree is made; hashable, static under jit."""
  width: int  # W, sampled steps of a node
  step_tokens: int  # J, the longest step
  response_tokens: int  # R, the longest response
  eos_ids: tuple[int, ...]  # tokens that end a response
  stop_ids: tuple[int, ...]  # tokens that end a step
  temperature: float
  top_k: int
  top_p: float
  simulations: int  # nodes that a search adds
  exploration: float  # c of tree_search
  least_visits: int  # of a step that is taken with others, see most_visited


class Node(NamedTuple):
  """B prompts, the steps taken so far, and W samples of the next step."""
  key: Array  # u32[B, ...], of the random numbers of its steps
  prompt_length: Array  # i32[B]
  tokens: Array  # i32[B, R], of the steps taken, 0 after them
  length: Array  # i32[B], tokens of the steps taken
  done: Array  # bool[B], the response has ended or has R tokens
  value: Array  # f32[B], probability that the response will be right
  prior: Array  # f32[B, W], logits, -inf for a step that is sampled before
  drawn: Array  # i32[B], tokens that its samples took
  steps: Array  # i32[B, W, J]
  step_length: Array  # i32[B, W]
  step_hidden: Array  # [B, W, D], which predicts the token after the step
  step_kv: KeysValues  # [B, W, ...], room for J tokens
  kv: KeysValues  # [B, ...], of prompt and steps, with room for P + R + J
  value_kv: KeysValues  # the same in the value model


def begin(models: Models, params: Models, prompts: Prompts, key_B: Array,
          settings: Settings) -> Node:
  """The prompts as nodes: no step is taken, the value is not known.

  Args:
    models: the two.
    params: `model.prepare`d ones, as in all functions here.
    prompts: B prompts.
    key_B: of the random streams, as group_sampling.sample_keys gives them.
    settings: of the tree.
  """
  batch, length = prompts.tokens.shape
  position = jnp.broadcast_to(jnp.arange(length), (batch, length))
  tokens = settings.response_tokens
  size = length + tokens + settings.step_tokens

  def read(model, weights):
    hidden, kv = model.forward(weights, prompts.tokens, None, position)
    return hidden, group_sampling.with_room(_batch_first(kv), size)

  hidden_BPD, kv = read(models.policy, params.policy)
  value_kv = models.value and read(models.value, params.value)[1]
  last_BD = jnp.take_along_axis(
      hidden_BPD, prompts.length[:, None, None] - 1, 1)[:, 0]
  root = Node(
      key=jax.random.key_data(key_B), prompt_length=prompts.length,
      tokens=jnp.zeros((batch, tokens), jnp.int32),
      length=jnp.zeros(batch, jnp.int32), done=jnp.zeros(batch, bool),
      value=jnp.full(batch, .5, jnp.float32), prior=None, drawn=None,
      steps=None, step_length=None, step_hidden=None, step_kv=None, kv=kv,
      value_kv=value_kv)
  return _with_steps(models.policy, params.policy, root, last_BD, settings)


class Seen(NamedTuple):
  """What a search of B trees of M = 1 + simulations nodes shows."""
  tokens: Array  # i32[B, M, R], of each node
  length: Array  # i32[B, M]
  done: Array  # bool[B, M]
  value: Array  # f32[B, M], of the value model
  visits: Array  # i32[B, W], of the root's steps
  mean: Array  # f32[B, W], the mean values below them
  drawn: Array  # i32[B], tokens drawn


def search(models: Models, params: Models, settings: Settings, root: Node
           ) -> tuple[Node, Seen]:
  """Searches from each root, and takes the most visited steps.

  Returns:
    The nodes that they lead to, with the samples of their next steps: the roots
    of the next search. And what was seen on the way.
  """
  tree = tree_search.search(
      root, functools.partial(advance, models, params, settings),
      simulations=settings.simulations, exploration=settings.exploration)
  best = tree_search.nodes_at(
      tree, tree_search.most_visited(tree, settings.least_visits))
  nodes = tree.embeddings
  return best, Seen(
      nodes.tokens, nodes.length, nodes.done, nodes.value,
      tree.children_visits[:, 0], tree.children_values[:, 0],
      nodes.drawn[:, 1:].sum(1))


def advance(models: Models, params: Models, settings: Settings, node: Node,
            action_B: Array) -> Node:
  """The nodes after a step of each: the `advance` of tree_search."""
  rows = jnp.arange(action_B.size)
  step_BJ, hidden_BD, step_kv = jax.tree.map(
      lambda x: x[rows, action_B],
      (node.steps, node.step_hidden, node.step_kv))
  count_B = jnp.where(node.done, 0, node.step_length[rows, action_B])
  length_B = node.length + count_B
  nth = jnp.arange(settings.response_tokens) - node.length[:, None]
  new = (nth >= 0) & (nth < count_B[:, None])
  tokens_BR = jnp.where(new, jnp.take_along_axis(
      step_BJ, jnp.clip(nth, 0, settings.step_tokens - 1), 1), node.tokens)
  last_B = jnp.take_along_axis(step_BJ, _last(count_B)[:, None], 1)[:, 0]
  eos = jnp.isin(last_B, jnp.array(settings.eos_ids, jnp.int32))
  start_B = node.prompt_length + node.length
  value_B, value_kv = node.value, node.value_kv
  if models.value is not None:
    value_B, value_kv = _value(
        models.value, params.value, node, step_BJ, count_B - eos)
  child = node._replace(
      key=_child_keys(node.key, action_B, settings.width), tokens=tokens_BR,
      length=length_B,
      done=node.done | eos | (length_B >= settings.response_tokens),
      value=value_B, kv=_put(node.kv, step_kv, start_B), value_kv=value_kv)
  return _with_steps(models.policy, params.policy, child, hidden_BD, settings)


def _value(model, params: Params, node: Node, step_BJ: Array, count_B: Array
           ) -> tuple[Array, KeysValues]:
  """The value after `count_B` tokens of a step; keys and values with it.

  Without a token it is that of the node: an end token changes no value.
  """
  rows, size = step_BJ.shape
  start_B = node.prompt_length + node.length
  kv = _layers_first(node.value_kv)
  hidden_BJD, new = model.forward(
      params, step_BJ, None, start_B[:, None] + jnp.arange(size),
      Cache(*kv, start_B, *group_sampling.empty_past(*kv, rows, size),
            filled=jnp.zeros((), jnp.int32)))
  last_B1D = jnp.take_along_axis(hidden_BJD, _last(count_B)[:, None, None], 1)
  value_B = jax.nn.sigmoid(model.score(params, last_B1D)[:, 0])
  return (jnp.where(count_B > 0, value_B, node.value),
          _put(node.value_kv, _batch_first(new), start_B))


def _with_steps(model, params: Params, node: Node, hidden_BD: Array,
                settings: Settings) -> Node:
  """The nodes with samples of their next steps.

  `hidden_BD` predicts the first token of each.
  """
  batch, width, size = len(hidden_BD), settings.width, settings.step_tokens
  rows = batch * width
  kv = _layers_first(node.kv)
  start_B = node.prompt_length + node.length
  key_BW = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
      jax.random.wrap_key_data(node.key), jnp.arange(width))
  # A node that has ended has no samples: they have ended before they begin.
  state = group_sampling.SamplingState(
      jnp.zeros((), jnp.int32), jnp.repeat(hidden_BD, width, 0),
      jnp.repeat(node.done, width), jnp.zeros((rows, size), jnp.int32),
      jnp.zeros((rows, size), bool), jnp.zeros((rows, size), jnp.float32),
      *group_sampling.empty_past(*kv, rows, size))
  state = group_sampling.advance(
      model, params, Prompts(None, start_B, None), kv, key_BW.reshape(-1),
      state, size, eos_ids=settings.eos_ids + settings.stop_ids,
      temperature=settings.temperature, top_k=settings.top_k,
      top_p=settings.top_p)
  split = lambda x: x.reshape(batch, width, *x.shape[1:])
  room_B1 = settings.response_tokens - node.length[:, None]
  length_BW = jnp.minimum(split(state.mask.sum(-1)), room_B1)
  steps = jnp.where(
      jnp.arange(size) < length_BW[..., None], split(state.tokens), 0)
  return node._replace(
      prior=_prior(steps, length_BW), drawn=length_BW.sum(-1), steps=steps,
      step_length=length_BW, step_hidden=split(state.hidden),
      step_kv=jax.tree.map(split, _batch_first((state.k, state.v))))


def _prior(steps: Array, length_BW: Array) -> Array:
  """log of how often a step is sampled, f32[B, W]; -inf but at its first."""
  same_BWW = jnp.all(steps[:, :, None] == steps[:, None], -1) & (
      length_BW[:, :, None] == length_BW[:, None])
  first_BW = jnp.argmax(same_BWW, -1) == jnp.arange(steps.shape[1])
  return jnp.where(
      first_BW, jnp.log(same_BWW.sum(-1).astype(jnp.float32)), -jnp.inf)


def _child_keys(key: Array, action_B: Array, width: int) -> Array:
  """The keys of children: other streams than those of samples 0 to W - 1."""
  return jax.random.key_data(jax.vmap(jax.random.fold_in)(
      jax.random.wrap_key_data(key), width + action_B))


def _last(count: Array) -> Array:
  """The index of the last of so many; 0 of none."""
  return jnp.maximum(count - 1, 0)


###############################################################################
# Keys and values. The nodes of a tree have the batch first; models that scan
# their layers have these before it.
###############################################################################


def _batch_first(kv: KeysValues) -> KeysValues:
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1) if x.ndim == 5 else x, kv)


_layers_first = _batch_first  # a swap is its own inverse


def _put(kv: KeysValues, step_kv: KeysValues, start_B: Array) -> KeysValues:
  """Writes those of a step from token `start_B` on, batch first.

  What a step shorter than its room leaves behind its end is written over by the
  next, and seen by nobody before.
  """
  def put(x, y, axis):
    return jax.vmap(lambda x, y, start: lax.dynamic_update_slice_in_dim(
        x, y, start, axis))(x, y, start_B)

  k, v = (jax.tree.map(lambda x, y, a=axis: put(x, y, a), *pair)
          for axis, *pair in ((-1, kv[0], step_kv[0]), (-2, kv[1], step_kv[1])))
  return k, v
