"""Sampling as a stage: every prompt once, ranked, resumed, told."""

import json
import types

import jax
import numpy as np
import pytest

from experiments import preferences
from experiments import rejection_sampling
from r1jax import errors
from r1jax.parallel import sharding
from r1jax.rewards import filters
from r1jax.rewards import score
from r1jax.stages import rollouts
from r1jax.stages import sample
from r1jax.stages import scoring
from r1jax.stages import model_rewards
from r1jax.training import files
from r1jax.training import loop


def _row(i, response, reward):
  return dict(step=0, id=i, prompt=f'p{i}', task='t', response=response,
              reward=reward)


def test_responses_become_graded_preferences(tmp_path):
  files.append_rows(tmp_path / 'rollouts.jsonl', [
      _row(0, ' a', 1.), _row(0, 'a ', 1.), _row(0, 'b', .5), _row(0, 'c', 0.),
      _row(1, 'x', 1.), _row(1, 'y', 1.), _row(2, '学', 0.), _row(2, 'z', 1.)])
  words = sample.write_preferences(str(tmp_path), False, {})
  lines = [json.loads(line) for line in (
      tmp_path / sample.PREFERENCES).read_text('utf-8').splitlines()]
  assert lines == [
      dict(prompt='p0', responses=['a', 'b', 'c'], grades=[1., .5, 0.],
           task='t'),
      dict(prompt='p2', responses=['学', 'z'], grades=[0., 1.], task='t')]
  assert '8 responses; kept 5 to 2 prompts. Left out: 1 duplicate' in words
  assert '1 prompts whose responses all have' in words


def test_labels_stay_where_all_are_equal(tmp_path):
  files.append_rows(tmp_path / 'rollouts.jsonl', [
      _row(0, 'a', 1.), _row(0, 'a', 1.), _row(1, 'b', 0.),
      _row(2, 'c', 1.) | {'prompt': 'p1'}])  # a row that has the same prompt
  sample.write_preferences(str(tmp_path), True, {})
  lines = files.read_rows(tmp_path / sample.PREFERENCES)
  assert [line['grades'] for line in lines] == [[1.], [0.], [1.]]


def _stage(workdir, module=preferences, **changes):
  config = module.get_config('mini').unlock()
  config.init_from = 'mini'
  config.data.num_prompts = 6
  config.rl.update(prompts=4, group=2, response_tokens=6, sample_chunk=6)
  config.rl.update(changes)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  return sample.build(config, mesh, str(workdir)), config.to_dict()


@pytest.mark.parametrize('stops', [(2,), (1, 2)])
def test_every_prompt_is_answered_once_also_when_resumed(tmp_path, stops):
  stage, config = _stage(tmp_path)
  assert stage.steps == 2
  for steps in stops:
    loop.train(stage._replace(steps=steps, finish=None), loop.Settings(1, 2),
             str(tmp_path), config | dict(steps=steps))
  rows = files.read_rows(tmp_path / 'rollouts.jsonl')
  assert [row['id'] for row in rows] == np.repeat(np.arange(6), 2).tolist()
  (tmp_path / 'rollouts.jsonl').write_text('')  # what it would write data from
  with pytest.raises(errors.ConfigError, match='steps 0 to 1 are gone'):
    loop.train(stage, loop.Settings(1, 2), str(tmp_path), config)
  assert all(row['tokens'] <= 6 for row in rows)
  for step, row in enumerate(files.read_rows(tmp_path / 'metrics.jsonl')):
    mine = [row['tokens'] for row in rows if row['step'] == step]
    assert row['perf/tokens'] == sum(mine)
    assert row['response_length/mean'] == sum(mine) / len(mine)


def test_sampling_and_filters_are_as_the_config_says(tmp_path, monkeypatch):
  made = []
  monkeypatch.setattr(
      rollouts, 'Sampler', lambda placed, *given: made.append(given))
  _stage(tmp_path, temperature=.7, top_k=3, top_p=.5, score_while_sampling=True,
         slots=5)
  (settings, in_pieces), = made
  assert in_pieces and settings._replace(eos_ids=()) == rollouts.Settings(
      2, 6, (), .7, chunk=6, top_k=3, top_p=.5, slots=5, cpu_threads=2)
  config = rejection_sampling.get_config('mini').unlock()
  config.rewards.languages = ('en', 'zh')
  keep = dict(min_accuracy=.5, format=False, max_repetition=.25,
              max_paragraph=9, code=True, reflection=True)
  config.keep.update(keep)
  assert sample.filter_rules(config) == filters.Rules(
      languages=('en', 'zh'), **keep)


