"""Times complete GRPO steps of a workload and prints one JSON line.

A step is a rollout, in which no response ends early unless
`bench.mean_length` is set (stages/ending.py); rewards, the sum of the
token ids modulo 17, on the host; the reference's log-probabilities and the
advantages; and the updates. The sampler's log-probabilities are the old ones.
Each part is waited for before the next begins.

Model FLOPs are 2 per parameter and token, 6 with the backward pass (Kaplan et
al., arXiv 2001.08361, sec. 2.1), a prompt counted once for its whole group.
Attention's own products and what is computed twice are not counted.
"""

import functools
import json
import math
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import errors
from r1jax.models import lora
from r1jax.parallel import distributed
from r1jax.parallel import memory
from r1jax.parallel import sharding
from r1jax.stages import ending
from r1jax.stages import grpo
from r1jax.stages import rl as rl_lib
from r1jax.stages import rollouts
from r1jax.stages import train_state
from r1jax.types import Prompts, TrainState

PARTS = ('rollout', 'reward', 'reference', 'update')
_IMPORTED = time.perf_counter()


class Program:
  """A jitted function that compiles at its first call, and times that."""

  def __init__(self, function, **options):
    self.seconds = 0.  # of compilation
    self._jitted, self._compiled = jax.jit(function, **options), None

  def __call__(self, *args):
    if self._compiled is None:
      started = time.perf_counter()
      self._compiled = self._jitted.lower(*args).compile()
      self.seconds = time.perf_counter() - started
    return self._compiled(*args)


def run_bench(config, mesh) -> None:
  """Measures the workload of `config` on `mesh`; process 0 prints."""
  steps, warmup = config.bench.steps, config.bench.warmup
  if not 1 <= warmup < steps:
    raise errors.expected('bench.warmup', 'at least 1, which compiles, and '
                          f'less than bench.steps = {steps}', warmup)
  model = train_state.configured_model(
      config, mesh, rollouts.longest_sequence(config.rl))
  placed = model.placed
  programs, state = make_programs(config, model)
  prompts = random_prompts(config, placed)
  ready, rows, tokens = process_seconds(), [], []
  for index in range(steps):
    state, seconds, metrics = step(config, programs, state, prompts, index)
    rows.append(seconds | {'step': sum(seconds.values())})
    tokens.append(metrics['response_length/mean'] * (
        config.rl.prompts * config.rl.group))
  if config.bench.profile:
    with jax.profiler.trace(config.bench.profile):
      step(config, programs, state, prompts, steps)
  peak = memory.peak_mib()
  parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(placed.params))
  bound = matmul_gflop_per_second(placed, config.bench.matmul)
  line = {
      'workload': {'name': config.name, 'parameters': parameters,
                   'dtype': placed.model.config.dtype, **config.rl.to_dict()},
      'jax': jax.__version__,
      'devices': {'kind': jax.devices()[0].device_kind, 'count': mesh.size},
      'ready_seconds': ready,  # since process start, the weights made
      'time_to_first_update_seconds': ready + rows[0]['step'],
      'compile_seconds': {name: p.seconds for name, p in programs.items()},
      'matmul_gflop_per_second': bound,
      **summary(config.rl, parameters, rows[warmup:], bound,
                statistics.median(tokens[warmup:])),
      'peak_memory_mib': peak,
      'last_step': {name: float(value) for name, value in metrics.items()},
  }
  short = lambda digits: float(f'{float(digits):.5g}')
  distributed.say(json.dumps(json.loads(json.dumps(line), parse_float=short)))


def make_programs(config, model: train_state.StageModel
                  ) -> tuple[dict[str, Program], TrainState]:
  """The programs of a step, not yet compiled, and the state at step 0."""
  rl, objective = config.rl, rl_lib.make_objective(config.rl)
  placed, eos_ids = model.placed, ()
  if config.bench.mean_length is not None:
    eos_ids = 0,
    placed = placed._replace(model=ending.model(
        placed.model, rl.prompt_tokens, config.bench.mean_length,
        rl.response_tokens, *eos_ids))
  settings = rollouts.Settings(
      group=rl.group, response_tokens=rl.response_tokens, eos_ids=eos_ids,
      temperature=rl.temperature, chunk=rl.sample_chunk, slots=rl.slots)
  optimizer = train_state.optimizer(
      config.optim, config.bench.steps * rl.epochs * rl.mini_batches,
      placed.trained)
  abstract = train_state.abstract_state(
      placed, optimizer, ref=objective.uses_ref)
  bind = functools.partial
  programs = {
      'rollout': Program(bind(rollouts.sample_groups, placed.model, settings)),
      'reference': Program(bind(grpo.experience, placed.model, objective)),
      'update': Program(
          bind(grpo.update, placed.model, optimizer, objective),
          donate_argnums=0,
          out_shardings=(train_state.shardings_of(abstract), None))}
  state = train_state.initial_state(
      placed, model.source, optimizer, abstract, config.seed)
  return programs, jax.block_until_ready(state)


def step(config, programs, state: TrainState, prompts: Prompts, index: int):
  """Returns the new state, the seconds of each of PARTS, and the metrics."""
  clock = [time.perf_counter()]
  def wait(x):
    jax.block_until_ready(x)
    clock.append(time.perf_counter())
    return x
  rollout = wait(programs['rollout'](
      lora.join(state.ref, state.params), prompts, np.uint32(config.seed),
      np.uint32(index)))
  reward = np.float32(sharding.to_host(rollout.tokens).sum(1) % 17 / 16)
  experience, metrics = wait(programs['reference'](
      state.ref, rollout,
      wait(sharding.from_host(reward, prompts.id.sharding.mesh))))
  for mini_batch in [*range(config.rl.mini_batches)] * config.rl.epochs:
    state, updated = programs['update'](state, experience, np.int32(mini_batch))
  wait(state)
  lengths = sharding.to_host(rollout.mask).sum(1)
  metrics |= updated | rl_lib.rollout_metrics(
      reward, lengths, config.rl.group)
  return state, dict(zip(PARTS, np.diff(clock).tolist())), metrics


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


def summary(rl, parameters: int, rows: list[dict[str, float]], bound: float,
            tokens: float) -> dict[str, dict]:
  """Medians of `rows`, the seconds of each part and of the step.

  Tokens per second are response tokens, of which a step has `tokens`, in the
  update once per epoch. `bound`
  is in GFLOP/s; `of_matmul` is the fraction of it that was reached.
  """
  out = {name: {'seconds': statistics.median(row[name] for row in rows)}
         for name in rows[0]}
  out['step']['all'] = [row['step'] for row in rows]
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


def process_seconds() -> float:
  """Since this process began; where no system tells, since this import."""
  if not os.path.exists('/proc/self/stat'):
    return time.perf_counter() - _IMPORTED
  with open('/proc/self/stat', encoding='utf-8') as file:
    ticks = int(file.read().rpartition(')')[2].split()[19])  # starttime
  now = time.clock_gettime(time.CLOCK_BOOTTIME)
  return now - ticks / os.sysconf('SC_CLK_TCK')
