"""Figures by hand, and every problem measured once."""

import types

import numpy as np
import pytest

import hosts
import tiny
import tiny_rl
from r1jax.data import batches
from r1jax.reports import intervals
from r1jax.stages import evaluation
from r1jax.stages import pieces
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.training import files


def _row(accuracy, tokens=4, task='a', **fields):
  return {'accuracy': float(accuracy), 'format': 1., 'tokens': tokens,
          'finished': True, 'task': task, **fields}


def test_results_by_hand():
  """Four problems, two samples each: shares 1, 1/2, 1/2, 0."""
  rows = [_row(1), _row(1, tokens=10), _row(1, task='b'),
          _row(0, task='b', format=0.), _row(0), _row(1, finished=False),
          _row(0, task='b'), _row(0, task='b', tokens=6)]
  greedy = [_row(1), _row(0), _row(1), _row(1)]
  results = evaluation.results(rows, greedy, group=2)
  interval = results.pop('ci95')
  assert results == {
      'n': 4, 'samples': 2, 'pass@1': .5, 'pass@2': .75, 'greedy': .75,
      'format': 7 / 8, 'response_length': 5., 'truncated': 1 / 8,
      'tasks': {'a': .75, 'b': .25},
      'intervals': {'pass@2': pytest.approx(intervals.wilson(.75, 4))}}
  # The problems' variance is 1/6: as of 4 * .25 * 6 = 6 independent samples.
  np.testing.assert_allclose(interval, intervals.wilson(.5, 6.), atol=1e-9)


def test_the_majority_of_the_samples_by_hand():
  """The first problem's wrong answer wins, the second's ties with a wrong one.
  """
  votes = [[0, 1, 1, None], [0, 0, 1, 1]]
  rows = [_row(vote == 0, vote=vote, extracted=None if vote is None else 'x')
          for part in votes for vote in part]
  found = evaluation.results(rows, None, group=4)
  assert (found['cons@4'], found['pass@1'], found['pass@4']) == (.25, 3 / 8, 1.)
  assert found['answered'] == 7 / 8
  # Of the first, 1 in 4 right: two of them have it in half of the pairs.
  assert found['pass@2'] == pytest.approx((1 / 2 + 5 / 6) / 2)
  assert set(found['intervals']) == {'pass@2', 'pass@4', 'cons@4'}


def test_graded_answers_are_right_where_they_are_1():
  rows = [_row(value) for value in (.5, .25, 1., .5)]
  found = evaluation.results(rows, None, group=2)
  assert (found['pass@1'], found['pass@2']) == (2.25 / 4, .5)


class _Sampler:
  """Says how many samples a prompt has, and remembers what it was asked."""

  def __init__(self, group):
    self.settings = tiny_rl.SETTINGS._replace(group=group)
    self.asked = []

  def __call__(self, params, batch, seed, stream):
    self.asked.append((len(batch.id), seed, stream))
    return range(self.settings.group)


def _score(samples, batch):
  """A scorer: a row a sample that names its prompt, and a verifier error."""
  return types.SimpleNamespace(counters={'errors': 1}, rows=[
      {'id': int(i), 'sample': sample}
      for i, _ in zip(batch.id, batch.records) for sample in samples])


@pytest.mark.parametrize('count, batch', [(8, 4), (10, 4), (3, 4)])
def test_every_problem_is_measured_once_and_in_order(count, batch):
  prompts = batches.PromptSet(
      np.zeros((count, 2), np.int32), np.ones(count, np.int32),
      tuple({} for _ in range(count)), ())
  sampler = _Sampler(group=2)
  rows, counters = evaluation.sample_all(
      sampler, _score, None, prompts, batch, seed=7)
  assert counters == [{'errors': 1}] * len(sampler.asked)
  assert [(row['id'], row['sample']) for row in rows] == [
      (i, sample) for i in range(count) for sample in range(2)]
  # Full batches, whose streams no training step has.
  assert all(size == batch and seed == 7 and step >= 2 ** 31
             for size, seed, step in sampler.asked)


def _test(prompts):
  """A test of two problems at a time, four with what fills up the devices."""
  return evaluation.Test(
      'test', prompts, np.argsort(prompts.length, kind='stable'), 0,
      tiny_rl.SETTINGS, _score, count=2, batch=4)


