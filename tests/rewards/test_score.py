"""The whole scorer: parts, weights, hostile answers, real data."""

import json

import numpy as np
import pytest

from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax.rewards import score
import shared_data


def _scorer(weights=None, **settings):
  return rewards_lib.Scorer(
      weights or {'accuracy': 1.0, 'format': 1.0},
      **{'max_tokens': 100, 'workers': 2, 'timeout_seconds': 2.0,
         'answer': 'tags', **settings})


def _record(answer, verifier='math', task='gsm8k', **more):
  return {'prompt': '?', 'answer': answer, 'task': task, 'verifier': verifier,
          **more}


def _response(answer, tokens=10, finished=True):
  return rewards_lib.Response(
      f'<think>so</think> <answer>{answer}</answer>', tokens, finished)


def test_the_total_is_the_weighted_sum_of_the_parts():
  weights = {'accuracy': 0.7, 'format': 0.2, 'overlong': 0.5}
  responses = [
      _response('72'), _response('73', tokens=90), _response('72', 80, False),
      rewards_lib.Response('', 1, True),
      rewards_lib.Response('<think>\ufffd', 100, False)]
  with _scorer(weights) as scorer:
    scores = scorer.score([_record('72')] * 5, responses)
  assert set(scores.parts) == {'accuracy', 'format', 'overlong'}
  np.testing.assert_array_equal(scores.parts['accuracy'], [1, 0, 1, 0, 0])
  np.testing.assert_array_equal(scores.parts['format'], [1, 1, 1, 0, 0])
  np.testing.assert_allclose(scores.parts['overlong'], [0, -.5, -1, 0, -1])
  np.testing.assert_allclose(scores.total, [.9, -.05, .4, 0, -.5], rtol=1e-6)
  assert {a.dtype for a in [scores.total, *scores.parts.values()]} == {
      np.dtype(np.float32)}
  assert scores.counters == {'errors': 0, 'timeouts': 0,
                             'refused': 0, 'restarts': 0}


def test_no_response_has_all_parts_and_counters():
  """As on a host whose rows only fill up the last batch."""
  weights = dict.fromkeys(
      ('accuracy', 'overlong', 'repetition', 'language'), 1.0)
  with _scorer(weights, languages=('en', 'zh')) as scorer:
    none = scorer.score([], [])
    one = scorer.score([_record('72')], [_response('72')])
    scorer._pool.restarts += 2  # each is counted once
    restarts = [scorer.score([], []).counters['restarts'] for _ in range(2)]
  assert restarts == [2, 0]
  assert none.total.shape == (0,)
  assert {name: part.shape for name, part in none.parts.items()} == (
      dict.fromkeys(one.parts, (0,)))
  assert none.counters == one.counters


def test_accuracy_and_format_alone_are_computed_without_weight():
  weights = {'accuracy': 0.0, 'overlong': 0.0, 'repetition': 1.0}
  with _scorer(weights) as scorer:
    scores = scorer.score([_record('72')], [_response('72')])
  assert set(scores.parts) == {'accuracy', 'format', 'repetition'}
  assert scores.parts['accuracy'][0] == scores.parts['format'][0] == 1.0
  assert scores.total[0] == 0.0
  with _scorer({'accuracy': 0.}, languages=('en', 'zh')) as scorer:
    scores = scorer.score([_record('72')], [_response('72')])
  assert set(scores.parts) == {'accuracy', 'format', 'language', 'mixed'}
  assert scores.total[0] == 0.0


