"""Times complete GRPO steps of a workload and prints one JSON line.

A step is a rollout, in which no response ends early unless
`bench.mean_length` is set (stages/ending.py); rewards, the sum of the
token ids modulo 17, on the host; the reference's log-probabilities and the
advantages; the updates; and the metrics, on the host. The sampler's
log-probabilities are the old ones. Each part is waited for before the next
begins; but in the first step, as in training, the update is traced while the
reference is computed.

Of the time until the first update, the line says under `first_update` the
`seconds` since the process began; their kinds (stages/clock.py: what part is
tracing, compilation, dispatch, waiting and the host's own work); the same for
its `parts`, which are import (interpreter, imports, devices), weights (the
model; its parameters are still computed while the sampler is traced) and those
of the first step; and how many programs were `compiled`, and how many `kept`
ones were read: a later run finds them, one with
JAX_ENABLE_COMPILATION_CACHE=false or a fresh R1JAX_CACHE does not.

Of each part of a step, and of `step`, it has the medians after the warm-up:
`seconds`, their kinds, and `cpu_seconds` of the process on all its cores.

Model FLOPs are 2 per parameter and token, 6 with the backward pass (Kaplan et
al., arXiv 2001.08361, sec. 2.1), a prompt counted once for its whole group.
Attention's own products and what is computed twice are not counted.
"""

from collections.abc import Callable
import functools
import itertools
import json
import math
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.models import lora
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.parallel import threads
from r1jax.stages import clock as clock_lib
from r1jax.stages import ending
from r1jax.stages import rl as rl_lib
from r1jax.stages import rollouts
from r1jax.stages import step_programs
from r1jax.stages import train_state
from r1jax.types import Prompts, TrainState

PARTS = ('rollout', 'reward', 'reference', 'update', 'metrics')


def run_bench(config, mesh) -> None:
  """Measures the workload of `config` on `mesh`; process 0 prints."""
  steps, warmup = config.bench.steps, config.bench.warmup
  if not 1 <= warmup < steps:
    raise errors.expected('bench.warmup', 'at least 1, which compiles, and '
                          f'less than bench.steps = {steps}', warmup)
  clock = clock_lib.Clock()
  clock.add('import', 'host')
  with clock.listening():
    _run(config, mesh, clock)


def _run(config, mesh, clock: clock_lib.Clock) -> None:
  """As `run_bench`, from the weights on."""
  steps, warmup = config.bench.steps, config.bench.warmup
  model = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(config.rl))
  placed = model.placed
  programs, state = make_programs(config, model)
  prompts = random_prompts(config, placed)
  clock.add('weights', 'host')
  rows, tokens = [], []
  for index in range(steps):
    state, metrics = step(config, programs, state, prompts, index, clock)
    rows.append(clock.take())
    tokens.append(metrics['response_length/mean'] * (
        config.rl.prompts * config.rl.group))
    if index == 0:
      first = first_update(clock, rows[0])
  if config.bench.profile:
    with jax.profiler.trace(config.bench.profile):
      step(config, programs, state, prompts, steps, clock)
  peak = memory.peak_mib()
  parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(placed.params))
  bound = matmul_gflop_per_second(placed, config.bench.matmul)
  line = {
      'workload': {'name': config.name, 'parameters': parameters,
                   'dtype': placed.model.config.dtype, **config.rl.to_dict()},
      'jax': jax.__version__,
      'devices': {'kind': jax.devices()[0].device_kind, 'count': mesh.size},
      'first_update': first,
      'matmul_gflop_per_second': bound,
      **summary(config.rl, parameters, rows[warmup:], bound,
                statistics.median(tokens[warmup:])),
      'peak_memory_mib': peak,
      'last_step': {name: float(value) for name, value in metrics.items()},
  }
  short = lambda digits: float(f'{float(digits):.5g}')
  distributed.say(json.dumps(json.loads(json.dumps(line), parse_float=short)))


def make_programs(config, model: train_state.StageModel
                  ) -> tuple[dict[str, Callable], TrainState]:
  """The jitted programs of a step, and the state at step 0, still computed."""
  rl, objective = config.rl, rl_lib.make_objective(config.rl)
  placed, eos_ids = model.placed, ()
  if config.bench.mean_length is not None:
    eos_ids = 0,
    placed = placed._replace(model=ending.model(
        placed.model, rl.prompt_tokens, config.bench.mean_length,
        rl.response_tokens, *eos_ids))
  settings = rollouts.Settings(
      group=rl.group, response_tokens=rl.response_tokens, eos_ids=eos_ids,
      temperature=rl.temperature, chunk=rl.sample_chunk, slots=rl.slots,
      cpu_threads=rl.cpu_threads)
  parts, settings = rollouts.sampled_at_once(settings, placed.mesh, rl.prompts)
  optimizer = train_state.optimizer(
      config.optim, config.bench.steps * rl.epochs * rl.mini_batches,
      placed.trained)
  abstract = train_state.abstract_state(
      placed, optimizer, ref=objective.uses_ref)
  jitted = step_programs.jitted(
      placed, optimizer, abstract, objective,
      parts=step_programs.measured_at_once(rl, placed.mesh))
  programs = {
      'rollout': threads.in_parts(functools.partial(
          rollouts.sample_groups, placed.model, settings), parts, 1),
      'reference': jitted.measure, 'advantages': jitted.experience,
      'update': jitted.update}
  state = train_state.initial_state(
      placed, model.source, optimizer, abstract, config.seed)
  return programs, state


