"""Wherever a stage spends time it looks for a signal, and loses no state."""

import types

import jax
import numpy as np
import pytest

import test_lm
import test_preference
import tiny
import tiny_rl
from r1jax import interrupts
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.parallel import distributed
from r1jax.stages import evaluation
from r1jax.stages import lm
from r1jax.stages import model_rewards
from r1jax.stages import preference
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.types import TrainState


@pytest.fixture(name='stop_at')
def _stop_at(monkeypatch):
  """Makes the n-th look for a signal find one; how often it was looked."""
  looks = []
  def set_(number):
    def look():
      looks.append(number)
      if len(looks) == number:
        raise interrupts.Stopped
    monkeypatch.setattr(distributed, 'check_stopped', look)
    return looks
  return set_


class _Scorer(tiny_rl.Scorer):
  asked = 0

  def score(self, records, responses):
    self.asked += 1
    return super().score(records, responses)


@pytest.mark.parametrize('number, scored', [(1, 0), (2, 1)])
def test_a_step_of_rl_stops_before_its_update(stop_at, number, scored):
  """After sampling; after scoring. The state is as it was."""
  scorer = _Scorer()
  run = tiny_rl.Run(scorer=scorer)
  state = run.init()
  stop_at(number)
  with pytest.raises(interrupts.Stopped):
    run.learner(state, 0)
  assert scorer.asked == scored
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_dynamic_sampling_stops_between_its_rounds(stop_at):
  class Equal(_Scorer):
    def score(self, records, responses):
      self.asked += 1
      zero = np.zeros(len(responses), np.float32)
      return rewards_lib.Scores(zero, {'accuracy': zero, 'format': zero}, {})
  scorer = Equal()
  run = tiny_rl.Run(scorer=scorer, sampling_rounds=9)
  state = run.init()
  stop_at(4)
  with pytest.raises(interrupts.Stopped):
    run.learner(state, 0)
  assert scorer.asked == 3


def _problems(count):
  prompts = tiny.prompts([3] * count)
  return batches.PromptSet(prompts.tokens, prompts.length, tuple(
      dict(prompt='?', answer='1', task='t') for _ in range(count)), ())


def test_an_evaluation_stops_between_its_batches(stop_at):
  scorer, setup = _Scorer(), tiny.setup()
  stop_at(3)
  with pytest.raises(interrupts.Stopped):
    evaluation.sample_all(
        rollouts.Sampler(setup, tiny_rl.SETTINGS),
        scoring.RolloutScorer(tiny_rl.Vocab(), scorer), tiny.placed(setup),
        _problems(64), batch=8, seed=0)
  assert scorer.asked == 2


def test_scoring_stops_before_each_model(stop_at):
  applied, setup = [], tiny.setup()
  models = [types.SimpleNamespace(
      name=name, apply=lambda records, rows: applied.append(1) or {})
            for name in 'ab']
  prompts = _problems(8)
  batch = batches.slice_of(prompts, 0, 8)
  rollout = rollouts.Sampler(setup, tiny_rl.SETTINGS)(
      tiny.placed(setup), batch, 0, 0)
  stop_at(3)
  with pytest.raises(interrupts.Stopped):
    scoring.RolloutScorer(tiny_rl.Vocab(), _Scorer(), models)(rollout, batch)
  assert len(applied) == 1


def test_a_judge_stops_between_its_batches(stop_at):
  replied, judge = [], object.__new__(model_rewards._Model)
  judge._size, judge._batch, judge._settings = 4, 2, tiny_rl.SETTINGS
  judge._tokens = lambda text: [1]
  judge._reply = lambda settings, prompts, texts, attempt: (
      replied.append(1) or texts)
  assert judge(['x'] * 4, 0) == ['x'] * 4 and len(replied) == 2
  stop_at(2)
  with pytest.raises(interrupts.Stopped):
    judge(['x'] * 20, 0)
  assert len(replied) == 3


def test_a_held_out_loss_stops_between_its_batches(stop_at):
  setup, rows, taken = tiny.setup(), test_lm._rows(), []
  state = TrainState(None, tiny.placed(setup), None, None, None)
  watched = types.SimpleNamespace(
      size=rows.size, take=lambda index: taken.append(1) or rows.take(index))
  stop_at(2)
  with pytest.raises(interrupts.Stopped):
    lm.make_evaluator(setup, watched, 4, chunk=6)(state)
  assert len(taken) == 1 and rows.size > 8


def test_scores_of_an_evaluation_stop_those_within_a_step_do_not(stop_at):
  """A step of which is normalised has donated its state."""
  setup, rows = tiny.setup(scalar=True), test_preference._rows()
  score = preference.RawScorer(setup, test_preference.PAIRWISE, 8)
  state = TrainState(None, tiny.placed(setup, scalar=True), None, None, None)
  looks = stop_at(1)
  assert score(state, rows, count=0) and not looks
  with pytest.raises(interrupts.Stopped):
    score(state, rows)
  assert np.size(looks) == 1
