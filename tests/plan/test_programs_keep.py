"""What the programs of every stage never hold on a mesh, and what they send.

They are compiled as for a plan: the stages' own programs, of arguments with the
shardings that the stages give them.
"""

import functools
import math
import re
from typing import Any, NamedTuple

import jax
import pytest

from experiments import common
from experiments import reward_sections
from experiments import sections
from r1jax.models import architecture
from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.plan import programs
from r1jax.stages import distill
from r1jax.stages import train_state

LONG = 64  # lengths; all else of which a device has some is shorter
CHUNK = 8  # queries whose scores, and tokens whose logits are held at once
VOCAB, TENSOR, MICRO_BATCHES = 60, 2, 2
MODEL = dict(vocab=VOCAB, width=20, layers=3, heads=4, kv_heads=2, head_size=8,
             mlp=24, max_len=4 * LONG, attention_chunk=CHUNK, dtype='float32',
             param_dtype='float32')
ROWS = dict(batch=8, length=LONG, logp_chunk=CHUNK)
RL = dict(prompts=8, group=2, prompt_tokens=LONG, response_tokens=LONG,
          micro_batch=16 // MICRO_BATCHES, sample_chunk=LONG, logp_chunk=CHUNK)


def _config(kind, data, mesh=(), remat='full', scalar=False, **more):
  return common.base(
      kind, steps=7, data=data, mesh=dict(fsdp=4, tensor=TENSOR) | dict(mesh),
      model=common.model(**MODEL, remat=remat, scalar=scalar),
      vocab=common.vocab(kind='huggingface', path=None), **more)


def _rl(mesh=(), critic=(), **changes):
  return _config('rl', sections.prompts(None), mesh, **dict(critic),
                 rl=sections.rl(**RL | changes),
                 rewards=reward_sections.rewards())


def _lm(remat='full', **more):
  return _config('lm', sections.texts(None), remat=remat,
                 lm=sections.lm(**ROWS), eval=dict(split=None), **more)


def _preference(loss):
  return _config(
      'preference', sections.preferences(), scalar=loss != 'dpo',
      preference=sections.preference(loss=loss, **ROWS))


CONFIGS = {
    'ppo': lambda: _rl(
        critic=dict(critic=sections.critic()), advantage='gae'),
    'lm': lambda: _lm('dots'),
    'lm without remat': lambda: _lm('none'),
    'distill': lambda: _lm(distill=sections.distill(init_from='a teacher')),
    'pairwise': lambda: _preference('pairwise'),
    'dpo': lambda: _preference('dpo'),
    'context': lambda: _rl(
        dict(fsdp=2, context=2), correction='token_truncate', top_k=5,
        top_p=.9),
    'stepwise': lambda: _preference('stepwise'),
}
SLOW = 'context', 'stepwise'
every_config = pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in CONFIGS])


class Program(NamedTuple):
  """One of a stage, compiled."""
  part: programs.Part
  mesh: jax.sharding.Mesh
  text: str
  results: Any  # abstract, with their shardings

  @property
  def shapes(self):
    return {tuple(map(int, dims.split(',')))
            for dims in re.findall(r'\w\[([\d,]+)\]', self.text)}