def test_the_language_is_that_of_the_prompt_unless_it_is_named():
  records = [_record('4') | {'prompt': prompt} for prompt in (
      'What is 2+2?', '二加二等于几？', '2+2=?')]  # the last in any
  text = '<think> First 我 </think> <answer> 4 </answer>'
  responses = [rewards_lib.Response(text.replace('First', word), 9, True)
               for word in ('First and second', 'First and second', '我我我')]
  for language, shares in ((None, (3 / 4, 1 / 4, 1.)),
                           ('zh', (1 / 4, 1 / 4, 1.))):
    with _scorer({'language': 1.0}, languages=('en', 'zh'),
                 language=language) as scorer:
      scores = scorer.score(records, responses)
    np.testing.assert_allclose(scores.parts['language'], shares)
    np.testing.assert_allclose(scores.total, shares)
    np.testing.assert_array_equal(scores.parts['mixed'], [1, 1, 0])


def test_a_task_may_have_weights_of_its_own():
  records = [_record('72', task=task) for task in ('math', 'writing')]
  with _scorer({'accuracy': 1., 'format': .5},
               tasks={'writing': {'accuracy': 0., 'repetition': 2.}}) as scorer:
    scores = scorer.score(records, [_response('72')] * 2)
    assert scorer.weight('accuracy', 'math') == 1.
    assert scorer.weight('accuracy', 'writing') == 0.
  assert scores.parts['accuracy'].tolist() == [1., 1.]
  np.testing.assert_allclose(scores.total, [1.5, .5])
  assert 'repetition' in scores.parts


def test_a_part_may_count_against_a_response():
  with _scorer({'accuracy': 1., 'repetition': -2.}) as scorer:
    scores = scorer.score([_record('5')], [_response('5 ' + 'again ' * 60)])
  assert scores.parts['repetition'][0] < 0.
  np.testing.assert_allclose(scores.total, -2 * scores.parts['repetition'])


def test_the_whole_of_a_summary_is_an_answer_if_it_was_not_cut():
  responses = [rewards_lib.Response('<think>so</think> 72', 9, finished)
               for finished in (True, False)]
  with _scorer({'accuracy': 1.}, answer='summary') as scorer:
    scores = scorer.score([_record('72')] * 2, responses)
  assert scores.parts['accuracy'].tolist() == [1., 0.]


def test_the_workers_end_with_the_scorer(monkeypatch):
  closed = []
  with _scorer() as scorer:
    for part in (scorer._pool, scorer._functions):
      monkeypatch.setattr(part, 'close', lambda part=part: closed.append(part))
  assert closed == [scorer._pool, scorer._functions]


def test_a_row_has_the_parts_and_what_functions_log_of_its_response():
  scores = score.Scores(
      np.float32([.5, 2.]), {'a': np.float32([.5, 1.])}, {}, ({}, {'seen': 3}))
  assert scores.row(1) == {'reward': 2., 'a': 1., 'seen': 3}
  assert scores._replace(columns=()).row(0) == {'reward': .5, 'a': .5}


@pytest.mark.parametrize('weights, settings, message', [
    ({}, {'tasks': {'a': {'acuracy': 1.}}},
     'config.rewards.tasks.a.acuracy: no such reward; did you mean '),
    ({'language': 1.0}, {}, 'config.rewards.languages: expected those that'),
    ({}, {'languages': ('en',), 'language': 'zh'}, 'config.rewards.language'),
    ({'acuracy': 1.0}, {},
     'config.rewards.weights.acuracy: no such reward; did you '
     'mean config.rewards.weights.accuracy'),
    ({'brevity': 1.0}, {}, 'config.rewards.weights.brevity: .* valid: config'),
    (None, {'answer': 'tag'}, 'config.rewards.answer: .* did you mean tags'),
    *((None, {'overlong_cache_tokens': tokens},
       'config.rewards.overlong_cache_tokens') for tokens in (-1, 0, 101)),
])
def test_impossible_settings_are_refused(weights, settings, message):
  with pytest.raises(errors.ConfigError, match=message):
    _scorer(weights, **settings)


