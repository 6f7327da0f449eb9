"""A policy measured: every test by its own prompts and rewards."""

import jax
import pytest

from experiments import common
from experiments import r1
from experiments import r1_zero
from experiments import sections
from r1jax import errors
from r1jax import rewards as rewards_lib
from r1jax import stages
from r1jax.parallel import sharding
from r1jax.rewards import workers
from r1jax.stages import evaluation
from r1jax.stages import rollouts
from r1jax.stages import train_state
from r1jax.training import files
from r1jax.training import loop


def _stage(config, workdir, mesh=None):
  return stages.build(
      config, mesh or sharding.make_mesh(config.mesh), str(workdir))


def _run(config, workdir, mesh=None):
  return loop.train(
      _stage(config, workdir, mesh), stages.loop_settings(config), str(workdir),
      config.to_dict())


def _config():
  config = r1.measured('mini', common.mini_model())
  config.rl.update(response_tokens=24, sample_chunk=24)
  config.eval.batch = 8
  config.tests = dict(
      reasoning=sections.test(
          sections.questions('mini_reasoning'), 6, form='answer'),
      general=sections.test(sections.questions('mini_general'), 5))
  return config


def test_each_test_has_its_figures_and_responses(tmp_path, capsys):
  config = _config()
  summary = _run(config, tmp_path)
  after = summary['after']
  assert set(after) == {'reasoning', 'general'} and summary['before'] is None
  assert after['reasoning']['n'] == 6 and after['general']['n'] == 5
  assert 'greedy' not in after['general']
  assert after['general']['verifier'] == dict(
      errors=0, timeouts=0, refused=0, restarts=0)
  tests = files.read_rows(tmp_path / 'rollouts.jsonl')
  rows = [row for row in tests if row['test'] == 'reasoning']
  assert [row['task'] for row in sorted(rows, key=lambda row: row['id'])[:2]
          ] == ['chain_sum', 'leg_counting']
  lengths = [row['prompt_tokens'] for row in rows]
  assert lengths == sorted(lengths)
  # The base speaks in tags now and then, which is no summary.
  assert sum(row['format'] for row in rows) > 0
  assert len(tests) - len(rows) == 5
  words = capsys.readouterr().out
  assert 'verifier' not in words and '\nreasoning' in words
  assert (tmp_path / 'report.html').exists()


def test_a_tests_rewards_go_before_the_stages():
  config = r1.measured('mini', common.mini_model())
  config.rewards.weights.language = .5
  test = sections.test(sections.questions('mini_general'), 3, answer='tags',
                       weights=dict(format=0.))
  rewards = evaluation.rewards_of_test(config.rewards, test.rewards)
  assert (rewards['answer'], rewards['form']) == ('tags', 'summary')
  weights = config.rewards.weights.to_dict()
  assert weights['format'] == 1. and rewards['weights'] == weights | dict(
      format=0.)
  # The stage's functions are measured beside the test's own.
  own = evaluation.rewards_of_test(
      config.rewards.to_dict() | dict(functions=dict(mine='m.py:f')),
      dict(functions=dict(ifeval='i.py:g')))
  assert own['functions'] == dict(mine='m.py:f', ifeval='i.py:g')
  with pytest.raises(errors.ConfigError, match='did you mean answer'):
    sections.test(sections.questions('mini_general'), 3, anwser='tags')


def test_mistakes_name_their_test(tmp_path):
  config = _config()
  config.tests.general.data.options.task = 'x'
  with pytest.raises(errors.ConfigError,
                     match='config.tests.general.data.options'):
    _run(config, tmp_path)
  with pytest.raises(errors.ConfigError, match='config.init_from'):
    config.init_from = None
    _run(config, tmp_path)


def _without_times(results):
  """Results of tests without those of the machine."""
  return {name: {key: value for key, value in found.items()
                 if not key.startswith(('time/', 'perf/'))}
          for name, found in results.items()}


def test_a_killed_evaluation_ends_with_the_same_rows_and_figures(tmp_path):
  config = _config()
  config.eval.batch = 4  # responses: two problems at a time
  config.tests.general.samples = config.tests.reasoning.samples = 2
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  whole = _run(config, tmp_path / 'whole', mesh)['after']
  stage = _stage(config, tmp_path / 'killed', mesh)
  assert stage.steps == 3 + 3

  def step(state, index):
    if index == 4:
      raise MemoryError('killed')
    return stage.step(state, index)

  with pytest.raises(MemoryError):
    loop.train(stage._replace(step=step), stages.loop_settings(config),
               str(tmp_path / 'killed'), config.to_dict())
  assert files.read_rows(tmp_path / 'killed/rollouts.jsonl')[-1]['step'] == 3
  assert not (tmp_path / 'killed/summary.json').exists()
  again = _run(config, tmp_path / 'killed', mesh)['after']
  rows = [(tmp_path / name / 'rollouts.jsonl').read_bytes()
          for name in ('whole', 'killed')]
  assert rows[0] == rows[1]
  assert _without_times(again) == _without_times(whole)
  # Rows of another order of problems, as an earlier r1jax had, are no result.
  lines = rows[0].splitlines(keepends=True)
  (tmp_path / 'killed/rollouts.jsonl').write_bytes(
      b''.join(lines[:2] + lines[:1] + lines[3:]))
  with pytest.raises(errors.RunError, match='expected 2 rows of each of 5 '):
    stage.results()
  _check_samples(whole['reasoning'], files.read_rows(
      tmp_path / 'whole/rollouts.jsonl'))