def test_each_step_draws_anew_and_the_end_keeps_so_many(tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(
      rollouts, 'Sampler', lambda *_: lambda params, *of: drawn.append(of))
  config = rejection_sampling.get_config('mini').unlock()
  config.init_from, config.seed = 'mini', 5
  config.keep.update(shard_rows=7, per_prompt=3)
  config.data.num_prompts, config.rl.prompts = 6, 4
  row = dict(reward=1., tokens=3, accuracy=1., format=1., finished=True,
             prompt='1?', response='<think>a</think> <answer>1</answer>')
  scored = types.SimpleNamespace(rows=[row], counters={}, kept_rows=None,
                                 seconds={})
  monkeypatch.setattr(scoring, 'build', lambda *_: lambda *_: scored)
  stage = sample.build(config, sharding.make_mesh({}, jax.devices()[:1]), '')
  rows = [stage.step(stage.init(), index)[2] for index in (0, 1)]
  assert [(seed, index) for _, seed, index in drawn] == [(5, 0), (5, 1)]
  assert [row['dropped'] for (row,) in rows] == ['', '']
  assert stage.finish.args[1:3] == (7, 3)


@pytest.mark.parametrize('stops', [(2,), (1, 2)])
def test_rejection_sampling_ends_the_same_however_it_was_stopped(
    tmp_path, stops, capsys):
  config = rejection_sampling.get_config('mini').unlock()
  config.init_from = 'mini'
  config.data.num_prompts = 6
  config.rl.update(prompts=4, group=4, response_tokens=100, sample_chunk=50)
  config.keep.update(shard_rows=4)
  stage = sample.build(
      config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))
  for steps in stops:
    loop.train(stage._replace(
        steps=steps, finish=stage.finish if steps == 2 else None),
             loop.Settings(1, 2), str(tmp_path),
             config.to_dict() | dict(steps=steps))
  rows = files.read_rows(tmp_path / 'rollouts.jsonl')
  assert len(rows) == 6 * 4
  assert {row['verifier/errors'] for row in files.read_rows(
      tmp_path / 'metrics.jsonl')} == {0}
  lines = [line for path in sorted(tmp_path.glob('kept-*.jsonl'))
           for line in files.read_rows(path)]
  fit = [row for row in rows if not row['dropped']]
  by_prompt = {}  # of those that are distinct, the first two
  for row in fit:
    said = by_prompt.setdefault(row['prompt'], [])
    if row['response'] not in said and len(said) < 2:
      said.append(row['response'])
  assert [(line['prompt'], line['response']) for line in lines] == [
      (prompt, text) for prompt, said in by_prompt.items() for text in said]
  assert all(row['accuracy'] == row['format'] == 1. for row in fit)
  assert 0 < len(lines) < 24 and lines[0]['source'].items() >= dict(
      stage=config.name, init_from='mini', seed=config.seed).items()
  assert '\nall ' in capsys.readouterr().out


def test_what_is_kept_does_not_depend_on_the_slots(tmp_path):
  kept = []
  for slots in (None, 5):  # of 16 responses a step
    folder = tmp_path / str(slots)
    stage, config = _stage(
        folder, rejection_sampling, group=4, response_tokens=64, slots=slots,
        sample_chunk=64, cpu_threads=1)
    loop.train(stage, loop.Settings(1, 2), str(folder), config)
    kept.append((files.read_rows(folder / 'rollouts.jsonl'),
                 files.read_rows(folder / 'kept-00000.jsonl')))
  assert kept[0] == kept[1] and 0 < len(kept[0][1]) < len(kept[0][0])


def _broken(self, records, responses):
  """As the scorer, with a verifier that fails on each third response."""
  scores = _score(self, records, responses)
  return scores._replace(counters=scores.counters | dict(
      errors=len(responses[::3])))


_score = score.Scorer.score


class _Silent:
  """A judge that says nothing."""
  name = 'no_verdict'

  def apply(self, records, rows):
    del records
    for row in rows:
      row['no_verdict'] = 1.
    return dict(judge_silent=len(rows), judge_retries=1)


@pytest.mark.parametrize('module', [preferences, rejection_sampling])
def test_what_no_one_could_tell_is_counted_and_said(
    tmp_path, monkeypatch, capsys, module):
  monkeypatch.setattr(score.Scorer, 'score', _broken)
  monkeypatch.setattr(model_rewards, 'load', lambda *_: [_Silent()])
  stage, config = _stage(tmp_path, module)
  loop.train(stage, loop.Settings(2, 2), str(tmp_path), config)
  # Two responses to four prompts, then to the last two: what fills up the
  # second batch is not shown to anyone.
  for row, failed, silent in zip(
      files.read_rows(tmp_path / 'metrics.jsonl'), (3, 2), (8, 4), strict=True):
    assert {name: value for name, value in row.items()
            if name.startswith('verifier/')} == {
                'verifier/errors': failed, 'verifier/timeouts': 0,
                'verifier/refused': 0, 'verifier/restarts': 0,
                'verifier/judge_silent': silent,
                'verifier/judge_retries': 1}
  assert 'verifier: errors 5, judge_retries 2, judge_silent 12' in (
      capsys.readouterr().out)


@pytest.mark.parametrize('module', [preferences, rejection_sampling])
def test_what_was_made_is_left_alone_when_its_source_is_gone(tmp_path, module):
  stage, _ = _stage(tmp_path, module)
  for name in (sample.PREFERENCES, 'kept-00000.jsonl'):
    (tmp_path / name).write_text('{}\n')
  with pytest.raises(errors.ConfigError, match='no rollouts.jsonl'):
    stage.finish({})
  for name in (sample.PREFERENCES, 'kept-00000.jsonl'):
    assert (tmp_path / name).read_text() == '{}\n'


def test_it_needs_a_model(tmp_path):
  config = preferences.get_config('mini')
  with pytest.raises(errors.ConfigError, match='init_from'):
    sample.build(config, sharding.make_mesh({}, jax.devices()[:1]), str(tmp_path))
  # All that is sampled is kept: how often is no question.
  assert 'rollouts_every_steps' not in config.log
