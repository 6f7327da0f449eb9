"""A group whose responses lie on several devices: nothing else is different."""

import functools
import re

import jax
import numpy as np
import pytest

import hosts
import tiny
import tiny_rl
from r1jax.parallel import sharding
from r1jax.stages import evaluation
from r1jax.stages import grpo
from r1jax.stages import rollouts
from r1jax.training import accumulate
from r1jax.training import optim
from r1jax.types import Prompts

B, G = 2, 16  # prompts, and responses to each
OBJECTIVE = tiny_rl.OBJECTIVE._replace(group=G)
PPO = OBJECTIVE._replace(
    advantage='gae', aggregate='token_mean', kl='k1', kl_in='reward', beta=.1)
CRITIC = dict(gamma=1., lam=.95, whiten=True, value_clip=.2)
# Where a gradient is all rounding, Adam takes a step of any sign.
SMALL_STEPS = optim.make_optimizer(lr=1e-3, steps=100, weight_decay=0.01)


@pytest.fixture(autouse=True, scope='module')
def _small_steps():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tiny_rl, 'OPTIMIZER', SMALL_STEPS)
    yield


def _run(sizes=None, objective=OBJECTIVE, prompts=B, **changes):
  return tiny_rl.Run(
      sizes, objective=objective,
      settings=tiny_rl.SETTINGS._replace(group=objective.group),
      draw=lambda number: tiny_rl.draw(number + 1, prompts), **changes)


@functools.cache
def _alone(objective, critic=()):
  return tiny_rl.logged(_run(objective=objective, critic=dict(critic) or None))


@pytest.mark.parametrize('sizes', [dict(data=2), dict(data=2, fsdp=4)])
def test_devices_that_share_a_prompt_take_the_steps_of_one(sizes):
  """In micro-batches of less than a group, at that."""
  state, rows, history = tiny_rl.logged(
      _run(sizes, OBJECTIVE._replace(micro_batch=8)))
  expected, same_rows, metrics = _alone(OBJECTIVE)
  assert rows == same_rows
  tiny.assert_near(state, expected)
  for name in ('policy/loss', 'kl/ref', 'policy/entropy', 'reward/std'):
    np.testing.assert_allclose(
        [step[name] for step in history], [step[name] for step in metrics],
        atol=1e-5, err_msg=name)


def test_a_critic_that_shares_a_prompt_learns_the_same():
  state, rows, history = tiny_rl.logged(_run(
      dict(data=2, fsdp=4), PPO._replace(micro_batch=16), critic=CRITIC))
  expected, same_rows, metrics = _alone(PPO, tuple(CRITIC.items()))
  assert rows == same_rows
  tiny.assert_near(state, expected, 1e-4)
  tiny.assert_near(history[-1]['critic/loss'], metrics[-1]['critic/loss'])


def _scored(run):
  """The state, and a scored rollout on its devices."""
  state = run.init()
  return state, run.learner.score(*run.learner.sample(state, 0))


@functools.cache
def _gradient(sizes, size):
  """Log-probabilities of a rollout, and the gradient from it."""
  run = _run(dict(sizes), OBJECTIVE._replace(micro_batch=size))
  model, objective = run.placed.model, run._objective
  state, scored = _scored(run)

  @jax.jit
  def make(params, rollout, reward):
    experience, _ = tiny_rl.experience(model, objective, params, rollout, reward)
    experience = experience._replace(old_logp=experience.old_logp - .3)
    return experience.ref_logp, accumulate.gradients_of(
        functools.partial(grpo.loss, model, objective), params,
        *grpo.mini_batch(model, objective, experience, 0))

  return jax.device_get((scored.rollout.tokens, *make(
      state.params, scored.rollout, scored.reward)))


@pytest.mark.parametrize('axis, devices, size', [
    ('fsdp', 4, None), ('data', 8, 16)])
def test_log_probabilities_and_gradients_are_those_of_one_device(
    axis, devices, size):
  tokens, logp, (grads, figures) = _gradient(((axis, devices),), size)
  same_tokens, expected, (same_grads, same) = _gradient((), None)
  np.testing.assert_array_equal(tokens, same_tokens)
  np.testing.assert_allclose(logp, expected, rtol=2e-6, atol=2e-6)
  for got, want in zip(*map(jax.tree.leaves, (grads, same_grads))):
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())
  np.testing.assert_allclose(figures['loss'], same['loss'], rtol=1e-5)