def test_what_fills_up_the_devices_is_sampled_and_does_not_count():
  prompts = batches.PromptSet(np.zeros((5, 2), np.int32), np.ones(5, np.int32),
                              tuple({} for _ in range(5)), ())
  sampler = _Sampler(group=1)
  test = _test(prompts)
  rows = [evaluation.sample_batch(sampler, _score, None, test.part(start), 7)[0]
          for start in range(0, 5, 2)]
  assert [[row['id'] for row in part] for part in rows] == [
      [0, 1], [2, 3], [4]]
  assert [size for size, _, _ in sampler.asked] == [4, 4, 4]


def test_problems_come_by_length_and_padded_to_few_widths():
  length = np.array([70, 3, 64, 200, 65], np.int32)
  prompts = batches.PromptSet(
      np.arange(5)[:, None] * np.ones((5, 200), np.int32), length,
      tuple({} for _ in range(5)), ())
  parts = [_test(prompts).part(start) for start in range(0, 5, 2)]
  assert [part.id.tolist() for part in parts] == [
      [1, 2, 4, 0], [4, 0, 3, 1], [3, 1, 2, 4]]
  assert [len(part.records) for part in parts] == [2, 2, 1]
  assert [part.tokens.shape[1] for part in parts] == [128, 200, 200]
  for part in parts:
    np.testing.assert_array_equal(part.tokens[:, 0], part.id)
    np.testing.assert_array_equal(part.length, length[part.id])


@pytest.mark.parametrize('longest, width', [
    (1, 64), (64, 64), (65, 128), (128, 128), (129, 200), (200, 200)])
def test_a_width_is_the_least_of_few_that_has_room(longest, width):
  batch = batches.take(batches.PromptSet(
      np.zeros((2, 200), np.int32), np.array([1, longest]), ({}, {}), ()),
                       np.arange(2))
  assert batches.trimmed(batch).tokens.shape == (2, width)


@pytest.mark.parametrize('verifier', ['code', 'instructions', 'math'])
def test_whole_texts_have_no_vote(verifier):
  prompts = batches.PromptSet(np.zeros((1, 2), np.int32), np.ones(1, np.int32),
                              ({'verifier': verifier},), ())

  class Scorer:
    add_votes = staticmethod(lambda part, rows: [
        row.update(vote=0) for row in rows] and {})

    def __call__(self, samples, batch):
      return types.SimpleNamespace(counters={}, rows=[
          {'id': 0, 'extracted': 'x'} for _ in samples])

  rows, _ = evaluation.sample_batch(
      _Sampler(group=2), Scorer(), None, batches.slice_of(prompts, 0, 1), 7)
  assert ['vote' in row for row in rows] == [verifier == 'math'] * 2


def test_what_is_drawn_for_a_problem_does_not_depend_on_the_batch():
  """The stream is named by the problem's id, so the step must not differ."""
  prompts = batches.PromptSet(np.zeros((8, 2), np.int32), np.ones(8, np.int32),
                              tuple({} for _ in range(8)), ())
  sampler = _Sampler(group=1)
  for batch in (2, 8):
    evaluation.sample_all(sampler, _score, None, prompts, batch, seed=7)
  assert len({step for _, _, step in sampler.asked}) == 1


def test_an_evaluation_samples_and_decodes_greedily(tmp_path, monkeypatch):
  """Three problems, two samples each, of which the greedy one is right."""
  made = []

  class Sampler(_Sampler):
    def __init__(self, placed, settings, in_pieces):
      del placed, in_pieces
      super().__init__(settings.group)
      self.greedy = settings.temperature == 0.
      made.append(settings)

    def __call__(self, *args):
      return super().__call__(*args), self.greedy

  def score(found, batch):
    samples, greedy = found
    return types.SimpleNamespace(counters={'errors': 1 + greedy}, rows=[
        _row(greedy or (i, n) == (1, 0), taste=float(i), response=f'{i} {n}',
             language=.5, prompt='p', answer='a', reward=5.)
        for i, _ in zip(batch.id, batch.records) for n in samples])

  score.models = [types.SimpleNamespace(name='taste')]
  monkeypatch.setattr(rollouts, 'Sampler', Sampler)
  prompts = batches.PromptSet(np.zeros((3, 2), np.int32), np.ones(3, np.int32),
                              tuple({} for _ in range(3)), ())
  settings = tiny_rl.SETTINGS._replace(group=2, top_k=5, top_p=.9)
  for greedy in (True, False):
    found, shown = evaluation.make_evaluator(
        tiny.setup(), prompts, score, settings, batch=2, shown=2, seed=0,
        workdir=str(tmp_path), greedy=greedy)(None, 7)
    assert (found['n'], found['pass@1'], found['taste']) == (3, 1 / 6, 1.)
    assert found['language'] == .5 and 'mixed' not in found
    assert found.get('greedy') == (1. if greedy else None)
    assert found['verifier'] == {'errors': 2 * (1 + 2 * greedy)}
    assert [row['text'] for row in shown] == ['0 0', '1 0']
  assert made[:2] == [settings, settings._replace(
      group=1, temperature=0., top_k=0, top_p=1.)]
  assert [row['response'] for row in files.read_rows(
      tmp_path / 'evaluation_7.jsonl')] == [
          '0 0', '0 1', '1 0', '1 1', '2 0', '2 1']


