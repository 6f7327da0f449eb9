"""The programs of a stage, with abstract arguments: nothing is read or made.

They are the stage's own jitted functions, and their arguments have the shapes
and shardings that the stage gives them. Each kind of stage is a generator: it
yields a `Part` and is sent the abstract results of that program, which may be
the arguments of the next.

Arrays have the longest lengths that the config allows. How long the responses
are, and how often the sampler's loops run for them, is of `schedule`. Scores
that come from elsewhere are left out: rewards by rule, reward models and
judges; and so are evaluations.
"""

from collections.abc import Generator, Mapping
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.kernels import continuous_batching
from r1jax.kernels import group_sampling
from r1jax.models import lora
from r1jax.parallel import sharding
from r1jax.plan import schedule
from r1jax.plan import work
from r1jax.stages import distill
from r1jax.stages import grpo
from r1jax.stages import lm as lm_lib
from r1jax.stages import preference as preference_lib
from r1jax.stages import rl as rl_lib
from r1jax.stages import rollouts
from r1jax.stages import step_programs
from r1jax.stages import train_state
from r1jax.types import LMBatch, Preferences, Prompts, Steps


class Part(NamedTuple):
  """A program of a step."""
  name: str
  jitted: Any  # the jitted function
  args: tuple[Any, ...]
  state: dict[str, Any]  # kind -> abstract arrays that lie in memory meanwhile
  flops: float  # model FLOPs of one run, on all devices
  tokens: int  # that a run samples or learns from
  times: int = 1  # runs in a step
  # Of loops that end by their data, by counts.Loop.name: how often they run.
  trips: Mapping[str, float] = types.MappingProxyType({})
  cache: int | None = None  # tokens, of the sampler's
  prefill_flops: float = 0.  # those of `flops` that are of the prompts
  trains: Any = None  # what gradients are taken of


Parts = Generator[Part, Any, None]


class _Ends(NamedTuple):
  """What the sampler needs of a vocabulary; any token serves."""
  eos_ids: tuple[int, ...] = (0,)


def _array(placed: train_state.PlacedModel, dtype, *shape: int
          ) -> jax.ShapeDtypeStruct:
  """A batch's array, as `sharding.from_host` places it, uneven ones too."""
  return jax.ShapeDtypeStruct(
      shape, dtype, sharding=sharding.prompt_sharding(placed.mesh, shape[0]))


def _kinds(state) -> dict[str, Any]:
  """The parts of a state by what they are."""
  named = {'parameters': state.params, 'moments': state.opt_state,
           'reference': state.ref, 'critic': state.critic}
  return {name: tree for name, tree in named.items() if tree is not None}


def _lengths(config) -> np.ndarray:
  """Tokens of each response of a step."""
  section = config.rl
  return schedule.lengths(
      section.prompts * section.group, config.plan.mean_response_tokens,
      section.response_tokens)


def _packed(section, placed: train_state.PlacedModel, lengths: np.ndarray,
            parts: int) -> dict[str, float]:
  """Trips of the loops over micro-batches of `parts` of a rollout."""
  if section.packed_rows is None:
    return {}  # as many as there are responses
  return schedule.packed(
      lengths, section.prompts, parts, placed.model.place.batch_shards,
      section.response_tokens, section.packed_rows, section.micro_batch)


def _sampling(placed: train_state.PlacedModel, section, lengths: np.ndarray,
              params, state, **truncation) -> Part:
  """The sampler's program, of `config.rl`."""
  if section.get('partial_tokens') is not None:
    raise errors.expected(
        'rl.partial_tokens', 'None in a plan, of which every step is the same',
        section.partial_tokens)
  settings = rollouts.policy_settings(section, _Ends(), **truncation)
  rows, most = section.prompts, settings.response_tokens
  prompts = Prompts(_array(placed, jnp.int32, rows, section.prompt_tokens),
                    *[_array(placed, jnp.int32, rows)] * 2)
  prefill, decode = work.responses(placed, rows, section.prompt_tokens, lengths)
  place = placed.sampling.place
  slots = settings.slots_of(lengths.size)
  if slots is not None:
    trips = schedule.in_slots(lengths, place.batch_shards, (
        continuous_batching.sizes(place, slots, most, settings.chunk)))
  else:
    trips = schedule.together(
        lengths, group_sampling.cache_sizes(most, settings.chunk))
  return Part(
      'sampling', rollouts.jitted_sampling(placed.mesh),
      (placed.sampling, settings, params, prompts, np.uint32(0), np.uint32(0)),
      state, prefill + decode, int(lengths.sum()), trips=trips, cache=most,
      prefill_flops=prefill)


