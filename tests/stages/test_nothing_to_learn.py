"""What a stage learns from is counted; nothing to learn is one line at once."""

import json

import jax
import numpy as np
import pytest

import ragged_rows
from experiments import r1_zero
from experiments import reward_model
from experiments import reward_sections
from r1jax import errors
from r1jax.data import batches
from r1jax.data import ragged
from r1jax.data import templates
from r1jax.data import vocabs
from r1jax.parallel import sharding
from r1jax.stages import lm
from r1jax.stages import preference
from r1jax.stages import preference_figures
from r1jax.stages import rl
from r1jax.stages import scoring
from r1jax.types import Preferences


@pytest.fixture(name='vocab', scope='module')
def _vocab():
  return vocabs.load_vocab('sentencepiece', 'mini')


def _documents(vocab, *texts):
  begin = [] if vocab.bos_id is None else [vocab.bos_id]
  return ragged_rows.of([[*begin, *vocab.encode(text), vocab.eos_id]
                         for text in texts])


def _answers(vocab, *texts):
  """Tokens and weights of answers to a question."""
  encode, found = templates.pair_encoder('mini', vocab), []
  for text in texts:
    asked, said = encode('What is 1+1?', text)
    found.append((asked + said, [0] * len(asked) + [1] * len(said)))
  tokens, weights = zip(*found)
  return ragged_rows.of(tokens), ragged_rows.of_weights(weights)


def test_empty_documents_are_left_out_and_counted(vocab, capsys):
  documents = _documents(vocab, '', 'What is 1+1?', ' \n', 'a')
  assert lm.says_something(documents, None, vocab).tolist() == [
      False, True, False, True]
  rows = lm._packed(documents, None, vocab, 32, 'train')
  assert rows.counts['documents'] == 2
  assert '2 of 4 texts of split \'train\' are empty' in capsys.readouterr().out


@pytest.mark.parametrize('texts', [[''], ['', ' ', '\n\n'], []])
def test_documents_that_are_all_empty_are_one_line(vocab, texts):
  with pytest.raises(errors.ConfigError, match=(
      f"config.data.task: nothing to learn from: .* {len(texts)} texts of "
      "split 'heldout'")) as caught:
    lm._packed(_documents(vocab, *texts), None, vocab, 32, 'heldout')
  assert '\n' not in str(caught.value)


def test_answers_that_say_nothing_teach_nothing(vocab, capsys):
  """But for their end: the questions have no weight."""
  tokens, weights = _answers(vocab, '2', '', ' ')
  says = lm.says_something(tokens, weights, vocab)
  assert says.tolist() == [True, False, False]
  rows = lm._packed(tokens, weights, vocab, 64, 'train')
  assert rows.counts['documents'] == 1
  assert '2 of 3 texts' in capsys.readouterr().out
  with pytest.raises(errors.ConfigError, match='data.task: nothing to learn'):
    lm._packed(tokens.chosen(~says), weights.chosen(~says), vocab, 64, 'train')
  weighted = lambda values: ragged.Ragged(values, weights.end)
  asked_too = weighted(weights.values + .5 * (1 - weights.values))
  assert lm.says_something(tokens, asked_too, vocab).all()
  assert not lm.says_something(
      tokens, weighted(0 * weights.values), vocab).any()


class _Words:
  """A vocabulary whose pieces below 5 are white space."""

  def decode(self, ids):
    return 'word' if ids[0] >= 5 else ' '


@pytest.mark.parametrize('tokens, weights, says', [
    ([], [], False), ([5], [1], False),  # nothing predicts the first
    ([5, 1], [1, 1], True), ([5, 1], [1, 0], False), ([1, 5], [0, 1], True),
    ([1, 5], [1, 0], False), ([1, 1], [1, 1], False),
    ([5, 6, 7], [0, 0, .1], True)])
def test_what_says_something_by_hand(tokens, weights, says):
  """Of a document between two others."""
  documents, weights = [[1, 1], tokens, [1, 7]], [[1, 1], weights, [0, 1]]
  found = lm.says_something(
      ragged_rows.of(documents), ragged_rows.of_weights(weights), _Words())
  assert found.tolist() == [False, says, True]


def test_what_is_left_keeps_its_weights():
  documents = ragged_rows.of([[1, 1], [5, 6, 7], [8, 9]])
  weights = ragged_rows.of_weights([[1, 1], [0, .5, 0], [0, .25]])
  rows = lm._packed(documents, weights, _Words(), 8, 'train').batch(0, 1, 0)
  assert dict(zip(rows.tokens[0].tolist(), rows.weight[0].tolist())) == {
      5: 0., 6: .5, 7: 0., 8: 0., 9: .25, 0: 0.}


