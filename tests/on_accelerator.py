"""What accelerator.py measures on a device: one JSON line for each figure.

    python -m tests.on_accelerator kernels|model [flags of accelerator.py]

kernels: attention's kernel in bfloat16 may be at most twice as far from float32
as XLA's is, forward and backward; sampler and scorer in float32 may differ by
1e-4 at most (their difference in bfloat16 is only measured).

model: the programs of plan.py:qwen1.5b_grpo, on one device. A program is
compiled, run once, and then timed. Decoding is what a rollout takes beyond its
prefill. MFU is of the model's FLOPs as in r1jax/plan/work.py: of what is
computed twice, once.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import shutil
import statistics
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from experiments import machine_sections
from experiments import plan
from experiments import sections
from r1jax import config as config_lib
from r1jax import models
from r1jax.kernels import fused_attention
from r1jax.kernels import group_sampling
from r1jax.kernels import importance
from r1jax.kernels import logprobs
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.plan import chips
from r1jax.plan import work
from r1jax.stages import bench
from r1jax.stages import grpo
from r1jax.stages import rl as rl_lib
from r1jax.stages import rollouts
from r1jax.stages import step_programs
from r1jax.stages import train_state
from r1jax.types import Prompts
from tests import accelerator

CASES = {  # of attention to whole rows: switches of the model
    'shared prompts': {}, 'local layers': dict(window=8, global_every=2),
    'packed rows': {}}
ROUNDING, LOGP = 2., 1e-4  # the bounds above
_NO_END = types.SimpleNamespace(eos_ids=())  # every response has full length


def emit(name: str, figures) -> None:
  print(json.dumps({name: figures}), flush=True)


###############################################################################
# Formulas
###############################################################################


def decode_bytes(config: architecture.Config, weights: int, prompts: int,
                 rows: int, prompt_tokens: int, response_tokens: int) -> float:
  """Bytes that the next token of all rows must read, on average.

  Every weight once; keys and values of each prompt, once for its group; of each
  response those that are filled, its new token's included. A sampler that reads
  more, such as the empty part of its cache, is so much slower.
  """
  size = jnp.dtype(config.dtype).itemsize
  of_token = 2 * config.layers * config.kv_heads * config.head_size * size
  return weights * size + of_token * (
      prompts * prompt_tokens + rows * (response_tokens + 1) / 2)


def decode_figures(read: float, rows: int, tokens: int, seconds: float,
                   chip: chips.Chip | None) -> dict:
  """Of `tokens` steps of decoding that took `seconds` in all."""
  return {
      'seconds_per_step': seconds / tokens,
      'tokens_per_second': rows * tokens / seconds, 'bytes_per_step': read,
      'bytes_per_second': read * tokens / seconds,
      'share': chip and read * tokens / seconds / chip.bandwidth}


def flops_figures(flops: float, seconds: float, chip: chips.Chip | None
                  ) -> dict:
  """Of a program that needs so many model FLOPs."""
  return {'seconds': seconds, 'model_flops': flops,
          'flops_per_second': flops / seconds,
          'share': chip and flops / seconds / chip.flops}


def difference(logp_NR, rollout) -> dict:
  """The scorer's log-probabilities of a rollout against the sampler's."""
  gap = np.abs(np.asarray(logp_NR) - np.asarray(rollout.logp))[
      np.asarray(rollout.mask)]
  means = jax.jit(importance.figures)(logp_NR, rollout.logp, rollout.mask)
  return {'tokens': gap.size, 'logp_difference_max': float(gap.max())} | {
      name.removeprefix('sampling/'): float(x) for name, x in means.items()}


###############################################################################
# The device and its clock
###############################################################################


def find_device(small: bool) -> tuple[jax.Device, chips.Chip | None]:
  """The first device, and the figures of its kind; says both."""
  device = jax.devices()[0]
  if device.platform == 'cpu' and not small:
    sys.exit('no accelerator: JAX finds a CPU alone (--small runs there)')
  chip = chips.of_device(device.device_kind, getattr(device, 'num_cores', 1))
  driver = None
  if shutil.which('nvidia-smi'):
    driver = subprocess.run(
        ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
        capture_output=True, text=True, check=False).stdout.partition('\n')[0]
  emit('device', {
      'kind': device.device_kind, 'count': jax.device_count(),
      'memory_bytes': _memory(device, 'bytes_limit'),
      'runtime': device.client.platform_version, 'driver': driver,
      **{name: importlib.metadata.version(name) for name in ('jax', 'jaxlib')},
      'chip': chip and {'name': chip.name, 'flops': chip.flops, 'bandwidth':
                        chip.bandwidth, 'source': chip.source}})
  return device, chip


def _memory(device: jax.Device, name: str) -> int | None:
  return (device.memory_stats() or {}).get(name)


def build(name: str, jitted, *args):
  """The compiled program of a jitted function, and the seconds that it took."""
  started = time.perf_counter()
  program = jitted.lower(*args).compile()
  seconds = time.perf_counter() - started
  accelerator.say(f'{name}: compiled in {seconds:.0f} s')
  return program, seconds


def timed(repeats: int, run):
  """The last result of `run`, and the median seconds after a first call."""
  seconds = []
  for _ in range(1 + repeats):
    started = time.perf_counter()
    result = jax.block_until_ready(run())
    seconds.append(time.perf_counter() - started)
  return result, statistics.median(seconds[1:])


###############################################################################
# kernels
###############################################################################


def _shape(**switches) -> architecture.Config:
  return architecture.Config(**dict(
      vocab=512, width=256, layers=2, heads=4, kv_heads=2, head_size=64,
      mlp=512, max_len=4096) | switches)


def _precision(dtype: str):
  """Float32 is exact, where a device would round its products to less."""
  return jax.default_matmul_precision('highest') if dtype == 'float32' else (
      contextlib.nullcontext())


def whole_rows(case: str, kernel: str, dtype: str, small: bool):
  """(log p of some tokens, the gradient of a weighted sum of them)."""
  model = models.build(_shape(
      dtype=dtype, attention_kernel=kernel, **CASES[case]))
  rng = np.random.default_rng(0)
  prompt, response = (9, 15) if small else (200, 301)  # of no whole tile
  tokens = rng.integers(0, 512, (4, prompt + response), dtype=np.int32)
  if case == 'packed rows':
    column = np.arange(prompt + response)
    second = column >= prompt
    segment, position = (
        np.broadcast_to(x, tokens.shape) for x in (
            1 + second, column - prompt * second))
    weight = rng.normal(size=tokens.shape) * (position > 0)
    score = lambda params: logprobs.of_sequences(
        model, params, tokens, segment, position, chunk=64)[0]
  else:
    prompts = Prompts(
        tokens[:2, :prompt], np.array([prompt, prompt // 2], np.int32),
        np.arange(2, dtype=np.int32))
    weight = rng.normal(size=(4, response))
    score = lambda params: logprobs.of_responses(
        model, params, prompts, tokens[:, prompt:], temperature=1., chunk=64)[0]

  def loss(params):
    logp = jnp.where(weight != 0, score(params), 0.)
    return jnp.mean(weight * logp), logp

  with _precision(dtype):
    gradient, logp = jax.jit(jax.grad(loss, has_aux=True))(
        model.init(jax.random.key(0)))
  return logp, gradient


def kernel_figures(case: str, kernel: str, small: bool) -> dict:
  """How far a kernel, and XLA, are from float32, in parts of its norm."""
  def norm(tree):
    return float(np.sqrt(sum(
        np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))))

  exact, figures = whole_rows(case, 'xla', 'float32', small), {}
  for name in (kernel, 'xla'):
    found = whole_rows(case, name, 'bfloat16', small)
    for what, x, y in zip(('logp', 'gradient'), found, exact):
      figures[f'{what} of {name}'] = norm(
          jax.tree.map(lambda x, y: np.asarray(x) - y, x, y)) / norm(y)
  return {'ok': all(
      figures[f'{what} of {kernel}'] <= ROUNDING * figures[f'{what} of xla']
      for what in ('logp', 'gradient'))} | figures


def sampler_figures(small: bool, **switches) -> dict:
  """Sampler against scorer; if there are experts, they are replayed.

  Responses are longer than the block in which a cache is read.
  """
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  placed = train_state.place_model(
      _shape(**switches), mesh, machine_sections.RULES)
  tokens = 12 if small else 1100
  rl = sections.rl(
      prompts=2, group=4, prompt_tokens=8 if small else 64,
      response_tokens=tokens, sample_chunk=tokens)
  settings = rollouts.policy_settings(rl, _NO_END)._replace(
      keep_experts='moe' in switches)
  prompts = bench.random_prompts(types.SimpleNamespace(rl=rl, seed=0), placed)
  with _precision(placed.model.config.dtype):
    params = train_state.init_params(placed, None, 0)
    rollout = rollouts.jitted_sampling(mesh)(
        placed.sampling, settings, params, prompts, np.uint32(0), np.uint32(0))
    logp = jax.jit(functools.partial(
        grpo.scored_logp, placed.model, rl_lib.make_objective(rl)))(
            params, rollout)
  found = difference(logp, rollout)
  if placed.model.config.dtype == 'float32':
    found['ok'] = found['logp_difference_max'] <= LOGP
  return found


def kernels(args) -> None:
  device, _ = find_device(args.small)
  kernel = fused_attention.choose(device, 'bfloat16', 64)
  for case in CASES:
    if kernel == 'xla':
      emit(case, {'skipped': 'XLA computes attention on this device'})
    elif kernel == 'cudnn' and case == 'packed rows':
      emit(case, {'skipped': "cuDNN's kernel takes no packed rows; XLA does"})
    else:
      emit(case, kernel_figures(case, kernel, args.small))
  experts = architecture.Experts(experts=8, active=2, mlp=256)
  for name, switches in (('sampler, float32', {}),
                         ('sampler, bfloat16', dict(dtype='bfloat16')),
                         ('sampler, experts', dict(moe=experts))):
    emit(name, sampler_figures(args.small, **switches))


###############################################################################
# model
###############################################################################


def workload(args, memory: int | None):
  """The config of the step that is measured.

  Args:
    args: flags of accelerator.py.
    memory: bytes of the device.
  """
  config = plan.get_config('qwen1.5b_grpo').unlock()
  preset = args.preset or (
      'qwen2.5_0.5b' if (memory or 0) < 55e9 else 'qwen2.5_1.5b')
  config.model = common.model(
      vocab=64, width=32, layers=2, heads=2, kv_heads=1, head_size=16, mlp=48,
      max_len=64, dtype='bfloat16') if args.small else common.model(
          preset=preset, attention_chunk=512,
          **dict(layers=args.layers) if args.layers else {})
  sizes = dict(prompts=2, group=2, prompt_tokens=8, response_tokens=16,
               micro_batch=2, sample_chunk=8) if args.small else dict(
                   prompts=args.prompts, group=args.group,
                   prompt_tokens=args.prompt_tokens, sample_chunk=256,
                   response_tokens=args.response_tokens,
                   micro_batch=args.micro_batch)
  config.rl.update(correction='token_truncate', **sizes)
  config_lib.check(config, 1)
  return config


class Step:
  """The programs of a step of RL, one after the other."""

  def __init__(self, config, device: jax.Device, chip: chips.Chip | None,
               repeats: int):
    self.rl, self.chip = config.rl, chip
    self._device, self._repeats = device, repeats
    self._mesh = sharding.make_mesh({}, [device])
    made = rl_lib.trained(config, self._mesh)
    self.placed = made.policy.placed
    self.parameters, self.weights = work.parameters(self.placed)
    self._programs = step_programs.jitted(
        self.placed, made.optimizer, made.abstract, made.objective)
    self._state, _, _ = step_programs.split_state(rl_lib.state_from_params(
        self.placed, made.optimizer, made.abstract,
        train_state.init_params(self.placed, None, config.seed),
        made.objective))
    self._prompts = bench.random_prompts(config, self.placed)
    self._once = sum(work.responses(
        self.placed, self.rl.prompts, self.rl.prompt_tokens, np.full(
            self.rl.prompts * self.rl.group, self.rl.response_tokens)))

  def _emit(self, name: str, seconds: float, figures: dict) -> None:
    emit(name, {'compile_seconds': seconds} | figures | {
        'peak_bytes_so_far': _memory(self._device, 'peak_bytes_in_use')})

  def decode(self, name: str, sampling: models.Model, group: int):
    """Samples `group` responses to each prompt; returns the rollout."""
    rl, rows = self.rl, self.rl.prompts * group
    settings = rollouts.policy_settings(rl, _NO_END)._replace(group=group)
    args = self._state.params, self._prompts, np.uint32(0), np.uint32(0)
    sample, seconds = build(
        name, rollouts.jitted_sampling(self._mesh), sampling, settings, *args)
    begin, more = build(
        f'{name}, prefill', jax.jit(lambda params, prompts: (
            group_sampling.begin(sampling, sampling.prepare(params), prompts,
                                 rows, rl.response_tokens))), *args[:2])
    _, prefill = timed(self._repeats, lambda: begin(*args[:2]))
    rollout, whole = timed(self._repeats, lambda: sample(*args))
    read = decode_bytes(
        sampling.config, self.weights, rl.prompts, rows, rl.prompt_tokens,
        rl.response_tokens)
    self._emit(name, seconds + more, {
        'rows': rows, 'rollout_seconds': whole, 'prefill_seconds': prefill,
        **decode_figures(read, rows, rl.response_tokens, whole - prefill,
                         self.chip)})
    return rollout

  def score(self, rollout):
    """Two passes, of the policy and of the reference; the experience."""
    reward = jax.device_put(
        np.float32(np.asarray(rollout.tokens).sum(1) % 17 / 16),
        self.placed.batch)
    args = (self._state.ref, rollout, None, self._state.params)
    program, seconds = build('scoring', self._programs.measure, *args)
    measured, taken = timed(self._repeats, lambda: program(*args))
    self._emit('scoring', seconds, flops_figures(
        2 * self._once, taken, self.chip))
    return self._programs.experience(rollout, reward, measured)[0]

  def update(self, experience) -> None:
    """One update of all responses, in micro-batches."""
    program, seconds = build('update', self._programs.update, self._state,
                             experience, np.int32(0))

    def run():  # the state is donated
      self._state, metrics = program(self._state, experience, np.int32(0))
      return self._state.step, metrics

    (_, metrics), taken = timed(self._repeats, run)
    tokens = self.rl.prompts * self.rl.group * self.rl.response_tokens
    self._emit('update', seconds, {
        'tokens_per_second': tokens / taken, 'skipped_updates':
        float(metrics['optim/skipped'])} | flops_figures(
            work.UPDATE * self._once, taken, self.chip))


def model(args) -> None:
  device, chip = find_device(args.small)
  config = workload(args, _memory(device, 'bytes_limit'))
  step = Step(config, device, chip, args.repeats)
  emit('workload', {
      'model': config.model.to_dict(), 'parameters': step.parameters, **{
          name: config.rl[name] for name in (
              'prompts', 'group', 'prompt_tokens', 'response_tokens',
              'micro_batch', 'sample_chunk', 'logp_chunk')}})
  sampling = step.placed.sampling
  rollout = step.decode('decode', sampling, config.rl.group)
  experience = step.score(rollout)
  emit('sampler and scorer', difference(experience.old_logp, rollout))
  step.update(experience)
  step.decode('decode, layers unrolled', models.build(dataclasses.replace(
      sampling.config, scan_layers=False), sampling.place), config.rl.group)
  step.decode('decode, one response a prompt', sampling, 1)


def main(words: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('part', choices=('kernels', 'model'))
  accelerator.add_sizes(parser)
  args = parser.parse_args(words)
  {'kernels': kernels, 'model': model}[args.part](args)


if __name__ == '__main__':
  main()
