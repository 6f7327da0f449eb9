"""What is decoded, what the scorer is told, and what is logged."""

import types

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from experiments import reward_sections
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import batches
from r1jax.parallel import roll_call
from r1jax.parallel import sharding
from r1jax.rewards import lengths
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.types import Rollout

EOS = tiny.EOS


class _Remembering(tiny_rl.Scorer):

  def score(self, records, responses):
    self.records, self.responses = records, responses
    return super().score(records, responses)


def _scored(placed, scorer, batch, step, models=()):
  """The rewards of a rollout of `batch` under the tiny model."""
  sampler = rollouts.Sampler(placed, tiny_rl.SETTINGS)
  return scoring.RolloutScorer(tiny_rl.Vocab(), scorer, models)(
      sampler(tiny.placed(placed), batch, seed=0, stream=step), batch)


def test_responses_are_decoded_by_their_length():
  """Without EOS, told how they ended, whatever fills a row up."""
  tokens = np.int32(
      [[4, 6, EOS, EOS], [4, 3, 5, 7], [EOS, 9, 9, 9], [8, 8, 8, EOS]])
  mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
  prompts = tiny.prompts((3, 2))
  scorer = _Remembering()
  rollout = sharding.from_host(
      Rollout(prompts, tokens, mask.astype(bool), np.zeros((4, 4), 'f')),
      tiny.setup().mesh)
  first, second = tiny_rl.draw(0, 2).records
  second = second | {'source': {'id': 4}}
  records = first, second
  scored = scoring.RolloutScorer(tiny_rl.Vocab(), scorer)(
      rollout, batches.PromptBatch(*prompts[:3], records))
  assert scorer.responses == [
      rewards_lib.Response('4 6', 3, True), rewards_lib.Response('4 3 5 7', 4, False),
      rewards_lib.Response('', 1, True), rewards_lib.Response('8 8 8', 4, True)]
  assert scorer.records == [first, first, second, second]
  np.testing.assert_allclose(scored.reward, [1., .15, 0., 1.], rtol=1e-6)
  np.testing.assert_allclose(scored.parts['accuracy'], [1., .25, 0., 1.])
  assert scored.counters == {'errors': 1}
  assert scoring.scorer_metrics(scored) == {
      'verifier/errors': 1, **scored.seconds}
  assert all(name.startswith('timing/scored_') for name in scored.seconds)
  assert scored.rows[1] == {
      'id': 3, 'task': first['task'], 'prompt': first['prompt'],
      'answer': first['answer'], 'response': '4 3 5 7', 'tokens': 4,
      'finished': False, 'reward': pytest.approx(.15), 'accuracy': .25,
      'format': 0.}
  assert [row['id'] for row in scored.rows] == [3, 3, 10, 10]
  assert [row.get('source') for row in scored.rows] == [
      None, None, {'id': 4}, {'id': 4}]


def test_what_the_prompt_has_opened_begins_the_response():
  scorer = _Remembering()
  prompts, batch = tiny.prompts((3, 2)), tiny_rl.draw(0, 2)
  rollout = sharding.from_host(Rollout(
      prompts, np.int32([[4, EOS], [6, EOS]]), np.ones((2, 2), bool),
      np.zeros((2, 2), 'f')), tiny.setup().mesh)
  records = batch.records[0] | {'opened': True}, batch.records[1]
  with pytest.raises(ValueError):  # the tiny scorer reads numbers alone
    scoring.RolloutScorer(tiny_rl.Vocab(), scorer)(
        rollout, batches.PromptBatch(*prompts[:3], records))
  assert [r.text for r in scorer.responses] == ['<think>\n4', '6']
  assert [r.tokens for r in scorer.responses] == [2, 2]


