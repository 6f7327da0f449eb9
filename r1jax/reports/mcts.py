"""The report of tree search: accuracy over the tokens that are drawn for it.

Of each round the search on held-out problems is beside greedy decoding, the
majority of plain samples and the best of them by the same value model, at as
many tokens. Then the policies that have learned from trees and from plain
samples; and what of the paper's reasons to give tree search up is seen
(DeepSeek-R1, arXiv 2501.12948, 4.2).
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from r1jax.reports import best_of
from r1jax.reports import charts
from r1jax.reports import intervals
from r1jax.reports import page
from r1jax.reports import pass_at_k
from r1jax.training import files

Rows = list[dict[str, Any]]

LOOPS = {'alphazero': 'AlphaZero: outcomes',
         'rest': 'ReST-MCTS*: quality values',
         'rejection': 'rejection sampling'}
_BEFORE = {'alphazero': ['first'], 'rest': ['first']}  # searches, for values
TREES = {'tree': 'tree search', 'small_tree': 'smaller trees'}
_FIELDS = ('extracted', 'accuracy', 'search/chosen', 'search/value',
           'search/drawn', 'search/steps')


class Samples(NamedTuple):
  """Plain samples of M problems, K each."""
  right: np.ndarray  # f64[M, K]
  value: np.ndarray  # f64[M, K]
  answer: list[list[str | None]]  # [M][K]
  tokens: float  # of one sample, the mean


class Trees(NamedTuple):
  """What searches have found for M problems."""
  right: np.ndarray  # f64[M], of the chosen responses
  found: np.ndarray  # f64[M], whether any response of the tree is right
  tokens: float  # drawn for a problem, the mean
  steps: float  # of a chosen response, the mean


def write_report(config: Mapping[str, Any], workdir: str) -> str:
  """Writes report.html into a pipeline's workdir; returns the closing words."""
  folder, stages = pathlib.Path(workdir), config['stages']
  rounds = sorted(int(name.removeprefix('samples_'))
                  for name in stages if name.startswith('samples_'))
  rows = lambda name: files.need_rows(folder / name / 'rollouts.jsonl')
  samples = {n: plain(rows(f'samples_{n}')) for n in rounds}
  trees = {name: {n: searched(rows(f'{name}_{n}')) for n in rounds}
           for name in TREES}
  greedy = {n: searched(rows(f'greedy_{n}')) for n in rounds}
  alone = {loop: {n: samples[n] if not n or loop == 'alphazero' else plain(
      rows(f'{loop}_samples_{n}')) for n in rounds} for loop in LOOPS}
  table = {n: at_equal_tokens(
      {TREES[name]: found[n] for name, found in trees.items()}, samples[n],
      greedy[n]) for n in rounds}
  loops = {loop: _learned(folder, loop, rounds, alone[loop]) for loop in LOOPS}
  values = {n: files.need_json(
      folder / f'alphazero_value_{n}/summary.json', ['after'])['after']
            for n in rounds}
  reasons = _reasons(trees['tree'], samples, stages['tree_0']['search'], rounds)
  files.write_json(folder / 'summary.json', {
      'rounds': table, 'loops': loops, 'reasons': reasons, 'values': values})
  page.render_page(
      folder / 'report.html', 'mcts.html.jinja', kicker=config['name'],
      title='Tree search over steps', config=config,
      n=len(samples[rounds[0]].right), tables=[
          (n, _cells(found)) for n, found in table.items()],
      curves=[_curve(n, samples[n], {
          TREES[name]: found[n] for name, found in trees.items()},
                     greedy[n]) for n in rounds],
      loops=[(LOOPS[loop], *_loop_cells(found))
             for loop, found in loops.items()],
      loop_head=[*(f'round {n}' for n in rounds), 'tokens drawn', 'kept'],
      learned=_learning(loops),
      values=[(f'round {n}', *(intervals.percent(after[name]) for name in (
          'accuracy', 'right', 'wrong', 'f1'))) for n, after in values.items()],
      reasons=[(reason['said'], reason['measured']) for reason in reasons])
  return '\n'.join([*_words(table), *(
      f'{reason["said"]}: {reason["measured"]}' for reason in reasons),
                    f'report: {folder / "report.html"}'])


###############################################################################
# What was measured
###############################################################################


def _by_problem(rows: Rows) -> list[Rows]:
  found = {}
  for row in rows:
    found.setdefault(row['id'], []).append(
        {name: row[name] for name in _FIELDS})
  return [found[i] for i in sorted(found)]