def _check_samples(found, rows):
  """Figures of several samples are those of their rows."""
  rows = [row for row in rows if row['test'] == 'reasoning']
  assert sorted((row['id'], row['sample']) for row in rows) == [
      (n, sample) for n in range(6) for sample in range(2)]
  right = [row['accuracy'] for row in rows]
  solved = [max(right[n:n + 2]) for n in range(0, 12, 2)]
  assert found['n'] == 6 and found['samples'] == 2
  assert found['pass@1'] == sum(right) / 12
  assert found['pass@2'] == sum(solved) / 6
  # The vote is on the answer that was extracted, once.
  assert all((row['vote'] is None) == (row['extracted'] is None)
             for row in rows)
  # Two that differ tie, so that a majority of two is the mean.
  answered = [row['extracted'] is not None for row in rows]
  assert not all(answered) or found['cons@2'] == pytest.approx(sum(right) / 12)
  said = sum(row['tokens'] for row in rows)
  asked = sum(row['prompt_tokens'] for row in rows) // 2
  assert found['tokens'] == dict(
      prompts=asked, responses=said, total=asked + said)


def test_a_problem_whose_verifier_times_out_stays_and_is_wrong(monkeypatch):
  monkeypatch.setattr(workers.Pool, 'run', lambda self, jobs, together: [
      workers.Outcome('timeouts', 0., 'late') for _ in jobs])
  records = [dict(prompt='', task='t', verifier='math', answer=answer)
             for answer in ('7', 'x + 1')]
  responses = [rewards_lib.Response(f'\\boxed{{{text}}}', 3, True)
               for text in ('7', '8', '1 + x', 'y')]
  with rewards_lib.Scorer(
      dict(accuracy=1.), max_tokens=9, workers=1, timeout_seconds=1.,
      answer='boxed') as scorer:
    scores = scorer.score([records[n // 2] for n in range(4)], responses)
    votes, counters = scorer.votes(
        records, [scores.answers[:2], scores.answers[2:]])
  assert scores.counters['timeouts'] == 2 and counters['timeouts'] == 1
  rows = [{'task': 't', 'tokens': 3, 'finished': True, **scores.row(n),
           'vote': votes[n // 2][n % 2]} for n in range(4)]
  found = evaluation.results(rows, None, group=2)
  assert (found['n'], found['pass@1'], found['answered']) == (2, .25, 1.)
  assert found['cons@2'] == .25  # a tie, and two answers that are not joined


@pytest.mark.parametrize('changes, field', [
    ({'eval.temperature': 0., 'eval.samples': 2}, 'eval.samples'),
    ({'eval.temperature': 0., 'tests.general.samples': 2},
     'tests.general.samples'),
    ({'tests.general.temperature': 0., 'eval.samples': 2}, 'eval.samples')])
def test_several_greedy_samples_are_refused(changes, field, tmp_path):
  config = _config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(errors.ConfigError,
                     match=f'config.{field}: .*greedy samples are all the'):
    _stage(config, tmp_path)


def test_a_test_samples_as_it_says_within_the_models_length(tmp_path, capsys):
  config = _config()
  config.tests.general.update(
      samples=3, temperature=.5, top_p=.9, top_k=7, prompt_tokens=50,
      response_tokens=1_000)
  policy = train_state.configured_model(
      config, sharding.make_mesh(config.mesh))
  tests = evaluation.make_tests(
      config, policy, policy.vocabulary(config.vocab), ())
  general, reasoning = (
      tests[name].settings for name in ('general', 'reasoning'))
  assert general[:2] == (3, 256 - 50)
  assert (general.temperature, general.top_k, general.top_p) == (.5, 7, .9)
  assert (reasoning.group, reasoning.temperature, reasoning.top_p) == (
      1, config.eval.temperature, config.eval.top_p)
  assert 'general: responses are cut at 206 tokens, not 1000' in (
      capsys.readouterr().out)
  # 8 responses at a time are 2 problems of 3; what fills up the shards does not
  # count, so that a run goes on with the next problem on any devices.
  assert tests['general'].count == 2
  assert tests['general'].batch == len(jax.devices())
  # Batches are of one size, so that the last is as full as the others.
  assert tests['reasoning'].count == 6
  config.eval.batch = 4
  assert evaluation.make_tests(config, policy, policy.vocabulary(
      config.vocab), ())['reasoning'].count == 3
  config.tests.general.prompt_tokens = 256
  with pytest.raises(errors.ConfigError, match='tests.general.prompt_tokens'):
    evaluation.make_tests(
        config, policy, policy.vocabulary(config.vocab), ())


def test_rl_takes_the_tests_beside_its_held_out_problems(tmp_path):
  config = r1_zero.get_config('mini,mini_general')
  config.steps = 0
  config.rl.update(response_tokens=24, sample_chunk=24)
  config.eval.update(problems=8, batch=8)
  config.tests.mini_general.update(problems=5, samples=2)
  after = _run(config, tmp_path)['after']
  assert after['n'] == 8 and after['mini_general/n'] == 5
  assert {f'mini_general/{name}' for name in (
      'pass@1', 'pass@2', 'cons@2', 'ci95')} < set(after)
  rows = files.read_rows(tmp_path / 'mini_general_0.jsonl')
  assert [row['id'] for row in rows] == [n // 2 for n in range(10)]
  assert {row['task'] for row in rows} != {'mini_reasoning'}


def test_tests_are_scored_as_the_config_says(tmp_path, monkeypatch):
  made, config = [], _config()
  config.rl.score_while_sampling = True
  monkeypatch.setattr(
      rollouts, 'Sampler', lambda placed, settings, in_pieces: made.append(
          in_pieces))
  _stage(config, tmp_path)
  assert made == [True, True]
