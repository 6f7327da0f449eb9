"""What grows in the compiled programs of a step: those of stages/bench.py."""

from collections.abc import Mapping
import time

import jax
import numpy as np

from experiments import bench as experiment
from r1jax.parallel import sharding
from r1jax.stages import bench
from r1jax.stages import clock
from r1jax.stages import rollouts
from r1jax.stages import train_state
from tests import growth

Bound, Figures = growth.Bound, growth.Figures


def config(**sizes: int):
  """The small step that is measured, with other `sizes` of rl or the model."""
  made = experiment.get_config('tiny').unlock()
  made.model.update(vocab=512, width=128, layers=2, heads=4, kv_heads=2,
                    head_size=32, mlp=352, attention_chunk=64, scan_layers=True)
  made.rl.update(prompts=4, group=8, prompt_tokens=64, response_tokens=64,
                 micro_batch=8, sample_chunk=64, logp_chunk=32, cpu_threads=1)
  for name, value in sizes.items():
    (made.rl if name in made.rl else made.model)[name] = value
  made.model.max_len = made.rl.prompt_tokens + made.rl.response_tokens
  return made.lock()


class _Measured:
  """A program of a step whose calls are timed."""

  def __init__(self, jitted):
    self._jitted, self._compiled = jitted, None
    self._seconds = []

  def __call__(self, *args):
    if self._compiled is None:
      started = time.process_time()
      self._compiled = self._jitted.lower(*args).compile()
      self.compiling = time.process_time() - started
    started = time.process_time()
    found = jax.block_until_ready(self._compiled(*args))
    self._seconds.append(time.process_time() - started)
    return found

  def figures(self) -> Figures:
    return Figures(min(self._seconds[1:]), _held(self._compiled))


def _held(compiled) -> float:
  """What a program holds at once, in MiB: arguments, results and the rest."""
  memory = compiled.memory_analysis()
  return (memory.argument_size_in_bytes + memory.output_size_in_bytes
          + memory.temp_size_in_bytes - memory.alias_size_in_bytes) / 2 ** 20


def _made(**sizes: int):
  """The config of a step, its programs, its state and its prompts."""
  settings = config(**sizes)
  mesh = sharding.make_mesh(settings.mesh, jax.devices()[:1])
  model = train_state.configured_model(
      settings, mesh, rollouts.longest_sequence(settings.rl))
  programs, state = bench.make_programs(settings, model)
  return settings, programs, state, bench.random_prompts(settings, model.placed)


def step(repeats: int = 2, **sizes: int) -> Mapping[str, Figures]:
  """The figures of the parts of a step, and of compiling them."""
  settings, programs, state, prompts = _made(**sizes)
  measured = {name: _Measured(one) for name, one in programs.items()}
  for index in range(1 + repeats):
    state, _ = bench.step(
        settings, measured, state, prompts, index, clock.Clock())
  jax.clear_caches()
  return {name: one.figures() for name, one in measured.items()} | {
      'compiling': Figures(sum(one.compiling for one in measured.values()))}


def update_held(**sizes: int) -> Mapping[str, Figures]:
  """The memory of an update, which is compiled and not run."""
  settings, programs, state, prompts = _made(**sizes)
  rollout, measure, experience, update = programs.values()
  number = np.int32(0)
  reward = np.zeros(settings.rl.prompts * settings.rl.group, np.float32)
  rollout = jax.eval_shape(rollout, state.params, prompts, number, number)
  experience, _ = jax.eval_shape(
      experience, rollout, reward, jax.eval_shape(measure, state.ref, rollout))
  return {'update': Figures(mib=_held(
      update.lower(state, experience, number).compile()))}


def _axis(field: str, sizes: tuple[int, ...], bounds: Mapping[str, Bound],
          name: str = '', **fixed: int) -> growth.Axis:
  return growth.Axis(name or field.replace('_', ' '), sizes,
                     lambda size: step(**{field: size}, **fixed), bounds)


_PARTS = 'rollout', 'reference', 'update'
_WORK = dict.fromkeys(_PARTS, Bound(1.2, 1.1, 'as the work'))

AXES = (
    _axis('response_tokens', (128, 256, 512), {
        'rollout': Bound(1.7, 1.1, 'attention to all before'),
        'reference': Bound(1.5, 1.1, 'attention to all before'),
        'update': Bound(1.5, 1.1, 'attention to all before'),
        'compiling': Bound(.45, None, 'a cache that doubles')}),
    # Logits are most of what is held.
    growth.Axis(
        'response tokens, wide logits', (128, 256, 512),
        lambda size: update_held(response_tokens=size, vocab=16384, width=32,
                                 layers=1, group=4, prompts=2),
        {'update': Bound(None, .5, 'logits of logp_chunk tokens')}),
    _axis('prompt_tokens', (128, 256, 512), dict.fromkeys(
        _PARTS, Bound(1.1, 1.1, 'one prompt for its group')),
          response_tokens=128),
    # From here on the sampler's cache is larger than a processor's, as it is of
    # any model that is trained: below, a token's seconds grow with it.
    _axis('group', (128, 256, 512), _WORK, response_tokens=128),
    _axis('prompts', (8, 16, 32), _WORK),
    _axis('layers', (4, 8, 16), _WORK | {
        'compiling': Bound(.25, None, 'one layer, of a scan')}),
    _axis('vocab', (4096, 8192, 16384), _WORK, 'vocabulary'),
    _axis('micro_batch', (8, 16, 32), {
        'update': Bound(.2, 1.1, 'equal work; activations')}, 'micro_batch'),
)