def plain(rows: Rows) -> Samples:
  """Plain samples, those of a search without trees."""
  problems = _by_problem(rows)
  column = lambda name: np.array(
      [[row[name] for row in group] for group in problems], float)
  drawn = np.array([group[0]['search/drawn'] for group in problems])
  right = column('accuracy')
  return Samples(right, column('search/value'), [
      [row['extracted'] for row in group] for group in problems],
                 float(drawn.mean()) / right.shape[1])


def searched(rows: Rows) -> Trees:
  """What was chosen, and what was found beside it."""
  problems = _by_problem(rows)
  chosen = [next(row for row in group if row['search/chosen'])
            for group in problems]
  mean = lambda values: float(np.mean(list(values)))
  return Trees(
      np.array([row['accuracy'] for row in chosen]),
      np.array([max(row['accuracy'] for row in group) for group in problems]),
      mean(row['search/drawn'] for row in chosen),
      mean(len(row['search/steps']) for row in chosen))


def curves(samples: Samples) -> dict[str, list[tuple[int, np.ndarray]]]:
  """{method: [(k, f64[M]), ...]}: accuracy with k samples of each problem.

  The mean over all choices of k among the K samples.
  """
  problems, count = samples.right.shape
  sizes, each = pass_at_k.sizes(count), range(problems)
  votes = np.array([best_of.majority(
      samples.answer[m], samples.right[m], sizes) for m in each])
  return {
      'best of N by value': [(k, np.array([best_of.best(
          samples.value[m], samples.right[m], k) for m in each]))
                             for k in sizes],
      'majority': [*zip(sizes, votes.T)],
      'any of N right': [(k, np.array([pass_at_k.estimate(
          count, int(samples.right[m].sum()), k) for m in each]))
                         for k in sizes]}


def at_tokens(curve: Sequence[tuple[int, np.ndarray]], each: float,
              tokens: float) -> np.ndarray:
  """The accuracies of a curve at so many tokens, f64[M].

  Between two sizes they are linear in the logarithm of the tokens; beyond the
  first and the last they are those of these.

  Args:
    curve: of `curves`.
    each: tokens of one sample.
    tokens: that may be drawn.
  """
  sizes = np.log([k * each for k, _ in curve])
  at = float(np.interp(np.log(tokens), sizes, np.arange(len(sizes))))
  low = int(at)
  high = min(low + 1, len(curve) - 1)
  return (1 - at + low) * curve[low][1] + (at - low) * curve[high][1]


def at_equal_tokens(trees: Mapping[str, Trees], samples: Samples,
                    greedy: Trees) -> dict[str, dict[str, Any]]:
  """{method: accuracy, interval, tokens}, plain ones at the trees' tokens."""
  known, table = curves(samples), {}

  def add(name, right, tokens):
    figure = intervals.share(right)
    table[name] = {'accuracy': figure.value, 'ci95': [figure.low, figure.high],
                   'tokens': tokens}

  add('greedy', greedy.right, greedy.tokens)
  add('one sample', samples.right.mean(1), samples.tokens)
  for name, found in trees.items():
    add(name, found.right, found.tokens)
    add(f'any response of {name} right', found.found, found.tokens)
    for method, curve in known.items():
      add(f'{method}, as {name}',
          at_tokens(curve, samples.tokens, found.tokens), found.tokens)
  return table


def _learned(folder: pathlib.Path, loop: str, rounds: Sequence[int],
             alone: Mapping[int, Samples]) -> dict[str, Any]:
  """The policies of a loop, without a search, and what taught them, by round.

  Before its rounds a loop with values draws for the first value model.
  """
  searches = [f'{loop}_search_{n}' for n in rounds[1:]]
  tokens = [sum(row['perf/tokens'] for row in files.need_rows(
      folder / name / 'metrics.jsonl'))
            for name in (*_BEFORE.get(loop, ()), *searches)]
  kept = [sum(counts.get('kept', 0) for counts in files.need_json(
      folder / name / 'kept.json').values()) for name in searches]
  means = [alone[n].right.mean(1) for n in rounds]
  return {'one sample': [float(mean.mean()) for mean in means],
          'ci95': [intervals.clustered(mean, alone[n].right.shape[1])
                   for n, mean in zip(rounds, means)],
          'tokens': tokens, 'kept': kept}