@functools.cache
def _compiled(name):
  """The programs of a config, by their names."""
  config = CONFIGS[name]().lock()
  mesh = sharding.make_mesh(config.mesh)
  parts = programs.KINDS[config.stage](config, mesh)
  results, made = None, {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(distill, 'place_teacher', _teacher)
    while True:
      try:
        part = parts.send(results)
      except StopIteration:
        return made
      lowered = part.jitted.trace(*part.args).lower()
      executable = lowered.compile()
      results = sharding.abstract_arrays(
          lowered.out_info, executable.output_shardings)
      made[part.name] = Program(part, mesh, executable.as_text(), results)


def _teacher(section, mesh, rules, length):
  """A model of the student's shape, which is nowhere."""
  del length
  placed = train_state.place_model(
      architecture.Config(**MODEL, remat='full'), mesh, rules)
  return distill.Teacher(
      placed.model, section.kind, section.weight, section.temperature,
      section.top_k), placed, None


def _each(name, found):
  """Nothing is `found` in any program of a config."""
  assert {part: found(one) for part, one in _compiled(name).items()} == (
      dict.fromkeys(_compiled(name), set()))


@every_config
def test_nothing_has_two_lengths(name):
  """As the scores of all queries and keys have, or a mask of them."""
  _each(name, lambda one: {
      x for x in one.shapes if sum(size >= LONG for size in x) > 1})


@every_config
def test_logits_of_a_chunk_alone_are_in_memory(name):
  vocab = {VOCAB, VOCAB // TENSOR}
  _each(name, lambda one: {
      x for x in one.shapes if vocab & {*x} and max(x) >= LONG})
  logits = {x for one in _compiled(name).values() for x in one.shapes
            if CHUNK in x and vocab & {*x}}
  assert logits or name in ('pairwise', 'stepwise')  # found where they are


@every_config
def test_nothing_that_a_program_is_given_or_returns_is_whole_on_all_devices(
    name):
  """But what is as small as the scales of norms."""
  _each(name, lambda one: {
      x.shape for x in jax.tree.leaves((one.part.args, one.results))
      if getattr(x, 'sharding', None) and x.sharding.is_fully_replicated
      and math.prod(x.shape) >= 2 * LONG})


@every_config
def test_weights_of_all_layers_are_whole_on_no_device(name):
  for part, one in _compiled(name).items():
    shapes = {tuple(sorted(x)) for x in one.shapes}
    for x in jax.tree.leaves(one.part.state):
      if x.ndim > 2:
        assert not shapes & {tuple(sorted(x.shape)), _gathered(x)}, part
    layer = [MODEL['mlp'] // TENSOR, MODEL['width']]
    assert any(sorted(x)[-2:] == layer for x in one.shapes), part


def _gathered(x):
  """The sizes of a device's part of weights, gathered over fsdp."""
  split = ['tensor' if name == 'tensor' else None for name in x.sharding.spec]
  return tuple(sorted(jax.NamedSharding(
      x.sharding.mesh, jax.P(*split)).shard_shape(x.shape)))


TRAINED = {('all-gather', ('fsdp',)), ('all-reduce', ('fsdp',)),
           ('all-reduce', ('tensor',))}
# Figures of a response stay where it lies.
SCORED = TRAINED - {('all-reduce', ('fsdp',))}
# And for the most likely token of the parts of the vocabulary.
SAMPLED = TRAINED | {('all-gather', ('tensor',)),
                     ('collective-permute', ('tensor',))}
# How often weights are gathered, of layers and of tables: forward and backward
# in each micro-batch; a table once, and not with every chunk of logits.
GATHERED = {
    ('ppo', 'scoring'): (2 * MICRO_BATCHES, 2),  # reference; critic
    ('ppo', 'update'): (2 * MICRO_BATCHES, 1),
    ('ppo', "critic's update"): (2 * MICRO_BATCHES, 1),
    ('lm', 'update'): (2, 1), ('pairwise', 'update'): (2, 1),
    ('distill', 'update'): (3, 2), ('dpo', 'update'): (3, 2)}


@pytest.mark.parametrize('name, part', [('ppo', 'sampling'), *GATHERED])
def test_weights_are_gathered_and_nothing_else_is(name, part):
  one = _compiled(name)[part]
  sent = counts.Counts()
  for some in counts.count(
      hlo.parse(one.text), groups.of_mesh(one.mesh), lambda loop: 1.):
    sent.add(some)
  kinds = {(kind, group.axes): found
           for (kind, group), found in sent.sent.items()}
  if part == 'sampling':
    assert kinds.keys() == SAMPLED
    return
  assert kinds.keys() == (SCORED if part == 'scoring' else TRAINED)
  layers, tables = GATHERED[name, part]
  params = one.part.state['parameters']
  local = lambda tree: sum(
      4 * math.prod(x.sharding.shard_shape(x.shape))
      for x in jax.tree.leaves(tree))
  weights = [x for x in jax.tree.leaves(params['blocks']) if x.ndim > 2]
  others = one.mesh.shape['fsdp'] - 1
  assert kinds['all-gather', ('fsdp',)] == (
      others * (layers * local(weights) + tables * local(params['embedding'])),
      layers * len(weights) * MODEL['layers'] + tables)
