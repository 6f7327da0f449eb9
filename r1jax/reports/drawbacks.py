"""The report of R1's drawbacks: every model of the recipe on the same tests.

The recipe runs once per seed on one base. A model's result is the mean over
seeds; its 95 % interval is that of Student's t distribution over the seeds'
results, and of the base, which there is once, Wilson's over problems. A change
is computed within each seed. The claims are those of the paper's limitations
(DeepSeek-R1, arXiv 2501.12948, conclusion); the verdicts are those of
r1_claims.py.
"""

import collections
from collections.abc import Mapping, Sequence
import contextlib
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from r1jax.data import thinking
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.reports import r1_claims
from r1jax.rewards import accuracy
from r1jax.rewards import answers
from r1jax.rewards import language
from r1jax.rewards import workers
from r1jax.training import files

_MEASURED = re.compile(r'(?:seed(\d+)_)?measured_(\w+)')
_TITLES = {  # of the models, in their order
    'base': 'base', 'zero': 'R1-Zero', 'cold_start': 'cold start',
    'reasoning': 'reasoning RL', 'sft': 'SFT', 'r1': 'R1',
    'student_base': 'student’s base', 'distilled': 'distilled student'}
_LANGUAGES = language.Languages(('en', 'zh', 'it'))
_SHOWN = ('it', 'shots_1', 'repair')  # tests
_PROMPTS = 3  # shown of each of them
_NEXT = '\nUser:'  # where the next question begins, in the mini template
_VERIFIERS = {'general': 'exact', 'repair': 'repair'}  # by test; else 'math'
_RULE_SECONDS = 5.  # for one answer

Tests = Mapping[str, r1_claims.Rows]  # the responses of a model, by test
Models = Mapping[str, Sequence[Tests]]  # by name, of each seed


class Column(NamedTuple):
  """A result of a model: a share of its responses to a test."""
  title: str
  test: str
  language: str = ''  # of their thoughts; '': those that are right

  def values(self, tests: Tests) -> np.ndarray:
    """1 or 0 of each response that counts; one 0 where none does."""
    rows = tests[self.test]
    if not self.language:
      return np.array([row['accuracy'] for row in rows])
    found = [code == self.language for code in spoken(rows)]
    return np.array(found or [0.], float)

  def share(self, tests: Tests) -> float:
    return float(self.values(tests).mean())


COLUMNS = {
    'general': Column('general tasks', 'general'),
    'reasoning': Column('reasoning', 'en'),
    'shots_1': Column('… after one example', 'shots_1'),
    'shots_2': Column('… after two', 'shots_2'),
    'chinese': Column('… in Chinese', 'zh'),
    'italian': Column('… in Italian', 'it'),
    'repair': Column('repairs', 'repair'),
    'thinks_en': Column('English, asked in English', 'en', 'en'),
    'thinks_zh': Column('Chinese, asked in Chinese', 'zh', 'zh'),
    'thinks_it': Column('Italian, asked in Italian', 'it', 'it'),
    'it_in_en': Column('English, asked in Italian', 'it', 'en'),
    'it_in_zh': Column('Chinese, asked in Italian', 'it', 'zh'),
}


def spoken(rows: r1_claims.Rows) -> list[str]:
  """The language of each thought: that of most of its words.

  A response without a thought, or whose thought is mathematics alone, does not
  count.
  """
  found = []
  for row in rows:
    thought, ended, _ = row['response'].partition(thinking.END_OF_THINKING)
    thought = thought.partition(thinking.THINK)[2]
    shares = [_LANGUAGES.share(thought, code) for code in _LANGUAGES.codes]
    if ended and min(shares) < 1.:  # without words every share is 1
      found.append(_LANGUAGES.of(thought))
  return found