def test_a_rollout_and_its_rows_agree_on_every_mesh():
  every = []
  for sizes in (None, dict(data=4, tensor=2)):
    batch = tiny_rl.draw(0)
    scored = _scored(tiny.setup(sizes), tiny_rl.Scorer(), batch, step=5)
    rollout = scored.rollout
    np.testing.assert_array_equal(rollout.prompts.id, batch.id)
    for row, tokens, mask, reward in zip(
        scored.rows, rollout.tokens, rollout.mask, scored.reward):
      words = np.asarray(tokens)[np.asarray(mask)].tolist()
      words = words[:-1] if row['finished'] else words
      assert row['response'] == ' '.join(map(str, words))
      assert row['reward'] == reward and row['tokens'] == mask.sum()
    every.append(scored.rows)
  assert every[0] == every[1]
  assert {row['finished'] for row in every[0]} == {True, False}


@pytest.mark.parametrize('sizes', [None, dict(data=4, tensor=2)])
def test_what_fills_a_batch_up_is_sampled_and_not_scored(sizes):
  scorer, judge = _Remembering(), _Judge()
  placed, group = tiny.setup(sizes), tiny_rl.GROUP
  whole = tiny_rl.draw(0)
  cut = whole._replace(records=whole.records[:3])
  every, got = (_scored(placed, scorer, batch, 2, [judge])
                for batch in (whole, cut))
  np.testing.assert_array_equal(got.rollout.tokens, every.rollout.tokens)
  assert got.rows == every.rows[:3 * group]
  assert len(scorer.responses) == 3 * group and judge.asked == cut.records
  for name, part in got.parts.items():
    np.testing.assert_array_equal(
        part[:3 * group], every.parts[name][:3 * group])
    assert not np.any(part[3 * group:])
  np.testing.assert_array_equal(
      got.reward[:3 * group], every.reward[:3 * group])
  assert not np.any(got.reward[3 * group:])


def test_where_no_group_is_complete_no_model_is_asked():
  """Partial rollouts: all of a step may go on in the next."""
  models = [_Judge(), lengths.LengthReward('kimi', lambda task: 1., None, 0.)]
  scored = _scored(tiny.setup(), _Remembering(), tiny_rl.draw(0)._replace(
      records=()), 2, models)
  assert scored.rows == [] and not scored.reward.any()


def test_rows_are_in_their_order_whichever_host_scored_them(monkeypatch):
  scored = lambda: _scored(tiny.setup(), tiny_rl.Scorer(), tiny_rl.draw(0), 5)
  alone = scored()
  monkeypatch.setattr(
      scoring.distributed, 'gather', lambda found: [(found[0][::-1], found[1])])
  assert scored().rows == alone.rows
  np.testing.assert_array_equal(scored().reward, alone.reward)


class _Broken(tiny_rl.Scorer):

  def score(self, records, responses):
    raise errors.RunError('no verifier starts')


def test_where_one_process_cannot_verify_the_others_end(monkeypatch):
  """They would wait for its rewards."""
  said = []
  monkeypatch.setattr(roll_call, 'hold', lambda why, trace: said.append(why))
  monkeypatch.setattr(
      roll_call, 'jax', types.SimpleNamespace(process_count=lambda: 2))
  with pytest.raises(errors.RunError):
    _scored(tiny.setup(), _Broken(), tiny_rl.draw(0), 5)
  assert said == ['no verifier starts']


def test_means_of_columns_are_over_what_is_trained_on():
  rows = [{'length/words': 1.}, {'length/words': 5.}]
  scored = types.SimpleNamespace(
      counters={}, rows=rows, kept_rows=None, seconds={})
  assert scoring.scorer_metrics(scored) == {'reward/length/words': 3.}
  scored.kept_rows = rows[1:]
  assert scoring.scorer_metrics(scored) == {'reward/length/words': 5.}


