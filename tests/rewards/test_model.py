"""A reward model as a part of the reward: what is shown to it, and how."""

import jax
import numpy as np
import pytest

import tiny
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.data import chat
from r1jax.kernels import values
from r1jax.types import Prompts

END = 1


def _encode(prompt, answer):
  """Words are numbers; three of them begin a prompt."""
  return [2, 3, *map(int, prompt.split())], [*map(int, answer.split()), END]


def _model(asked, **switches):
  weight = lambda task: .5 if task == 'a' else 0.
  return rewards_lib.RewardModel('helpful', weight, _encode, asked, **dict(
      summary=False, max_len=64, batch=4) | switches)


def _count(batch):
  """How many tokens prompt and response have, told by their lengths."""
  group = len(batch.response) // len(batch.tokens)
  return (np.repeat(batch.length, group) + batch.response_length).astype('f')


PROMPTS = ['4', '5 6', '7 8 9']
RESPONSES = ['4', '', '5 5 5', '6', '7', '8 8']


@pytest.mark.parametrize('batch', [1, 2, 4, 100])
@pytest.mark.parametrize('shards', [1, 2])
def test_every_response_is_scored_once_behind_its_prompt(batch, shards):
  shapes = set()

  def asked(given):
    shapes.add(tuple(x.shape for x in given))
    assert len(given.tokens) % shards == 0
    return _count(given)

  found, cut = _model(asked, batch=batch, shards=shards).score(
      PROMPTS, RESPONSES)
  assert found.tolist() == [5, 4, 8, 6, 7, 8] and cut == 0
  _model(asked, batch=batch, shards=shards).score(PROMPTS, ['4 ' * 9] * 6)
  assert len(shapes) == 1  # one program


def test_scores_are_added_to_rows_by_their_task():
  records = [dict(prompt=prompt) for prompt in PROMPTS]
  rows = [dict(task='ab'[n // 2 % 2], response=text, reward=1.)
          for n, text in enumerate(RESPONSES)]
  assert _model(_count).apply(records, rows) == {'helpful_cut': 0}
  assert [row['helpful'] for row in rows] == [5, 4, 8, 6, 7, 8]
  assert [row['reward'] for row in rows] == [3.5, 3., 1., 1., 4.5, 5.]


def test_only_the_summary_is_shown_where_that_is_asked():
  texts = ['5 5 </think> 4', '<think> 9', '', '4 </think> ', '2', '3']
  texts[1] = '9'  # without thinking it is all summary
  found, _ = _model(_count, summary=True).score(PROMPTS, texts)
  assert found.tolist() == [5, 5, 5, 5, 7, 7]
  words = lambda prompt, text: ([2], [7] * len(text.split()))
  whole = rewards_lib.RewardModel('helpful', lambda task: 1., words, _count,
                                  summary=False, max_len=64, batch=1)
  assert whole.score(['4'], texts[:1])[0].tolist() == [1 + 4]


def test_what_the_model_cannot_hold_is_cut_and_counted():
  found, cut = _model(_count, max_len=8).score(
      PROMPTS, ['4', '4 ' * 9, '4', '4', '4 4 4', '4 4'])
  assert cut == 2 and found.max() <= 8
  found, cut = _model(_count, max_len=8).score(['4 ' * 20], ['4', '5'])
  assert cut == 2 and found.tolist() == [8, 8]
  seen = []
  cut = lambda prompt, answer: _model(
      lambda batch: seen.append(batch) or _count(batch), max_len=8).score(
          [prompt], [answer])
  cut('4', '5 6 7 8 9 4'), cut('4 5 6 7 8 9', '5 6')
  read = [(batch.tokens[0, :batch.length[0]].tolist(),
           batch.response[0, :batch.response_length[0]].tolist())
          for batch in seen]
  assert read == [([2, 3, 4], [5, 6, 7, 8, 9]), ([3, 4, 5, 6, 7, 8, 9], [5])]


def test_a_score_does_not_depend_on_the_other_prompts():
  alone, _ = _model(_count, max_len=12).score(['4'], ['4 4 4 4'])
  beside, _ = _model(_count, max_len=12).score(
      ['4', '4 ' * 9], ['4 4 4 4', '4'])
  assert alone[0] == beside[0] == 8


def test_a_real_model_gives_what_it_gives_alone():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  score = jax.jit(lambda batch: values.of_responses(
      model, params, Prompts(batch.tokens, batch.length, batch.length),
      batch.response, batch.response_length))
  judge = _model(lambda batch: np.asarray(score(rewards_lib.ScoreBatch(*batch))))
  found, _ = judge.score(PROMPTS, RESPONSES)
  for n, response in enumerate(RESPONSES):
    alone, _ = judge.score([PROMPTS[n // 2]], [response])
    np.testing.assert_allclose(found[n], alone[0], atol=1e-5)


def test_nothing_is_read_of_a_response_that_a_template_does_not_hold():
  """It is counted; what such a template leaves of it earns no score."""
  def encode(prompt, answer):
    if '9' in answer:
      raise chat.Rewritten('data.template', 'it drops 9')
    return _encode(prompt, answer)

  model = rewards_lib.RewardModel(
      'helpful', lambda task: 1., encode, _count, summary=False, max_len=64,
      batch=4)
  found, cut = model.score(['4'], ['5 5 5', '5 9 5', ''])
  assert found.tolist() == [7, 4, 4] and cut == 1
  assert model.apply([dict(prompt='4')], [
      dict(task='a', response='9', reward=0.)]) == {'helpful_cut': 1}
  # Where nothing scores more than something, it is worth the worst of a group.
  brief = model.__class__(
      'brief', lambda task: 1., encode, lambda batch: -_count(batch),
      summary=False, max_len=64, batch=4)
  found, _ = brief.score(['4', '4'], ['5 5 5', '5 9 5', '', '5 9 5'])
  assert found.tolist() == [-7, -7, -4, -4]


def test_a_prompt_that_a_template_does_not_hold_names_the_model():
  def encode(prompt, answer):
    raise chat.Rewritten('data.template', f'it drops {prompt}')

  model = rewards_lib.RewardModel(
      'helpful', lambda task: 1., encode, _count, summary=False, max_len=64,
      batch=4)
  with pytest.raises(errors.ConfigError,
                     match='rewards.models.helpful.template: it drops 4'):
    model.score(['4'], ['5'])