def test_a_row_of_ends_alone_is_none():
  """Of 17 tokens, 16 are a row, and the last is predicted from nothing."""
  rows = batches.packed(ragged_rows.of([np.arange(17)] * 20), 16)
  assert rows.size == 20
  weight = rows.take(np.arange(rows.size)).weight.sum(1)
  np.testing.assert_array_equal(weight, 15)
  assert rows.counts['rows'] == 20 and rows.counts['padding'] == 0
  beside = batches.packed(
      ragged_rows.of([*[np.arange(17)] * 20, np.arange(3)]), 16)
  assert (beside.take(np.arange(beside.size)).weight.sum(1) > 0).all()
  with pytest.raises(errors.ConfigError, match='config.data.task: none of its'):
    batches.packed(ragged_rows.of([np.arange(1)] * 3), 4)
  with pytest.raises(errors.ConfigError, match='config.data.task: none of its'):
    batches.packed(ragged_rows.of([np.arange(3)]), 4,
                   ragged_rows.of_weights([np.zeros(3)]))


def _config(tmp_path, rows, loss='pairwise', held_out=(), **settings):
  """The mini experiment on rows of (responses, grades)."""
  path = tmp_path / 'pairs.jsonl'
  path.write_text(''.join(json.dumps(dict(
      prompt=f'Count {n}', responses=responses, grades=grades)) + '\n'
                          for n, (responses, grades) in enumerate(
                              [*rows, *held_out])))
  config = reward_model.mini('mini', f'jsonl:{path}').unlock()
  config.data.split = f'train[:{len(rows)}]'
  config.eval.split = f'train[{len(rows)}:]'
  config.preference.update(loss=loss, batch=1, **settings)
  return config


def _rows(config, vocab, split=None):
  return preference.read_rows(config, vocab, 256, split or config.data.split)


PAIR = (['1 2', '2 1'], [1, 0])


@pytest.mark.parametrize('loss', ['pairwise', 'dpo'])
@pytest.mark.parametrize('rows', [
    [(['1 2', '2 1'], [1, 1])], [(['1 2'], [3])], [(['1', '2'], [0, 0])] * 3])
def test_a_split_without_a_pair_is_one_line(tmp_path, vocab, loss, rows):
  config = _config(tmp_path, rows, loss, [PAIR])
  with pytest.raises(errors.ConfigError, match=(
      'config.data.task: expected prompts with responses of unequal grades; '
      f'those to each of these {len(rows)} ')):
    _rows(config, vocab)
  config = _config(tmp_path, [PAIR], loss, rows)
  assert _rows(config, vocab).size == 1
  with pytest.raises(errors.ConfigError, match='config.eval.split: expected'):
    _rows(config, vocab, config.eval.split)


def test_a_split_whose_pairs_are_too_long_is_one_line(tmp_path, vocab):
  """What is left has nothing to compare."""
  rows = [(['1 2 ' * 50, '2 1'], [1, 0]), (['1'], [1]), (['2', '1'], [0, 0])]
  with pytest.raises(errors.ConfigError, match='preference.length'):
    _rows(_config(tmp_path, rows, length=64), vocab)


def test_prompts_without_a_pair_are_left_out_and_counted(
    tmp_path, vocab, capsys):
  rows = [PAIR, (['1', '2'], [1, 1]), (['3'], [1]), PAIR]
  assert len(_rows(_config(tmp_path, rows), vocab).records) == 2
  assert '2 whose responses all have the same grade' in capsys.readouterr().out
  held_out = _config(tmp_path, [PAIR], held_out=rows, balance_length=True)
  assert len(_rows(held_out, vocab, held_out.eval.split).records) == 4
  point_wise = _config(tmp_path, rows, 'pointwise')
  assert len(_rows(point_wise, vocab).records) == 4


@pytest.mark.parametrize('grades, words', [
    ([1, 2, 3, 4, 5], 'good, 1 to 5'), ([1, 1], 'good, 1 to 1'),
    ([0, -1, 0], 'bad, -1 to 0')])
def test_grades_of_one_class_are_one_line(tmp_path, vocab, grades, words):
  """A score of 5 is not better than one of 1 to a point-wise loss."""
  rows = [([str(n)], [grade]) for n, grade in enumerate(grades)]
  with pytest.raises(errors.ConfigError, match=(
      f"config.data.task: .*'pointwise'; all {len(grades)} are {words}")):
    _rows(_config(tmp_path, rows, 'pointwise'), vocab)
  both = _config(tmp_path, [*rows, (['a'], [0]), (['b'], [1])], 'pointwise',
                 rows)
  assert len(_rows(both, vocab).records) == len(rows) + 2
  assert _rows(both, vocab, both.eval.split)  # accuracy on one class is one