def _reasons(trees: Mapping[int, Trees], samples: Mapping[int, Samples],
             search: Mapping[str, Any], rounds: Sequence[int]
             ) -> list[dict[str, str]]:
  """The paper's reasons, and what was measured of each."""
  ends = rounds[0], rounds[-1]
  text = lambda figure: intervals.text(figure, interval=True)

  def in_rounds(measure: Callable[[int], intervals.Figure]) -> str:
    return ', '.join(f'{text(measure(n))} in round {n}' for n in ends)

  def lead(n: int, right: np.ndarray, method: str) -> intervals.Figure:
    """Of trees over plain samples at as many tokens."""
    return intervals.change(at_tokens(
        curves(samples[n])[method], samples[n].tokens, trees[n].tokens), right)

  def missed(n: int) -> intervals.Figure:
    found = trees[n].found == 1.
    return intervals.share(1 - trees[n].right[found] if found.any() else [0.])

  def of_all(method: str) -> str:
    return in_rounds(
        lambda n: intervals.share(curves(samples[n])[method][-1][1]))

  found = lambda n: lead(n, trees[n].found, 'any of N right')
  chosen = lambda n: lead(n, trees[n].right, 'best of N by value')
  width, steps = search['width'], trees[ends[0]].steps
  count = samples[ends[0]].right.shape[1]
  return [
      {'said': 'The space of steps is exponentially larger than that of chess, '
       'and a cap on extensions leads to local optima',
       'measured': f'{width} extensions over {steps:.1f} steps are '
       f'{width ** steps:.0f} paths; a search adds {search["simulations"]} '
       'nodes. A right response is among those found for '
       f'{in_rounds(lambda n: intervals.share(trees[n].found))}; against plain '
       f'samples of as many tokens that is {in_rounds(found)}.'},
      {'said': 'The value model guides every step, and is hard to train',
       'measured': 'Where a right response was found, a wrong one was chosen '
       f'for {in_rounds(missed)}. Against the best of as many tokens of plain '
       f'samples, by the same model, trees are {in_rounds(chosen)}. The best '
       f'of all {count} samples by it is right for '
       f'{of_all("best of N by value")}, their majority for '
       f'{of_all("majority")}.'},
      {'said': 'Search does not go on improving by itself',
       'measured': 'The accuracy of tree search is '
       f'{in_rounds(lambda n: intervals.share(trees[n].right))}: a change of '
       + text(intervals.change(*(trees[n].right for n in ends))) + '.'}]


###############################################################################
# The page
###############################################################################


def _cells(table: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  return [[name, intervals.percent(row['accuracy']),
           ' – '.join(map(intervals.percent, row['ci95'])),
           f'{row["tokens"]:.0f}'] for name, row in table.items()]


def _curve(n: int, samples: Samples, trees: Mapping[str, Trees],
           greedy: Trees) -> charts.Chart:
  """Accuracy over the tokens of a problem, on a scale of powers of two."""
  at = lambda tokens: float(np.log2(tokens))
  series = {'tree search': sorted(
      (at(found.tokens), float(found.right.mean()))
      for found in trees.values())}
  series |= {name: [(at(k * samples.tokens), float(right.mean()))
                    for k, right in curve]
             for name, curve in curves(samples).items()}
  return charts.Chart(
      f'Round {n}', series, percent=True,
      x_label='log2 of the tokens drawn for a problem', caption='greedy '
      f'decoding: {intervals.percent(float(greedy.right.mean()))}, '
      f'{greedy.tokens:.0f} tokens')


def _loop_cells(loop: Mapping[str, Any]) -> list[str]:
  several = lambda numbers: ' + '.join(f'{n:,}' for n in numbers)
  return [*(f'{intervals.percent(value)} ({intervals.percent(low)} – '
            f'{intervals.percent(high)})'
            for value, (low, high) in zip(loop['one sample'], loop['ci95'])),
          several(loop['tokens']), several(loop['kept'])]


def _learning(loops: Mapping[str, Mapping[str, Any]]) -> charts.Chart:
  return charts.Chart(
      'Policies without a search', {
          LOOPS[loop]: [*enumerate(found['one sample'])]
          for loop, found in loops.items()}, percent=True, x_label='round',
      caption='samples at temperature 1 to held-out problems')


def _words(table: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> list[str]:
  return [
      f'round {n}: ' + ', '.join(
          f'{name} {intervals.percent(row["accuracy"])}'
          for name, row in found.items() if 'smaller' not in name)
      + f' ({found["tree search"]["tokens"]:.0f} tokens)'
      for n, found in table.items()]
