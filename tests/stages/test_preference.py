"""A reward model learns, is normalised, and obeys the laws."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

import graded_rows
import tiny
import tiny_preferences
from experiments import reward_model
from experiments import reward_sections
from r1jax import errors
from r1jax.data import vocabs
from r1jax.kernels import logprobs
from r1jax.kernels import values
from r1jax.parallel import sharding
from r1jax.reports import intervals
from r1jax.stages import preference
from r1jax.stages import preference_figures
from r1jax.stages import model_rewards
from r1jax.training import checkpoint
from r1jax.training import loop
from r1jax.types import Preferences

PAIRWISE = preference.Objective('pairwise', 0., 1)


def _encode(prompt, answer):
  return [2, *prompt], [*map(int, answer.split()), tiny.EOS]


@functools.cache
def _rows(seed=0, count=96):
  """The response with more even numbers is the better one."""
  rng = np.random.default_rng(seed)
  records = []
  for _ in range(count):
    words = rng.integers(2, 30, (3, 5))
    records.append(dict(
        prompt=rng.integers(2, 30, rng.integers(1, 4)).tolist(), task='even',
        responses=[' '.join(map(str, row)) for row in words],
        grades=(words % 2 == 0).sum(1).tolist()))
  return graded_rows.responses(records, _encode, 48)


def _train(steps, sizes=None, objective=PAIRWISE):
  return tiny_preferences.train(_rows(), steps, objective, sizes)


def test_packed_scores_are_those_of_each_response_alone():
  model, params = tiny.model(scalar=True), tiny.params(scalar=True)
  of_rows, of_responses = (
      jax.jit(f, static_argnums=0)
      for f in (values.of_rows, values.of_responses))
  rows = _rows()
  index = np.arange(4)
  got = of_rows(model, params, Preferences(*rows.take(index)))
  for b, s in np.argwhere(rows.record(index) >= 0):
    record = rows.records[rows.record(index)[b, s]]
    for k, text in enumerate(record['responses']):
      asked, said = _encode(record['prompt'], text)
      prompts = tiny.prompts((len(asked),), 4)._replace(
          tokens=np.pad([asked], ((0, 0), (0, 4 - len(asked)))))
      alone = of_responses(
          model, params, prompts, np.array([said]), np.array([len(said)]))
      np.testing.assert_allclose(got[b, s, k], alone[0], atol=1e-5)


def test_packed_sums_are_those_of_the_tokens_of_each_response():
  rows = _rows()
  batch = Preferences(*rows.take(np.arange(4)))
  got = values.sums_of_rows(
      np.where(batch.segment > batch.parent, batch.tokens, np.nan).astype(
          np.float32), batch)
  for b, s in np.argwhere(rows.record(np.arange(4)) >= 0):
    record = rows.records[rows.record(np.arange(4))[b, s]]
    expected = [sum(_encode(record['prompt'], text)[1])
                for text in record['responses']]
    np.testing.assert_array_equal(got[b, s], expected)


@functools.partial(jax.jit, static_argnums=0)
def _logp(model, params, row):
  return logprobs.of_sequences(
      model, params, row, None, np.arange(row.shape[1])[None], chunk=8)[0]


def test_the_score_of_dpo_is_beta_times_the_log_ratio_of_a_response():
  """To the reference, summed over its tokens: Rafailov et al., eq. 5."""
  rows, index = _rows(), np.arange(1)
  policy, ref = tiny.params(), tiny.params(seed=1)
  score = jax.jit(functools.partial(
      preference.raw_scores, tiny.model(),
      preference.Objective('dpo', 0., 1, .2, 5)))
  got = score(policy, ref, Preferences(*rows.take(index)))
  for b, s in np.argwhere(rows.record(index) >= 0):
    record = rows.records[rows.record(index)[b, s]]
    for k, text in enumerate(record['responses']):
      asked, said = _encode(record['prompt'], text)
      row = np.zeros((1, 10), int)  # what follows is seen by none
      row[0, :len(asked + said)] = asked + said
      logp, ref_logp = (
          _logp(tiny.model(), params, row)[0, len(asked):len(asked + said)]
          for params in (policy, ref))
      np.testing.assert_allclose(
          got[b, s, k], .2 * np.sum(logp - ref_logp), atol=1e-4)


@pytest.mark.parametrize('objective', [
    PAIRWISE, preference.Objective('pointwise', 0., 1)])
def test_it_learns(objective):
  state, history, setup = _train(80, objective=objective)
  mean = lambda name: np.mean([row[name] for row in history[-5:]])
  assert mean('loss') < 0.3 < history[0]['loss']
  assert mean('preference/accuracy') > 0.9
  if objective == PAIRWISE:
    held_out = _rows(seed=1)
    raw = preference.RawScorer(setup, objective, 8)(state, held_out)
    figures, _ = preference_figures.evaluate(
        held_out.records, raw, 0., 'pairwise', 2)
    assert figures['accuracy'] > 0.75 and figures['n'] > 85


@pytest.fixture(name='trained', scope='module')
def _trained():
  state, history, _ = _train(2)
  return jax.device_get(state), history


@pytest.mark.parametrize('sizes, micro_batches', [
    (None, 4), (dict(fsdp=2, data=2, tensor=2), 2)])
def test_micro_batches_and_meshes_change_nothing(trained, sizes, micro_batches):
  state, history, _ = _train(
      2, sizes, PAIRWISE._replace(micro_batches=micro_batches))
  tiny.assert_near(state.params, trained[0].params)
  tiny.assert_near(history, trained[1], 1e-4)


def test_normalised_the_mean_is_0_and_the_loss_does_not_see_it():
  state, _, setup = _train(1)
  score, rows = preference.RawScorer(setup, PAIRWISE, 8), _rows()
  mean = score.mean(state, rows, 10**6)
  shifted = preference.normalized(state, mean)
  batch = Preferences(*rows.take(np.arange(rows.size)))
  reward = jax.jit(functools.partial(values.of_rows, setup.model))(
      shifted.params, batch)
  np.testing.assert_allclose(reward[batch.real].mean(), 0, atol=1e-5)
  for kind in ('pairwise', 'pointwise'):
    loss = jax.jit(functools.partial(
        preference.loss, setup.model, PAIRWISE._replace(loss=kind)))
    losses = [loss(s.params, None, batch)[0][0] for s in (state, shifted)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    slope = jax.jit(jax.grad(
        lambda params, loss=loss: loss(params, None, batch)[0][0]))
    assert slope(shifted.params)['head']['offset'] == 0
  few = score(state, rows, 10)
  assert 10 <= sum(len(x) > 0 for x in few) < len(rows.records)


def test_figures_by_hand():
  records = [dict(prompt='', responses=['a', 'bb'], grades=[1, 0], task=task)
             for task in 'xxyy']
  raw = [np.float32(x) for x in ([2, 1], [0, 0], [1, 3], [5, 1])]
  figures, samples = preference_figures.evaluate(
      records, raw, 1.5, 'pairwise', 1)
  deviation = (41 / 8 - (13 / 8) ** 2) ** .5
  expected = {  # the leads are 1, 0, -2 and 4
      'n': 4, 'accuracy': 2.5 / 4, 'margin': .75,
      'ci95': intervals.wilson(2.5 / 4, 4), 'tasks': dict(x=.75, y=.5),
      'loss': np.mean(np.log(1 + np.exp([-1, 0, 2, -4]))),
      # Confidence .731, .5, .881 and .982, each in a bin of its own.
      'calibration_error': (.2689 + 0 + .8808 + .0180) / 4,
      'score_mean': 13 / 8 - 1.5, 'score_std': deviation,
      'length_correlation': (5 / 4 - 2) / 2 / deviation}
  assert figures == {
      name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}
  assert [sample['scores'] for sample in samples] == [[.5, -.5]]
  safe, _ = preference_figures.evaluate(records, raw, 0., 'pointwise', 1)
  # Of 1, 0, 1, 0, 1, 0, 1, 0: 2, 0, 1, 5 are right, and no 0 below 0 is.
  assert safe['n'] == 8 and safe['accuracy'] == pytest.approx((3 + 2 / 2) / 8)
  three = dict(prompt='', responses=['a', 'b', 'c'], grades=[2, 1, 0], task='')
  figures, _ = preference_figures.evaluate(
      [three], [np.float32([3, 2, 1])], 0., 'pairwise', 0)
  assert figures['n'] == 1  # prompts, not pairs
  assert figures['ci95'] == intervals.wilson(1., 1)
  error = lambda *pairs: preference_figures.calibration_error(
      *np.array(pairs, float).T)
  assert error((.9, 1), (.9, 0)) == pytest.approx(.4)
  # Bins of .9 to .95 and of .95 to 1, which belongs to it.
  assert error((.93, 1), (.98, 1), (1, 0)) == pytest.approx(
      .07 / 3 + .49 * 2 / 3)
  for pair in ((np.ones(3), np.arange(3)), (np.arange(3), np.ones(3))):
    assert preference_figures.correlation(*pair) == 0.


def _config(tmp_path, **changes):
  """The mini experiment on a file of eight prompts."""
  path = tmp_path / 'pairs.jsonl'
  path.write_text(''.join(
      json.dumps(dict(prompt=f'Count {n}', responses=[f'{n} {m}' for m in k],
                      grades=[1, 0, 0])) + '\n'
      for n, k in enumerate([(1, 2, 3)] * 8)))
  config = reward_model.get_config('mini').unlock()
  config.init_from = 'mini'
  config.data.update(task=f'jsonl:{path}', split='train[:6]')
  config.preference.update(batch=1, length=128)
  config.eval.update(split='train[6:]', problems=2)
  config.steps, config.epochs = 2, None
  config.optim.update(schedule='constant', warmup_steps=0)
  config.update(changes)
  return config


def test_the_stage_ends_normalised_and_resumes_bitwise(tmp_path):
  config = _config(tmp_path)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  stage, states = preference.build(config, mesh, str(tmp_path)), []
  for name, stops in (('whole', (2,)), ('parts', (1, 2))):
    for steps in stops:
      summary = loop.train(
          stage._replace(steps=steps), loop.Settings(1, 2),
          str(tmp_path / name), config.to_dict() | dict(steps=steps))
    saves = checkpoint.Checkpointer(
        pathlib.Path(tmp_path / name) / 'checkpoints', keep=2)
    states.append(jax.device_get(saves.restore_latest(stage.abstract)[0]))
    saves.close()
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert states[0].params['head']['offset'] != 0
  assert summary['after']['n'] == 2
  # What the stage left is a reward model for RL, asked as it was trained.
  judges = model_rewards.load(reward_sections.rewards(
      weights=dict(taste=.5), models=dict(taste=reward_sections.reward_model(
          init_from=str(tmp_path / 'whole'), batch=4))), mesh, config.rules, 0)
  rows = [dict(task='t', response=text, reward=1.) for text in ('1 1', '1 2')]
  assert judges[0].apply([dict(prompt='Count 1')], rows) == {'taste_cut': 0}
  for row in rows:
    assert np.isfinite(row['taste']) and row['reward'] == 1 + .5 * row['taste']


@pytest.mark.parametrize('changes, match', [
    (dict(model=dict(scalar=False)), 'model.scalar'),
    (dict(steps=None), 'config.steps'),
    (dict(init_from=None), 'config.init_from'),
    (dict(preference=dict(batch=99)), 'preference.batch'),
    (dict(preference=dict(length=16)), 'preference.length'),
])
def test_mistakes_are_named(tmp_path, changes, match):
  config = _config(tmp_path, **changes)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  with pytest.raises(errors.ConfigError, match=match):
    preference.build(config, mesh, str(tmp_path)).step(None, 0)


def test_a_pair_of_two_conversations_is_said_to_be_left_out(tmp_path, capsys):
  config = _config(tmp_path)
  row = dict(chosen='\n\nHuman: Hi\n\nAssistant: 1',
             rejected='\n\nHuman: Ho\n\nAssistant: 2')
  with (tmp_path / 'pairs.jsonl').open('a', encoding='utf-8') as file:
    file.write(json.dumps(row))
  rows = preference.read_rows(
      config, vocabs.load_vocab('sentencepiece', 'mini'), 128, 'train')
  assert len(rows.records) == 8
  told = capsys.readouterr().out
  assert told.startswith('1 of 9 prompts of jsonl:') and (
      '1 whose two answers end different conversations' in told)