def _moved(compiled):
  """The shapes of what a program moves between devices, sums left out."""
  text = compiled.as_text()
  assert 'num_partitions=' in text  # the program is one of several devices
  moves = re.findall(r'= (.*) (?:all-gather|all-to-all|collective-permute|'
                     r'collective-broadcast|ragged-all-to-all)(?:-start)?\(',
                     text)
  return [tuple(map(int, filter(None, shape.split(',')))) for move in moves
          for shape in re.findall(r'\w+\[([\d,]*)\]', move)]


def _programs(run):
  """Sampling, experience and update of a run, compiled; none runs."""
  def compiled(jitted, *args):
    program = jitted.lower(*args).compile()
    return program, jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        program.out_info, program.output_shardings)

  learner, placed, number = run.learner, run.placed, np.uint32(0)
  batch = run.learner._draw(0)
  prompts = sharding.from_host(
      Prompts(batch.tokens, batch.length, batch.id), placed.mesh, uneven=True)
  sample, rollout = compiled(
      rollouts.jitted_sampling(placed.mesh), placed.model,
      run.sampler._settings, placed.params, prompts, number, number)
  reward = jax.ShapeDtypeStruct(
      rollout.tokens.shape[:1], np.float32, sharding=placed.batch)
  score, measured = compiled(learner._measure, placed.params, rollout)
  _, (experience, _) = compiled(
      learner._experience, rollout, reward, measured)
  update, _ = compiled(learner._update, run.abstract, experience, 0)
  return sample, score, update


def test_no_row_leaves_its_device():
  """Parameters are whole on every device here: only sums are exchanged."""
  run = _run(dict(data=8), OBJECTIVE._replace(micro_batch=8))
  assert list(map(_moved, _programs(run))) == [[], [], []]


def test_a_mini_batch_of_fewer_prompts_than_devices_moves_no_hidden_state():
  """Tokens and figures of its responses move, before the forward pass."""
  run = _run(dict(data=8), OBJECTIVE._replace(
      group=8, mini_batches=2, micro_batch=8), prompts=4)
  *others, update = map(_moved, _programs(run))
  assert others == [[], []] and update
  assert {shape[-1] for shape in update} <= {1, 8, tiny_rl.RESPONSE}


SHARED = """
import sys
sys.path[:0] = ['tests', 'tests/stages', 'tests/support']
import jax
import numpy as np
import test_split_groups as test
from r1jax.parallel import sharding
test.tiny_rl.OPTIMIZER = test.SMALL_STEPS
run = test.dynamic(dict(data=4))
scored = []
score = run.scorer._rule_scorer.score
run.scorer._rule_scorer.score = lambda records, responses: (
    scored.append(len(responses)) or score(records, responses))
state, _, rows = run.learner(run.init(), 0)
rows = [row['response'] for row in rows]
embedding = jax.jit(lambda x: x, out_shardings=run.placed.replicated)(
    state.params['embedding'])
said = dict(scored=scored, rows=rows, params=np.asarray(
    embedding.addressable_data(0)).tolist())
"""


def dynamic(sizes):
  """One prompt for four devices, and DAPO's dynamic sampling."""
  return _run(sizes, OBJECTIVE._replace(
      drop_equal_groups=True), prompts=1, sampling_rounds=2)


@pytest.mark.slow
def test_two_processes_share_one_prompt():
  """Each scores the half of a group; both end with the step of one device."""
  run = dynamic(None)
  state, _, rows = run.learner(run.init(), 0)
  for said in hosts.run(SHARED):
    assert said['scored'] and set(said['scored']) == {G // 2}
    assert said['rows'] == [row['response'] for row in rows]
    np.testing.assert_allclose(
        said['params'], state.params['embedding'], atol=1e-5)


def _evaluate(sizes):
  placed = tiny.setup(sizes)
  return evaluation.make_evaluator(
      placed, tiny_rl.prompt_set(5), _run().scorer,
      tiny_rl.SETTINGS._replace(group=4), batch=2, shown=2, seed=0)(
          tiny.placed(placed), 0)


def test_two_problems_at_a_time_are_evaluated_on_eight_devices():
  """Their samples divide; the greedy response to each is one of a fuller batch.
  """
  results, samples = _evaluate(dict(data=8))
  expected, same_samples = _evaluate(None)
  assert results.pop('verifier') != expected.pop('verifier')  # other batches
  assert (results, samples) == (expected, same_samples)