def test_no_prompt_left_to_balance_is_one_line(tmp_path, vocab):
  rows = [(['1 2 3', '2'], [1, 0])] * 3
  with pytest.raises(errors.ConfigError, match=(
      'config.preference.balance_length: expected False: in each of the 3')):
    _rows(_config(tmp_path, rows, balance_length=True), vocab)
  held_out = _config(tmp_path, [PAIR], held_out=rows, balance_length=True)
  assert len(_rows(held_out, vocab, held_out.eval.split).records) == 3


def test_summaries_that_are_equal_are_no_pair(tmp_path, vocab, capsys):
  """Answers that differ in their thinking alone, where that is not scored."""
  said = ['<think> 1 </think> 2', '<think> 3 </think> 2']
  rows = [(said, [1, 0]), PAIR]
  config = _config(tmp_path, rows, scores='summary')
  assert len(_rows(config, vocab).records) == 1
  assert '1 with equal responses' in capsys.readouterr().out
  assert len(_rows(_config(tmp_path, rows), vocab).records) == 2


def test_a_tie_is_a_half_whatever_rounds():
  """Scores that float32 cannot tell apart, on the host as in training."""
  records = [dict(prompt='', responses=['a', 'b'], grades=[1, 0], task='t')] * 4
  raw = [np.float32(x) for x in (
      [2, 2], [.3, np.float32(.1) + np.float32(.2)], [1e-6, 0], [0, 1e-6])]
  figures, _ = preference_figures.evaluate(records, raw, 0., 'pairwise', 1)
  assert figures['accuracy'] == .5 and figures['tasks'] == {'t': .5}
  figures, _ = preference_figures.evaluate(
      records, [np.zeros(2, 'f')] * 4, 0., 'pointwise', 1)
  assert figures['accuracy'] == .5


@pytest.mark.parametrize('loss', ['pairwise', 'pointwise', 'dpo'])
@pytest.mark.parametrize('score, accuracy', [
    ([[.5, .5]], {'pointwise': .5}), ([[0., 0.]], {}), ([[1e-6, 0.]], {}),
    ([[0., 1e-6]], {}), ([[1., -1.]], dict.fromkeys(
        ('pairwise', 'pointwise', 'dpo'), 1.))])
def test_so_it_is_in_training(monkeypatch, loss, score, accuracy):
  monkeypatch.setattr(preference, 'raw_scores', lambda *_: np.float32([score]))
  batch = Preferences(*[None] * 5, grade=np.float32([[[1, 0]]]),
                      real=np.ones((1, 1, 2), bool))
  _, figures = preference.loss(
      None, preference.Objective(loss, 0., 1), None, None, batch)
  total, count = figures['preference/accuracy']
  assert total / count == accuracy.get(loss, .5)


@pytest.mark.parametrize('loss', ['pairwise', 'dpo'])
def test_the_margin_is_the_lead_that_is_asked_for(monkeypatch, loss):
  monkeypatch.setattr(
      preference, 'raw_scores', lambda *_: np.float32([[[1, 0]]]))
  batch = Preferences(*[None] * 5, grade=np.float32([[[1, 0]]]),
                      real=np.ones((1, 1, 2), bool))
  for margin in (0., 1., 3.):
    (total, _), _ = preference.loss(
        None, preference.Objective(loss, margin, 1), None, None, batch)
    np.testing.assert_allclose(total, np.log1p(np.exp(margin - 1)), rtol=1e-5)


@pytest.mark.parametrize('weights, functions, tasks, learns', [
    ({}, {}, {}, True), (dict(accuracy=0.), {}, {}, True),
    (dict(accuracy=0., format=0.), {}, {}, False),
    (dict(accuracy=0., format=0.), dict(mine='f.py:f'), {}, True),
    (dict(accuracy=0., format=0., mine=0.), dict(mine='f.py:f'), {}, False),
    (dict(accuracy=0., format=0.), {}, {'sums': {'language': 1.}}, True),
    (dict(accuracy=0., format=0.), {}, {'other': {'language': 1.}}, False),
    ({}, {}, {'sums': dict(accuracy=0., format=0.)}, False)])
def test_rewards_that_are_all_0_are_one_line(weights, functions, tasks, learns):
  rewards = reward_sections.rewards(weights, tasks, functions=functions)
  prompts = batches.PromptSet(None, None, (), [{'task': 'sums'}])
  if learns:
    scoring.check_weights(rewards, prompts)
  else:
    with pytest.raises(errors.ConfigError, match=(
        'config.rewards.weights: expected a weight other than 0')):
      scoring.check_weights(rewards, prompts)


def test_a_run_of_no_reward_is_refused_before_it_begins(tmp_path):
  config = r1_zero.mini()
  config.data.task, config.eval.problems = 'mini_general', 4
  config.rewards.weights.update(accuracy=0., format=0.)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  with pytest.raises(errors.ConfigError, match='rewards.weights: .*nothing to'):
    rl.build(config, mesh, str(tmp_path))