def over_seeds(values: Sequence[float], count: int) -> intervals.Figure:
  """The mean of the seeds' shares, and its interval within [0, 1].

  Of one seed: Wilson's, over the `count` responses that its share is of.
  """
  if len(values) == 1:
    return intervals.Figure(values[0], *intervals.wilson(values[0], count))
  mean, half = _mean(values)
  return intervals.Figure(mean, max(mean - half, 0.), min(mean + half, 1.))


def _mean(values: Sequence[float]) -> tuple[float, float]:
  """The mean of n values, and half of its interval of n - 1 degrees."""
  size = len(values)
  quantile = special.stdtrit(size - 1, .975)
  return float(np.mean(values)), float(
      quantile * np.std(values, ddof=1) / size**.5)


def results(models: Models) -> dict[str, dict[str, intervals.Figure]]:
  """The results of each model, by COLUMNS."""
  return {name: {
      key: over_seeds([column.share(tests) for tests in seeds],
                      len(column.values(seeds[0])))
      for key, column in COLUMNS.items()} for name, seeds in models.items()}


Result = tuple[str, str]  # a model and one of COLUMNS


def claims(models: Models) -> list[r1_claims.Claim]:
  """The claims, from one result to another."""
  compare = lambda said, measured, before, after, rises=False: _claim(
      models, said, measured, before, after, rises)
  return [
      compare('RL on reasoning alone forgets general skill',
              'general tasks, base → R1-Zero',
              ('base', 'general'), ('zero', 'general')),
      compare('The whole recipe does not bring all of it back',
              'general tasks, base → R1', ('base', 'general'),
              ('r1', 'general')),
      compare('A language that RL is paid for is kept to',
              'thinking in Chinese, asked in it, base → R1',
              ('base', 'thinks_zh'), ('r1', 'thinks_zh'), True),
      compare('Another language is not', 'thinking in Italian, asked in it, '
              'base → R1', ('base', 'thinks_it'), ('r1', 'thinks_it')),
      compare('English is thought in its place', 'thinking in English, asked '
              'in Italian, base → R1', ('base', 'it_in_en'),
              ('r1', 'it_in_en'), True),
      compare('Reasoning is worse in that language',
              'the same problems, R1, asked in English → in Italian',
              ('r1', 'reasoning'), ('r1', 'italian')),
      compare('Examples in the prompt help a base', 'reasoning of the base, '
              'none → two', ('base', 'reasoning'), ('base', 'shots_2'), True),
      compare('One hurts R1', 'reasoning of R1, none → one',
              ('r1', 'reasoning'), ('r1', 'shots_1')),
      compare('Two hurt it more', 'reasoning of R1, one → two',
              ('r1', 'shots_1'), ('r1', 'shots_2')),
      compare('One hurts its student', 'reasoning of the student, none → one',
              ('distilled', 'reasoning'), ('distilled', 'shots_1')),
      compare('Reasoning rises', 'reasoning, base → R1',
              ('base', 'reasoning'), ('r1', 'reasoning'), True),
      compare('Software engineering rises, too', 'functions repaired, base → '
              'R1', ('base', 'repair'), ('r1', 'repair'), True),
  ]


