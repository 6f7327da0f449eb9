"""Continuous batching in a stage, in an evaluation and of two processes."""

import numpy as np
import pytest

import hosts
import tiny
import tiny_rl
from r1jax.stages import evaluation
from r1jax.stages import rollouts

PROGRAM = """
import tiny, tiny_rl
from r1jax.parallel import sharding
from r1jax.stages import rollouts

placed = tiny.setup(dict(data=4))
rollout = rollouts.Sampler(placed, tiny_rl.SETTINGS._replace(slots=8))(
    tiny.placed(placed), tiny_rl.draw(0), 0, 0)
said = sharding.to_host(rollout.tokens).tolist()
"""


@pytest.mark.slow
@pytest.mark.parametrize('sizes, slots', [({}, 5), (dict(data=2, fsdp=4), 8)])
def test_training_takes_the_same_steps(sizes, slots):
  plain, history = tiny_rl.steps(tiny_rl.Run(), 3)
  state, same = tiny_rl.steps(tiny_rl.Run(
      sizes, settings=tiny_rl.SETTINGS._replace(slots=slots)), 3)
  tiny.assert_near(state, plain)
  for got, expected in zip(same, history):
    np.testing.assert_allclose(
        got['response_length/mean'], expected['response_length/mean'])


def test_an_evaluation_reads_the_same_responses():
  def rows(slots, batch):
    run = tiny_rl.Run(settings=tiny_rl.SETTINGS._replace(slots=slots))
    return evaluation.sample_all(
        run.sampler, run.scorer, run.init().params, tiny_rl.prompt_set(),
        batch, seed=0)[0]
  assert rows(6, 16) == rows(None, 4)


@pytest.mark.slow
def test_two_processes_draw_the_samples_of_one():
  placed = tiny.setup()
  rollout = rollouts.Sampler(placed, tiny_rl.SETTINGS)(
      tiny.placed(placed), tiny_rl.draw(0), 0, 0)
  assert hosts.run(PROGRAM) == [np.asarray(rollout.tokens).tolist()] * 2
