"""Rollouts in pieces are those of one program; what ended is scored early."""

import functools
import threading

import jax
import numpy as np
import pytest

import tiny
import tiny_rl
from r1jax import interrupts
from r1jax import rewards as rewards_lib
from r1jax.parallel import sharding
from r1jax.stages import early_scores
from r1jax.stages import pieces
from r1jax.stages import rollouts
from r1jax.stages import scoring
from r1jax.training import timing

LENGTHS, GROUP, RESPONSE = (3, 5, 1, 4, 2, 5, 3, 4), 3, 12
SETTINGS = rollouts.Settings(GROUP, RESPONSE, (tiny.EOS, 7), .8, chunk=7)
_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def _pieces_are_small(monkeypatch):
  monkeypatch.setattr(pieces, '_LEAST', 1)


def _given(setup):
  return tiny.placed(setup), sharding.from_host(
      tiny.prompts(LENGTHS), setup.mesh, uneven=True)


def _drawing(setup, settings, params, prompts, stream=0):
  return pieces.Drawing(setup, settings, params, prompts, np.uint32(0),
                        np.uint32(stream))


def _compiled(function):
  """How many programs it compiles."""
  events = []
  listen = lambda event, *_, **__: events.append(event)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    function()
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  return events.count('/jax/core/compile/backend_compile_duration')


@pytest.mark.parametrize('sizes, changes', [
    (dict(data=4, tensor=2), dict(top_k=4, top_p=.8, keep_support=True)),
    ({}, dict(slots=5)),
    _slow({}, {}), _slow({}, dict(slots=99)), _slow({}, dict(temperature=0.)),
    _slow(dict(data=4, tensor=2), dict(slots=8)),
    _slow(dict(fsdp=8), {})])
def test_a_rollout_in_pieces_is_that_of_one_program(sizes, changes):
  setup, settings = tiny.setup(sizes), SETTINGS._replace(**changes)
  params, prompts = _given(setup)
  drawing = _drawing(setup, settings, params, prompts)
  whole = rollouts.jitted_sampling(setup.mesh)(
      setup.sampling, settings, params, prompts, np.uint32(0), np.uint32(0))
  assert drawing.rollout is None and drawing.group == GROUP
  seen = [*drawing]
  for got, want in zip(*map(jax.tree.leaves, (drawing.rollout, whole))):
    np.testing.assert_array_equal(got, want)
    assert got.sharding.is_equivalent_to(want.sharding, got.ndim)
  assert len(seen) > 2 and not any(
      a.keys() & b.keys() for n, a in enumerate(seen) for b in seen[:n])
  length = np.asarray(whole.mask).sum(1)
  found = {row: said for ended in seen for row, said in ended.items()}
  assert found.keys() >= {*np.flatnonzero(length < RESPONSE - 1)}
  for row, (tokens, count) in found.items():
    assert count == length[row]
    np.testing.assert_array_equal(tokens, whole.tokens[row])
  assert (length[[*seen[0]]] < length.max()).all()
  assert not _compiled(
      lambda: [*_drawing(setup, settings, params, prompts, stream=1)])


def test_caches_are_donated_from_piece_to_piece():
  setup = tiny.setup(dict(data=2))  # one CPU prepares weights of its own
  jitted = pieces.programs(setup.mesh)
  params, prompts = _given(setup)
  assert not pieces._prepares(jitted, setup.sampling, params)
  begun, state = jitted.begin(
      setup.sampling, SETTINGS, params, prompts, np.uint32(0), np.uint32(0))
  state = jitted.resize(setup.sampling, state, 7)
  new, seen = jitted.advance(
      setup.sampling, SETTINGS, params, begun, state, np.int32(1))
  assert all(x.is_deleted() for x in jax.tree.leaves((state.k, state.v)))
  assert not any(x.is_deleted() for x in jax.tree.leaves((new, begun, seen)))


def _differ(a, b):
  return [name for name in a.keys() | b.keys() if not name.startswith('timing/')
          and not np.array_equal(a.get(name), b.get(name))]


@pytest.mark.slow
@pytest.mark.parametrize('switches', [
    {}, dict(sizes=dict(data=4, tensor=2)),
    dict(settings=tiny_rl.SETTINGS._replace(slots=8)),
    dict(sampling_rounds=3, objective=tiny_rl.OBJECTIVE._replace(
        drop_equal_groups=True))])
