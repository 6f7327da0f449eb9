"""Data types that all parts of r1jax share, and the shape letters.

Shape letters are the suffixes of array names (`x_BTD`):

    B prompts    G group (responses to a prompt)    N = B * G, group contiguous
    P prompt     R response      T sequence      S keys of an attention
    L layers     D width         F feed-forward  V vocabulary
    H heads      K key/value heads               h head size

Further letters belong to single modules. K also counts the responses to a
prompt in preferences, where S counts the prompts in a row, the experts of a
token in models/moe.py, and the tokens that a truncated sampler keeps.

Entry i of a response-shaped value [N, R] belongs to response token i, the
first of which follows the prompt's last token. Entry t of a sequence-shaped
value [B, T] belongs to token t in the same way; entry 0, which nothing
precedes, holds 0. A prompt is stored once for its whole group. Where the
responses of a group lie on several devices, each of these computes the prompt
(parallel/sharding.repeat).
"""

from typing import Any, NamedTuple

import jax

Array = jax.Array
Params = Any  # a model's parameters, a tree of arrays


class Prompts(NamedTuple):
  """Prompts, right-padded; `length` alone says which tokens are real."""
  tokens: Array  # i32[B, P]
  length: Array  # i32[B], 1 <= length <= P
  id: Array  # i32[B], names the prompt's random stream
  experts: Array | None = None  # u8[B, P, L, K] or u16, as of Rollout


class Support(NamedTuple):
  """The tokens among which each token of a rollout was drawn."""
  tokens: Array  # i32[N, R, K], -1 where there are fewer than K
  mass: Array  # f32[N, R], their probability before all others were dropped


class Rollout(NamedTuple):
  """A group of responses to each prompt, sampled from the behaviour policy."""
  prompts: Prompts
  tokens: Array  # i32[N, R], 0 after the end
  mask: Array  # bool[N, R], true on the response, its end token included
  logp: Array  # f32[N, R], of the behaviour policy at its temperature
  support: Support | None = None  # where that policy is a truncated one
  # u8[N, R, L, K] or u16, those that the sampler's routers chose; None: unknown
  experts: Array | None = None
  # i32[N, R], where a row holds several responses to its prompt one after the
  # other: 1, 2, ..., 0 on what is none; None: each row is one response.
  segment: Array | None = None


class Steps(NamedTuple):
  """The rewards of a rollout's steps, by a process reward model."""
  reward: Array  # f32[N, R], at a step's last token
  end: Array  # bool[N, R], true on the last token of each step


class Experience(NamedTuple):
  """A rollout with its rewards and advantages: the input of the updates.

  In a micro-batch of packed rows (Rollout.segment) reward and weight are those
  of each token's response, f32[N, R].
  """
  rollout: Rollout
  reward: Array  # f32[N], minus the KL penalty where that is in the reward
  advantage: Array  # f32[N, R]
  old_logp: Array  # f32[N, R], of the policy before this rollout's updates
  ref_logp: Array  # f32[N, R], of the reference; 0 where none is used
  weight: Array  # f32[N], 0 drops a response (DAPO's dynamic sampling)
  value: Array | None = None  # f32[N, R], the critic's before these updates
  target: Array | None = None  # f32[N, R], returns, which the critic predicts
  correction: Array | None = None  # f32[N, R], importance weights of tokens


class Cache(NamedTuple):
  """Keys and values of prompts, and of the response tokens sampled so far.

  A prompt's keys and values are shared by its group, or by the part of it that
  one row of the forward pass has. Those of the responses, the past, have room
  for S tokens, of which the first `filled` are written, in each row as many or
  in each its own number. The layouts are those of kernels/attention.py. In a
  model that does not scan its layers each of these fields is a tuple of L
  arrays. With latent attention, k holds the latent and the rotary key of each
  token, and v is None.
  """
  prompt_k: Array | tuple[Array, ...]  # [L, B, K, h, P]
  prompt_v: Array | tuple[Array, ...] | None  # [L, B, K, P, h]
  prompt_length: Array  # i32[B]
  k: Array | tuple[Array, ...]  # [L, N, K, h, S]
  v: Array | tuple[Array, ...] | None  # [L, N, K, S, h]
  filled: Array  # i32[] or i32[N]
  # i32[N], the prompt of each row, by its number on the row's device. None: as
  # many rows to each prompt, in the order of the prompts.
  owner: Array | None = None


class LMBatch(NamedTuple):
  """Packed documents for next-token training."""
  tokens: Array  # i32[B, T]
  segment: Array  # i32[B, T], 0 is padding, documents count from 1
  position: Array  # i32[B, T], restarts with each document
  weight: Array  # f32[B, T], of the loss at this token


class Preferences(NamedTuple):
  """Packed prompts with graded responses, for a reward model or for DPO.

  A row holds up to S prompts, each followed by up to K responses. Every prompt
  and every response is a segment, padding is segment 0; a response attends to
  its prompt, which is its parent.
  """
  tokens: Array  # i32[B, T]
  segment: Array  # i32[B, T], parent + 1 + k in response k
  parent: Array  # i32[B, T], (1 + s) (1 + K) in prompt s and its responses
  position: Array  # i32[B, T], continues from the prompt in each response
  end: Array  # i32[B, S, K], the index in T of a response's last token
  grade: Array  # f32[B, S, K], greater for the better response
  real: Array  # bool[B, S, K], false where there is no such response


class TrainState(NamedTuple):
  """All that training changes: the contents of a checkpoint."""
  step: Array  # i32[], steps of the stage's loop taken
  params: Params
  opt_state: Any
  ref: Params | None  # an RL stage's reference; the frozen base under LoRA
  skipped: Array  # i32[], consecutive non-finite updates, which are skipped
  critic: Any = None  # PPO's critic, a TrainState of its own
  beta: Array | None = None  # f32[], of an adaptive KL penalty
  in_flight: Any = None  # of partial rollouts, stages/partial.InFlight