def _claim(models: Models, said: str, measured: str, before: Result,
           after: Result, rises: bool) -> r1_claims.Claim:
  """A claim on the change within each seed; the base is of every seed."""
  columns = [COLUMNS[key] for _, key in (before, after)]
  sides = [models[name] for name, _ in (before, after)]
  shares = [np.array([column.share(tests) for tests in seeds])
            for column, seeds in zip(columns, sides)]
  figures = [over_seeds(share.tolist(), len(column.values(seeds[0])))
             for share, column, seeds in zip(shares, columns, sides)]
  changes = shares[1] - shares[0]
  if len(changes) > 1:
    mean, half = _mean(changes)
    change = intervals.Figure(mean, mean - half, mean + half)
  else:  # of one seed, or of the base: by responses
    change = intervals.change(
        *(column.values(seeds[0]) for column, seeds in zip(columns, sides)),
        paired=not any(column.language for column in columns))
  return r1_claims.Claim(
      said, measured, *figures, change, r1_claims.verdict(change, rises))


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder = pathlib.Path(workdir)
  models = read_models(folder, config['stages'])
  table, tested = results(models), claims(models)
  files.write_json(folder / 'summary.json', {
      'models': {name: {key: figure._asdict() for key, figure in row.items()}
                 for name, row in table.items()},
      'claims': [claim._asdict() | {
          name: getattr(claim, name)._asdict()
          for name in ('before', 'after', 'change')} for claim in tested]})
  minutes = sum(files.need_json(
      folder / name / 'manifest.json', ['seconds'])['seconds']
                for name in config['stages']) / 60
  first = models['base'][0]
  page.render_page(
      folder / 'report.html', 'drawbacks.html.jinja', kicker=config['name'],
      title='What R1’s recipe leaves behind', config=config,
      claims=[r1_claims.row_of(claim) for claim in tested],
      tables=[_table(table, part) for part in (
          [key for key, column in COLUMNS.items() if not column.language],
          [key for key, column in COLUMNS.items() if column.language])],
      seeds=len(models['r1']), minutes=minutes,
      problems=len(first['en']), samples=_samples(models))
  return '\n'.join([*map(r1_claims.one_line, tested),
                    f'report: {folder / "report.html"}'])


def _table(table: Mapping[str, Mapping[str, intervals.Figure]],
           keys: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
  """The titles of columns, and a row for each model."""
  return [COLUMNS[key].title for key in keys], [
      (_TITLES[name], *(_percent(row[key]) for key in keys))
      for name, row in table.items()]


def _percent(figure: intervals.Figure) -> str:
  value, low, high = (f'{100 * x:.0f}' for x in figure)
  return f'{value} [{low}, {high}]'


def read_models(folder: pathlib.Path, stages: Mapping[str, Any]) -> Models:
  """The responses of each model that stages have measured, seed by seed."""
  found = collections.defaultdict(dict)
  with contextlib.closing(workers.Pool(1, _RULE_SECONDS)) as pool:
    for stage in stages:
      if match := _MEASURED.fullmatch(stage):
        found[match[2]][int(match[1] or 0)] = {
            test: cut(rows, _VERIFIERS.get(test, 'math'), pool)
            for test, rows in r1_claims.responses(folder / stage).items()}
  return {name: [found[name][seed] for seed in sorted(found[name])]
          for name in _TITLES}


def cut(rows: r1_claims.Rows, verifier: str, pool: workers.Pool
       ) -> r1_claims.Rows:
  """The responses up to where the model asks itself the next question.

  A base model goes on like that after its answer, above all where examples are
  before the question; evaluations stop there. `verifier` scores what is left.
  """
  cut_off = [n for n, row in enumerate(rows) if _NEXT in row['response']]
  changed = [rows[n] | dict(
      response=rows[n]['response'].partition(_NEXT)[0], finished=True,
      verifier=verifier)
             for n in cut_off]
  right = accuracy.check_answers(changed, [
      answers.extract_answer(row['response'], 'summary') for row in changed],
                                 pool).right
  again = {n: row | dict(accuracy=float(value))
           for n, row, value in zip(cut_off, changed, right)}
  return [again.get(n, row) for n, row in enumerate(rows)]


def _samples(models: Models) -> list[dict[str, Any]]:
  """The first problems of some tests, answered by every model of seed 0."""
  first = {name: seeds[0] for name, seeds in models.items()}
  return [{'prompt': first['base'][test][number]['prompt'],
           'responses': [{
               'name': _TITLES[name], 'text': tests[test][number]['response'],
               **_grade(tests[test][number])}
                         for name, tests in first.items()]}
          for test in _SHOWN for number in range(_PROMPTS)]


def _grade(row: Mapping[str, Any]) -> dict[str, Any]:
  return {'correct': row['accuracy'] == 1.,
          'fault': '' if row['finished'] else 'cut at the token limit'}