def test_a_step_is_the_same_in_pieces(switches):
  (one, metrics, rows), (two, same, same_rows) = (
      (run := tiny_rl.Run(in_pieces=in_pieces, **switches)).learner(
          run.init(), 0) for in_pieces in (False, True))
  assert rows == same_rows
  # Of every call of the tiny scorer one error.
  assert set(_differ(metrics, same)) <= {'verifier/errors'}
  jax.tree.map(np.testing.assert_array_equal, one, two)
  assert same[timing.SCORED_EARLY] > 0 == metrics[timing.SCORED_EARLY]
  assert metrics[timing.SCORED_LATE] > 0


class _Waiting(pieces.Drawing):
  """Ends only when something has been scored."""
  scored = None

  def __iter__(self):
    ended = super().__iter__()
    yield next(ended)
    assert self.scored.wait(60)
    yield from ended


class _Early(tiny_rl.Scorer):

  def __init__(self, problem=None):
    self.calls, self.scored, self._problem = [], threading.Event(), problem

  def score(self, records, responses):
    self.calls.append(responses)
    self.scored.set()
    if self._problem:
      raise self._problem
    return super().score(records, responses)


def _scored(scorer, drawing):
  drawing.__class__, drawing.scored = _Waiting, scorer.scored
  return scoring.RolloutScorer(tiny_rl.Vocab(), scorer)(
      drawing, tiny_rl.draw(0))


def test_responses_are_scored_before_the_last_has_ended():
  run = tiny_rl.Run(in_pieces=True)
  scorer = _Early()
  drawing, _ = run.learner.sample(run.init(), 0)
  scored = _scored(scorer, drawing)
  count = [len(responses) for responses in scorer.calls]
  assert sum(count) == len(scored.rows) and count[0] < len(scored.rows) / 2
  assert all(response.finished for response in scorer.calls[0])
  assert scored.counters == {'errors': len(count)}


@pytest.mark.parametrize('problem', [RuntimeError('of a rule'),
                                     interrupts.Stopped()])
def test_what_scoring_raises_ends_the_step(problem):
  run = tiny_rl.Run(in_pieces=True)
  drawing, _ = run.learner.sample(run.init(), 0)
  with pytest.raises(type(problem)) as caught:
    _scored(_Early(problem), drawing)
  assert caught.value is problem
  assert any(entry.name == 'score' for entry in caught.traceback)


def test_one_call_at_a_time_has_all_that_ended_during_the_last():
  go, calls = threading.Event(), []

  def score(ended):
    assert go.wait(60)
    calls.append(sorted(ended))
    return len(ended)

  row = lambda *rows: {n: (None, 1) for n in rows}
  with early_scores.EarlyScores(score) as scores:
    scores.add(row(3))
    scores.add(row(1))  # the first call is under way
    go.set()
    scores._job.result()
    scores.add(row(2))
    found, seconds = scores.finish(row(0, 1, 2, 3, 4))
  assert calls == [[3], [1, 2], [0, 4]] and found == [1, 2, 2]
  assert all(value >= 0 for value in seconds.values()) and len(seconds) == 2


def test_nothing_to_score_is_one_call_of_nothing():
  with early_scores.EarlyScores(len) as scores:
    assert scores.finish({})[0] == [0]


def test_the_devices_are_given_work_before_the_rules_score():
  order = []

  class Noting(tiny_rl.Scorer):
    def score(self, records, responses):
      order.append('scored')
      return super().score(records, responses)

  def end(state, scored):
    assert scored.measured == 'measured'
    raise StopIteration

  run = tiny_rl.Run(scorer=Noting())
  run.learner._measure = lambda *_: order.append('measured') or order[-1]
  run.learner.experience = end
  with pytest.raises(StopIteration):
    run.learner(run.init(), 0)
  assert order == ['measured', 'scored']


def test_a_failing_function_is_counted_in_every_piece(tmp_path):
  path = tmp_path / 'picky.py'
  path.write_text(
      'def picky(response, record):\n'
      '  if record["tokens"] % 2:\n'
      '    raise ValueError("odd")\n'
      '  return record["tokens"]\n')
  with rewards_lib.Scorer(
      {}, max_tokens=tiny_rl.RESPONSE, workers=1, timeout_seconds=60.,
      answer='tags', functions=dict(picky=f'{path}:picky')) as scorer:
    one, two = (
        (run := tiny_rl.Run(in_pieces=in_pieces, scorer=scorer)).learner.score(
            *run.learner.sample(run.init(), 0)) for in_pieces in (False, True))
  assert one.rows == two.rows and one.counters == two.counters
  assert 0 < one.counters['picky_errors'] < len(one.rows)
  np.testing.assert_array_equal(one.reward, two.reward)