def step(config, programs, state: TrainState, prompts: Prompts, index: int,
         clock: clock_lib.Clock) -> tuple[TrainState, dict[str, Any]]:
  """The new state and the metrics; PARTS are added to the clock."""
  rollout = clock.wait('rollout', programs['rollout'](
      lora.join(state.ref, state.params), prompts, np.uint32(config.seed),
      np.uint32(index)))
  reward = np.float32(sharding.to_host(rollout.tokens).sum(1) % 17 / 16)
  reward_N = jax.block_until_ready(
      sharding.from_host(reward, prompts.id.sharding.mesh))
  clock.add('reward', 'host')
  measured = programs['reference'](state.ref, rollout)
  experience, metrics = programs['advantages'](rollout, reward_N, measured)
  if index == 0:  # as in training, the update is traced meanwhile
    clock.add('reference', 'dispatch')
  else:
    clock.wait('reference', experience)
  for mini_batch in [*range(config.rl.mini_batches)] * config.rl.epochs:
    state, updated = programs['update'](state, experience, np.int32(mini_batch))
  clock.wait('update', state)
  lengths = sharding.to_host(rollout.mask).sum(1)
  metrics |= updated | rl_lib.rollout_metrics(
      reward, lengths, config.rl.group)
  clock.add('metrics', 'host')
  return state, metrics


def random_prompts(config, placed) -> Prompts:
  """`rl.prompts` prompts of exactly `rl.prompt_tokens` random tokens."""
  shape = count, length = config.rl.prompts, config.rl.prompt_tokens
  tokens = np.random.default_rng(config.seed).integers(
      placed.model.config.vocab, size=shape, dtype=np.int32)
  return sharding.from_host(
      Prompts(tokens, np.full(count, length, np.int32),
              np.arange(count, dtype=np.int32)), placed.mesh, uneven=True)


def model_flops(rl, parameters: int, sampled: float) -> dict[str, float]:
  """FLOPs of each part of a step, and of the step; see the module.

  `sampled` is the tokens of all responses.
  """
  tokens = rl.prompts * rl.prompt_tokens + sampled
  uses_ref = rl_lib.make_objective(rl).uses_ref
  flops = {'rollout': 2 * parameters * tokens,
           'reference': 2 * parameters * tokens * uses_ref,
           'update': 6 * parameters * tokens * rl.epochs}
  return flops | {'step': sum(flops.values())}


def first_update(clock: clock_lib.Clock, parts: clock_lib.Times
                 ) -> dict[str, Any]:
  """The seconds until the first step's end, by kinds and parts."""
  return clock_lib.by_kind(parts.values()) | {
      'compiled': clock.programs - clock.kept, 'kept': clock.kept,
      'parts': {part: clock_lib.by_kind([times])
                for part, times in parts.items()}}


def summary(rl, parameters: int, rows: list[clock_lib.Times], bound: float,
            tokens: float) -> dict[str, dict]:
  """Medians of the steps `rows`, of each part and of the whole.

  Tokens per second are response tokens, of which a step has `tokens`, in the
  update once per epoch. `bound` is in GFLOP/s; `of_matmul` is the fraction of
  it that was reached.
  """
  out = {}
  for name in (*PARTS, 'step'):
    times = [clock_lib.by_kind(row.values() if name == 'step' else [row[name]])
             for row in rows]
    out[name] = {kind: statistics.median(one.get(kind, 0.) for one in times)
                 for kind in dict.fromkeys(itertools.chain(*times))}
  out['step']['all'] = [one['seconds'] for one in times]
  for name, times in (('rollout', 1), ('update', rl.epochs), ('step', 1)):
    out[name]['tokens_per_second'] = times * tokens / out[name]['seconds']
  for name, flops in model_flops(rl, parameters, tokens).items():
    rate = flops / 1e9 / out[name]['seconds']
    out[name] |= {'gflop': flops / 1e9, 'gflop_per_second': rate,
                  'of_matmul': rate / bound}
  return out


def matmul_gflop_per_second(placed, size: int) -> float:
  """The machine's own rate: all devices multiply matrices `size` square."""
  a = jnp.full((size, size), 1 / size, placed.model.config.dtype,
               device=placed.replicated)
  product, seconds = jax.jit(jnp.matmul), []
  for _ in range(21):  # the first compiles
    started = time.perf_counter()
    product(a, a).block_until_ready()
    seconds.append(time.perf_counter() - started)
  return 2 * placed.mesh.size * size ** 3 / statistics.median(seconds[1:]) / 1e9
