"""What the programs of a mesh never hold, and what they send."""

import re

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.stages import rollouts
from r1jax.types import Prompts

LAYERS, WIDTH, MLP = 3, 16, 24
SIZES = dict(fsdp=4, tensor=2)


def _update(**switches):
  """The compiled update of a micro-batch, and its run."""
  run = tiny_rl.Run(SIZES, layers=LAYERS, **switches)
  placed, number = run.placed, np.uint32(0)
  batch = run.learner._draw(0)
  prompts = sharding.from_host(
      Prompts(batch.tokens, batch.length, batch.id), placed.mesh, uneven=True)
  abstract = lambda program: jax.tree.map(
      lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
      program.out_info, program.output_shardings)
  rollout = abstract(rollouts.jitted_sampling(placed.mesh).lower(
      placed.sampling, run.sampler._settings, placed.params, prompts, number,
      number).compile())
  reward = jax.ShapeDtypeStruct(
      rollout.tokens.shape[:1], np.float32, sharding=placed.batch)
  experience, _ = abstract(run.learner._experience.lower(
      placed.params, rollout, reward, *[None] * 4).compile())
  return run, run.learner._update.lower(
      run.abstract, experience, 0).compile().as_text()


def _shapes(text):
  return {tuple(map(int, dims.split(',')))
          for dims in re.findall(r'\w\[([\d,]+)\]', text)}


@pytest.mark.parametrize('remat', ['none', 'dots', 'full'])
def test_weights_of_all_layers_are_whole_on_no_device(remat):
  _, text = _update(remat=remat)
  shapes = _shapes(text)
  assert any(sorted(x)[-2:] == [MLP // 2, WIDTH] for x in shapes)  # one layer's
  assert not shapes & {(LAYERS, WIDTH, MLP // 2), (LAYERS, MLP // 2, WIDTH)}


def test_weights_are_gathered_twice_and_nothing_else_is():
  """Forward and backward; the table once, and not with every chunk of logits."""
  run, text = _update(remat='full')
  sent, _ = counts.count(hlo.parse(text), groups.of_mesh(run.placed.mesh))
  kinds = {(kind, group.axes): found for (kind, group), found
           in sent.sent.items()}
  assert kinds.keys() == {('all-gather', ('fsdp',)), ('all-reduce', ('fsdp',)),
                          ('all-reduce', ('tensor',))}
  params = run.placed.params
  local = lambda tree: sum(
      4 * np.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)
      if x.ndim > 2 or x is params['embedding'])
  others = SIZES['fsdp'] - 1
  assert kinds['all-gather', ('fsdp',)] == (
      others * (2 * local(params['blocks']) + local(params['embedding'])),
      2 * 7 * LAYERS + 1)


def test_logits_of_a_chunk_alone_are_in_memory():
  _, text = _update(vocab=46)
  vocab, chunk = 46 // SIZES['tensor'], tiny_rl.OBJECTIVE.logp_chunk
  rows = tiny_rl.PROMPTS * tiny_rl.GROUP // SIZES['fsdp']
  logits = [x for x in _shapes(text) if vocab in x and np.prod(x) > vocab * (
      tiny.SHAPE['width'])]
  assert logits and max(map(np.prod, logits)) == rows * chunk * vocab
  assert chunk < tiny_rl.RESPONSE
