"""What grows in the compiled programs of a step: those of stages/bench.py."""

from collections.abc import Mapping
import time

import jax

from experiments import bench as experiment
from r1jax.parallel import sharding
from r1jax.stages import bench
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
                 micro_batch=8, sample_chunk=64, logp_chunk=32)
  for name, value in sizes.items():
    (made.rl if name in made.rl else made.model)[name] = value
  made.model.max_len = made.rl.prompt_tokens + made.rl.response_tokens
  return made.lock()


class _Measured:
  """A program of a step whose calls are timed."""

  def __init__(self, program: bench.Program):
    self._program, self._seconds = program, []

  def __call__(self, *args):
    started = time.process_time()
    found = jax.block_until_ready(self._program(*args))
    self._seconds.append(time.process_time() - started)
    return found

  def figures(self) -> Figures:
    return Figures(min(self._seconds[1:]), mib(self._program))

  def compiling(self) -> float:
    """Seconds that the first call took beyond the others."""
    return self._seconds[0] - min(self._seconds[1:])


def mib(program: bench.Program) -> float:
  """What a compiled program holds at once: arguments, results and the rest."""
  memory = program._compiled.memory_analysis()
  return (memory.argument_size_in_bytes + memory.output_size_in_bytes
          + memory.temp_size_in_bytes - memory.alias_size_in_bytes) / 2 ** 20


def step(repeats: int = 2, **sizes: int) -> Mapping[str, Figures]:
  """The figures of the parts of a step, and of compiling them."""
  settings = config(**sizes)
  mesh = sharding.make_mesh(settings.mesh, jax.devices()[:1])
  model = train_state.configured_model(
      settings, mesh, rollouts.longest_sequence(settings.rl))
  programs, state = bench.make_programs(settings, model)
  prompts = bench.random_prompts(settings, model.placed)
  measured = {name: _Measured(one) for name, one in programs.items()}
  for index in range(1 + repeats):
    state, _, _ = bench.step(settings, measured, state, prompts, index)
  jax.clear_caches()
  return {name: one.figures() for name, one in measured.items()} | {
      'compiling': Figures(sum(one.compiling() for one in measured.values()))}


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
    _axis('response_tokens', (128, 256, 512), dict.fromkeys(
        ('reference', 'update'), Bound(None, .5, 'logits of logp_chunk tokens')
    ), 'response tokens, vocab 16,384', vocab=16384, width=32, layers=1,
          group=4, prompts=2, sample_chunk=512),
    _axis('prompt_tokens', (128, 256, 512), dict.fromkeys(
        _PARTS, Bound(1.1, 1.1, 'one prompt for its group'))),
    _axis('group', (16, 32, 64), _WORK),
    _axis('prompts', (8, 16, 32), _WORK),
    _axis('layers', (4, 8, 16), _WORK | {
        'compiling': Bound(.25, None, 'one layer, of a scan')}),
    _axis('vocab', (4096, 8192, 16384), _WORK, 'vocabulary'),
    _axis('micro_batch', (8, 16, 32), {
        'update': Bound(.2, 1.1, 'equal work; activations')}, 'micro_batch'),
)