def rl(config, mesh) -> Parts:
  """Sampling, scoring (reference, critic), and the updates.

  Advantages, figures of rewards, take no time and little memory.
  """
  made = rl_lib.trained(config, mesh)
  placed, section, critic = made.policy.placed, config.rl, made.critic
  programs = step_programs.jitted(
      placed, made.optimizer, made.abstract, made.objective, critic)
  policy, critic_state, beta = step_programs.split_state(made.abstract)
  state, lengths = _kinds(made.abstract), _lengths(config)
  behaviour = lora.join(policy.ref, policy.params)
  rollout = yield _sampling(
      placed, section, lengths, behaviour, state, top_k=section.top_k,
      top_p=section.top_p, keep_support=section.top_k > 0)
  rows, length = section.prompts * section.group, section.response_tokens
  tokens, once = int(lengths.sum()), sum(work.responses(
      placed, section.prompts, section.prompt_tokens, lengths))
  reward = _array(placed, jnp.float32, rows)
  steps = None if section.process is None else Steps(
      _array(placed, jnp.float32, rows, length),
      _array(placed, jnp.bool_, rows, length))
  corrects = made.objective.correction is not None
  passes = made.objective.uses_ref + corrects + (critic is not None)
  measured = grpo.Measured()
  if passes:
    measured = yield Part(
        'scoring', programs.measure,
        (policy.ref, rollout,
         critic and lora.join(critic_state.ref, critic_state.params),
         behaviour if corrects else None),
        state | {'rollout': rollout}, passes * once, tokens,
        trips=_packed(section, placed, lengths, 1))
  experience, _ = jax.eval_shape(
      programs.experience, rollout, reward, measured, beta, steps)
  experience = jax.tree.map(
      lambda x: _array(placed, x.dtype, *x.shape), experience)._replace(
          rollout=rollout)
  of_update = dict(
      state=state | {'rollout': experience},
      trips=_packed(section, placed, lengths, section.mini_batches),
      tokens=tokens // section.mini_batches,
      times=section.mini_batches * section.epochs)
  flops = work.UPDATE * once / section.mini_batches
  yield Part('update', programs.update, (policy, experience, 0), flops=flops,
             trains=policy.params, **of_update)
  if critic:
    yield Part("critic's update", programs.update_critic,
               (critic_state, experience, 0), flops=flops,
               trains=critic_state.params, **of_update)


def lm(config, mesh) -> Parts:
  """The step of pretraining, SFT and distillation."""
  section = config.lm
  placed = train_state.configured_model(
      config, mesh, ('lm.length', section.length)).placed
  optimizer = train_state.optimizer(
      config.optim, config.steps or 0, placed.trained)
  state = train_state.abstract_state(placed, optimizer, ref=False)
  teacher = teacher_params = None
  shape = section.batch, section.length
  flops = work.UPDATE * work.sequences(placed, *shape)
  kinds = _kinds(state)
  if 'distill' in config:
    teacher, taught_by, _ = distill.place_teacher(
        config.distill, mesh, config.rules, section.length)
    teacher_params, kinds['teacher'] = taught_by.params, taught_by.params
    flops += work.sequences(taught_by, *shape)
  ints = _array(placed, jnp.int32, *shape)
  batch = LMBatch(ints, ints, ints, _array(placed, jnp.float32, *shape))
  yield Part(
      'update', lm_lib.jitted(placed, optimizer, state, section, teacher),
      (state, batch, teacher_params), kinds, flops, shape[0] * shape[1],
      trains=state.params)


def preference(config, mesh) -> Parts:
  """The step of a reward model, or of DPO; a row holds one pair."""
  section, objective = config.preference, preference_lib.make_objective(config)
  placed = train_state.configured_model(config, mesh).placed
  optimizer = train_state.optimizer(
      config.optim, config.steps or 0, placed.trained)
  state = train_state.abstract_state(
      placed, optimizer, ref=objective.loss == 'dpo')
  shape = section.batch, section.length
  ints = _array(placed, jnp.int32, *shape)
  pair = lambda dtype: _array(placed, dtype, section.batch, 1, 2)
  batch = Preferences(ints, ints, ints, ints, pair(jnp.int32),
                      pair(jnp.float32), pair(jnp.bool_))
  once = work.sequences(placed, *shape)
  yield Part(
      'update', preference_lib.jitted(placed, optimizer, state, objective),
      (state, batch), _kinds(state),
      once * (work.UPDATE + (objective.loss == 'dpo')), shape[0] * shape[1],
      trains=state.params)


def sample(config, mesh) -> Parts:
  """Rejection sampling: the sampler alone."""
  section = config.rl
  placed = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(section)).placed
  yield _sampling(placed, section, _lengths(config), placed.params,
                  {'parameters': placed.params}, top_k=section.top_k,
                  top_p=section.top_p)


KINDS = {'rl': rl, 'lm': lm, 'preference': preference, 'sample': sample}