def test_the_penalty_begins_a_fifth_before_the_limit_unless_it_is_said():
  for limit, tokens, penalty in ((100, 90, -.5), (4, 4, -1.), (1, 1, -1.)):
    with _scorer({'overlong': 1.}, max_tokens=limit) as scorer:
      scores = scorer.score([_record('72')], [_response('72', tokens)])
    np.testing.assert_allclose(scores.total, [penalty])


def test_records_and_responses_must_pair():
  with _scorer() as scorer, pytest.raises(ValueError):
    scorer.score([_record('1')], [])


def test_why_a_verifier_gave_no_verdict_is_logged_once_a_reason(caplog):
  records = [_record('1'), _record('1'), _record('1', task='aime'),
             _record('')]  # a reference that cannot be read
  with _scorer() as scorer:
    for i in range(2):
      scores = scorer.score(records, [_response(answer) for answer in (
          'x' * 1001, 'y' * 1001, 'x' * 1001, f'x + {i}')])
      assert scores.counters['refused'] == 3
      assert scores.counters['errors'] == 1
  assert caplog.messages == [
      'no verdict on an answer: gsm8k: refused, 1001 characters, more than 1000',
      'no verdict on an answer: aime: refused, 1001 characters, more than 1000',
      "no verdict on an answer: gsm8k: ValueError: the reference '' is not "
      'mathematics']


def test_hostile_answers_cost_themselves_only(tmp_path):
  pytest.importorskip('reasoning_gym')
  sentinel = tmp_path / 'sentinel'
  attack = f"__import__('os').system('touch {sentinel}')"
  countdown = _record('6', 'reasoning_gym', 'countdown', entry={
      'answer': '1 + 5', 'metadata': {'numbers': [1, 5], 'target': 6}})
  strings = _record('AB', 'reasoning_gym', 'string_insertion',
                    entry={'answer': 'AB', 'metadata': {}})
  half = _record(r'\frac{1}{2}')
  cases = [
      (half, '0.5', 1),
      (half, attack, 0),
      (half, f'$\\gcd({attack}, 2)$', 0),
      (half, '{' * 400 + '1' + '}' * 400, 0),
      (half, '9' * 100_000, 0),
      (half, r'\frac{\frac{\frac{', 0),
      (half, '\ufffd\ufffd', 0),
      (half, r'\frac{3}{6}', 1),
      (countdown, '5 + 1', 1),
      (countdown, attack, 0),
      (countdown, '9**9**9**9', 0),  # hangs the arithmetic
      (countdown, '1 + 5', 1),
      (countdown, '5 - 1', 0),
      (strings, f'[{attack}]', 0),
      (strings, "['A', 'B']", 0),  # a tenth of a mark is not right
      (strings, 'AB', 1),
  ]
  with _scorer() as scorer:
    scores = scorer.score([record for record, _, _ in cases],
                          [_response(answer) for _, answer, _ in cases])
    again = scorer.score([half], [_response('1/2')])
  assert not sentinel.exists()
  assert scores.parts['accuracy'].tolist() == [right for _, _, right in cases]
  assert scores.counters['refused'] == 3  # too long, or could run code
  assert scores.counters['timeouts'] == 1
  assert again.parts['accuracy'][0] == 1.0
  assert not any(again.counters.values())


def test_gsm8k_references_verify_against_themselves():
  path = shared_data.path('gsm8k/test.jsonl')
  with path.open(encoding='utf-8') as lines:
    references = [json.loads(line)['answer'].split('####')[1].strip()
                  for line, _ in zip(lines, range(200))]
  records = [_record(reference) for reference in references] * 4
  wrong = [str(int(r.replace(',', '')) + 1) for r in references]
  answers = references + wrong
  answers += [f'${answer}$' for answer in answers]  # these go to a worker
  with _scorer() as scorer:
    scores = scorer.score(records, [_response(answer) for answer in answers])
  right = scores.parts['accuracy'].reshape(2, 2, 200)
  assert (right[:, 0] == 1).all() and (right[:, 1] == 0).all()
  assert not any(scores.counters.values())