def test_what_is_scored_while_others_are_sampled_is_the_same(monkeypatch):
  monkeypatch.setattr(pieces, '_LEAST', 2)
  placed = tiny.setup()
  (plain, shown), (early, same_shown) = (evaluation.make_evaluator(
      placed, tiny_rl.prompt_set(3),
      scoring.RolloutScorer(tiny_rl.Vocab(), tiny_rl.Scorer()),
      tiny_rl.SETTINGS, batch=2, shown=3, seed=0, in_pieces=in_pieces)(
          tiny.placed(placed), 0) for in_pieces in (False, True))
  # One for each time that something is scored.
  assert early.pop('verifier')['errors'] > plain.pop('verifier')['errors']
  assert (early, same_shown) == (plain, shown)


def test_samples_for_the_report():
  rows = [{'prompt': 'p', 'answer': '1', 'response': 'r', 'reward': 2.,
           'accuracy': 1. - i / 2, 'finished': i == 0} for i in range(3)]
  assert evaluation.samples(rows, 2) == [
      {'prompt': 'p', 'answer': '1', 'text': 'r', 'reward': 2.,
       'correct': correct, 'finished': correct} for correct in (True, False)]


# By host, and with the whole batch on both of two hosts.
SIZES = dict(fsdp=2, tensor=2), dict(tensor=4)


class _Counting(tiny_rl.Scorer):

  def score(self, records, responses):
    scores = super().score(records, responses)
    return scores._replace(
        counters={'errors': len(responses)},
        answers=[response.text[:1] or None for response in responses])

  def votes(self, records, extracted):
    assert len(records) == len(extracted)
    return [[answer and int(answer) for answer in part] for part in extracted
            ], {'refused': len(records)}


def measured(sizes=None):
  """6 problems, measured 4 at a time, and the rewards of one rollout."""
  shape = dict(kv_heads=4, vocab=32)  # divide by 4
  setup = tiny.setup(sizes, **shape)
  params = tiny.placed(setup, **shape)
  prompts = tiny_rl.prompt_set(6)
  sampler = rollouts.Sampler(setup, tiny_rl.SETTINGS)
  scorer = scoring.RolloutScorer(tiny_rl.Vocab(), _Counting())
  rows, counters = evaluation.sample_all(
      sampler, scorer, params, prompts, batch=4, seed=0)
  batch = batches.take(prompts, np.arange(4))
  scored = scorer(sampler(params, batch, seed=0, stream=1), batch)
  return dict(
      results=evaluation.results(rows, rows[::tiny_rl.GROUP], tiny_rl.GROUP),
      evaluated=rows, rows=scored.rows, counters=scored.counters,
      counted=scoring.sum_counters(counters),
      reward=scored.reward.tolist(),
      parts={name: part.tolist() for name, part in scored.parts.items()})


def test_two_hosts_measure_what_one_does():
  alone = measured()
  results = alone['results']
  assert results['n'] == 6
  assert 0 < results['pass@1'] < 1 and 0 < results['truncated'] < 1
  assert len(alone['rows']) == alone['counters']['errors'] == 16
  assert alone['counted'] == {'errors': 6 * tiny_rl.GROUP, 'vote_refused': 6}
  assert [row['vote'] for row in alone['evaluated']] == [
      row['extracted'] and int(row['extracted']) for row in alone['evaluated']]
  assert f'cons@{tiny_rl.GROUP}' in results
  for said in hosts.run("""
import test_evaluation as test
said = [test.measured(sizes) for sizes in test.SIZES]
"""):
    for sizes, got in zip(SIZES, said, strict=True):
      assert got == alone, sizes