def test_select_takes_whole_groups_of_several_rollouts():
  placed = tiny.setup()
  every = [_scored(placed, tiny_rl.Scorer(), tiny_rl.draw(number), number)
           for number in (0, 1)]
  chosen = np.array([1, 6, 8, 15])
  scored = scoring.select_groups(every, chosen, tiny_rl.GROUP)
  for place, number in enumerate(chosen):
    one, b = every[number // 8], number % 8
    got, want = (slice(i * tiny_rl.GROUP, (i + 1) * tiny_rl.GROUP)
                 for i in (place, b))
    for name in ('tokens', 'mask', 'logp'):
      np.testing.assert_array_equal(
          getattr(scored.rollout, name)[got], getattr(one.rollout, name)[want])
    np.testing.assert_array_equal(scored.reward[got], one.reward[want])
    np.testing.assert_array_equal(
        scored.parts['format'][got], one.parts['format'][want])
    jax.tree.map(
        lambda a, c, i=place, b=b: np.testing.assert_array_equal(a[i], c[b]),
        scored.rollout.prompts, one.rollout.prompts)
  assert scored.rows == every[0].rows + every[1].rows
  assert scored.counters == {'errors': 2}
  assert scored.seconds == {
      name: every[0].seconds[name] + every[1].seconds[name]
      for name in every[0].seconds} != {}


def test_counters_are_summed_and_said():
  counts = scoring.sum_counters([
      {'errors': 2, 'timeouts': 0, 'judge_malformed': 1},
      {'errors': 3, 'timeouts': 0, 'judge_malformed': 0}])
  assert counts == {'errors': 5, 'timeouts': 0, 'judge_malformed': 1}
  assert scoring.describe_counters(counts) == 'verifier: errors 5, judge_malformed 1'
  assert scoring.describe_counters({'errors': 0}) == 'verifier: nothing failed'


class _Judge:
  """A model that likes long texts."""
  name = 'preference'

  def apply(self, records, rows):
    self.asked = records
    for row in rows:
      row['preference'] = float(len(row['response']))
      row['reward'] += .5 * row['preference']
    return {'preference_cut': 3}


def test_the_rules_have_the_weights_of_all_but_models():
  rewards = reward_sections.rewards(
      dict(accuracy=.5, taste=2.), {'t': dict(format=3., taste=1.)},
      dict(taste=reward_sections.reward_model(init_from='nowhere')))
  with scoring.make_rule_scorer(rewards, 100) as scorer:
    weights = [scorer.weight(part, task) for task in 'tu'
               for part in ('accuracy', 'format', 'taste')]
  assert weights == [.5, 3., 0., .5, 1., 0.]
  rewards.functions = {'taste': 'own.py:taste'}
  with pytest.raises(errors.ConfigError, match='rewards.functions.taste'):
    scoring.make_rule_scorer(rewards, 100)


def test_programs_are_refused_where_there_is_no_sandbox(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  prompts = lambda verifier: batches.PromptSet(
      None, None, (), [dict(task='t', verifier=verifier)])
  rewards = reward_sections.rewards()
  scoring.check_code(rewards, prompts('math'))
  with pytest.raises(errors.ConfigError, match='unsafe_subprocess.*installed'):
    scoring.check_code(rewards, prompts('code'))
  rewards.code.unsafe_subprocess = True
  scoring.check_code(rewards, prompts('code'))


@pytest.mark.parametrize('sizes', [None, dict(data=2, fsdp=2, tensor=2)])
def test_reward_models_are_parts_of_the_reward(sizes):
  placed, judge, batch = tiny.setup(sizes), _Judge(), tiny_rl.draw(0)
  got, without = (_scored(placed, tiny_rl.Scorer(), batch, 2, models)
                  for models in ([judge], ()))
  length = np.float32([len(row['response']) for row in got.rows])
  assert judge.asked == batch.records
  np.testing.assert_array_equal(got.parts['preference'], length)
  np.testing.assert_allclose(
      got.reward, np.asarray(without.reward) + .5 * length, rtol=1e-6)
  assert [row['preference'] for row in got.rows] == length.tolist()
  assert got.counters['preference_cut'] == 3
