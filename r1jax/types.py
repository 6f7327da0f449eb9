"""The data that flows through r1jax, and the letters that name its axes.

Shape letters, used as suffixes of array names everywhere (`x_BTD`):

    B prompts    G group (responses a prompt)    N = B * G, group contiguous
    P prompt     R response      T sequence      S keys of an attention
    L layers     D width         F feed-forward  V vocabulary
    H heads      K key/value heads               h head size

A response-shaped value [N, R] sits at its token's own index: entry i belongs
to response token i, the first of which follows the prompt's last token. A
sequence-shaped value [B, T] does the same, so that its index 0, which nothing
precedes, holds 0. A prompt is kept once for its whole group, never repeated.
"""

from typing import Any, NamedTuple

import jax

Array = jax.Array
Params = Any  # a tree of arrays


class Prompts(NamedTuple):
  """Right-padded prompts; `length` alone tells which tokens are real."""
  tokens: Array  # i32[B, P]
  length: Array  # i32[B], 1 <= length <= P
  id: Array  # i32[B], names the prompt's random stream


class Rollout(NamedTuple):
  """A group of responses to each prompt, as the behaviour policy made them."""
  prompts: Prompts
  tokens: Array  # i32[N, R], 0 after the end
  mask: Array  # bool[N, R], true on the response, its EOS included
  logp: Array  # f32[N, R], of the behaviour policy at its temperature


class Experience(NamedTuple):
  """What an update is made from: a rollout and what was learned about it."""
  rollout: Rollout
  reward: Array  # f32[N], less the KL penalty where that is in the reward
  advantage: Array  # f32[N, R]
  old_logp: Array  # f32[N, R], of the policy before this rollout's updates
  ref_logp: Array  # f32[N, R], of the reference; 0 where none is used
  weight: Array  # f32[N], 0 drops a response (DAPO's dynamic sampling)
  value: Array | None = None  # f32[N, R], the critic's before these updates
  target: Array | None = None  # f32[N, R], what its updates aim at


class Cache(NamedTuple):
  """What responses attend to besides themselves: their prompt, their past.

  The prompt's part is shared by its group; the past has a row a response,
  room for S tokens and holds `filled` of them.
  Keys are head size first, see kernels/attention.py.
  A model that does not scan its layers has a tuple of L arrays for each. With
  latent attention keys are (latent, position part), and there are no values.
  """
  prompt_k: Array | tuple[Array, ...]  # [L, B, K, h, P]
  prompt_v: Array | tuple[Array, ...] | None  # [L, B, K, P, h]
  prompt_length: Array  # i32[B]
  k: Array | tuple[Array, ...]  # [L, N, K, h, S]
  v: Array | tuple[Array, ...] | None  # [L, N, K, S, h]
  filled: Array  # i32[]


class LMBatch(NamedTuple):
  """Packed sequences for next-token training."""
  tokens: Array  # i32[B, T]
  segment: Array  # i32[B, T], 0 is padding, documents count from 1
  position: Array  # i32[B, T], restarts with each document
  weight: Array  # f32[B, T], of the loss on predicting this token


class Preferences(NamedTuple):
  """Rows of prompts with graded responses, for a model of scores.

  A row holds up to S prompts, each with up to K responses behind it. Prompts
  and responses are segments, padding is segment 0; a response sees its prompt.
  """
  tokens: Array  # i32[B, T]
  segment: Array  # i32[B, T], parent + 1 + k in response k
  parent: Array  # i32[B, T], (1 + s) (1 + K) in prompt s and its responses
  position: Array  # i32[B, T], goes on from the prompt in each response
  end: Array  # i32[B, S, K], where in T a response's last token stands
  answer: Array  # bool[B, T], true on responses, false on prompts
  grade: Array  # f32[B, S, K], the better response has the greater
  real: Array  # bool[B, S, K], false where there is no such response


class TrainState(NamedTuple):
  """All that changes while training, and all that a checkpoint holds."""
  step: Array  # i32[], optimizer steps of the stage's loop taken
  params: Params
  opt_state: Any
  ref: Params | None  # the reference of an RL stage; what LoRA adds to
  skipped: Array  # i32[], consecutive updates skipped as non-finite
  critic: Any = None  # PPO's, a TrainState of its own
  beta: Array | None = None  # f32[], of the KL penalty, where it adapts
