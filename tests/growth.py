"""Measures how time and memory grow, and fails where they outgrow a bound.

    python -m tests.growth             # eight minutes on two idle cores
    python -m tests.growth prompts rows    # the axes named so

in the folder of the clone. It prints a table in Markdown, that of
experiments/README.md: along each axis (growth_programs.py, growth_host.py) a
part of a run is measured at sizes that double, and p of size^p is fitted to the
largest of them. The seconds are of CPU, of all threads of this process (not of
the workers that verify), the least of several times, so that other work on the
machine changes little. Memory is what a compiled program holds at once, or, of
a part on the host, the peak of what Python and NumPy hold. The status is 1 if
an exponent is above its bound, and each that is has a line.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import sys
import time
import tracemalloc
from typing import Any, NamedTuple

import numpy as np

LARGEST = 3  # sizes that a line is fitted to


class Figures(NamedTuple):
  """What a part took at one size; None: not measured."""
  seconds: float | None = None
  mib: float | None = None


class Bound(NamedTuple):
  """The largest exponents of a part that are right, and why."""
  seconds: float | None
  mib: float | None
  why: str


class Axis(NamedTuple):
  """What grows, and the parts that are measured with it."""
  name: str
  sizes: Sequence[int]
  # size -> the figures of each of `bounds`
  measure: Callable[[int], Mapping[str, Figures]]
  bounds: Mapping[str, Bound]


class Row(NamedTuple):
  """A part along an axis: its exponents, None where not measured."""
  axis: Axis
  part: str
  figures: Sequence[Figures]  # at each size
  seconds: float | None
  mib: float | None

  @property
  def bound(self) -> Bound:
    return self.axis.bounds[self.part]

  def problems(self) -> Iterator[str]:
    """A line for each exponent above its bound."""
    for name in ('seconds', 'mib'):
      found, most = getattr(self, name), getattr(self.bound, name)
      if most is not None and not found <= most:
        yield (f'{self.axis.name}: {self.part}: {name} grow with exponent '
               f'{found:.2f}, expected at most {most:g} ({self.bound.why})')


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
  """p of the best c size^p through the largest sizes, by least squares."""
  return float(np.polyfit(np.log(sizes[-LARGEST:]), np.log(values[-LARGEST:]),
                          1)[0])


def rows(axis: Axis) -> list[Row]:
  """Measures the parts of an axis."""
  measured = [axis.measure(size) for size in axis.sizes]
  made = []
  for part, bound in axis.bounds.items():
    figures = [found[part] for found in measured]
    fit = lambda name, figures=figures, bound=bound: exponent(
        axis.sizes, [getattr(one, name) for one in figures]
    ) if getattr(bound, name) is not None else None
    made.append(Row(axis, part, figures, fit('seconds'), fit('mib')))
  return made


###############################################################################
# Measuring on the host
###############################################################################


def timed(work: Callable[..., Any], *args: Any, repeats: int = 3,
          before: Callable[[], Any] = lambda: None) -> Figures:
  """The least CPU seconds of `work(*args)`, and the peak of its memory.

  Args:
    work, args: what is measured; what it keeps is part of its memory.
    repeats: how often; once more for memory, whose measure takes its time.
    before: prepares each time, and is not measured.
  """
  seconds = []
  for _ in range(repeats):
    before()
    started = time.process_time()
    work(*args)
    seconds.append(time.process_time() - started)
  before()
  tracemalloc.start()
  try:
    work(*args)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  return Figures(min(seconds), peak / 2 ** 20)


###############################################################################
# What is printed
###############################################################################


def _short(value: float) -> str:
  return f'{float(f"{value:.2g}"):g}'


def table(found: Sequence[Row]) -> str:
  """The rows in Markdown: what was measured, and the exponents of both."""
  lines = ['| axis | part | seconds | grow as | memory, MiB | grows as | why |',
           '| --- | --- | --- | --- | --- | --- | --- |']
  for row in found:
    cells = []
    for name in ('seconds', 'mib'):
      fit, most = getattr(row, name), getattr(row.bound, name)
      values = [getattr(one, name) for one in row.figures]
      cells += ['', ''] if fit is None else [
          f'{_short(values[0])} → {_short(values[-1])}',
          f'{round(fit, 2) + 0.:.2f} ≤ {most:g}']  # no -0.00
    sizes = row.axis.sizes
    lines.append('| ' + ' | '.join([
        f'{row.axis.name}, {sizes[0]:,} to {sizes[-1]:,}', row.part, *cells,
        row.bound.why]) + ' |')
  return '\n'.join(lines)


def main(words: Sequence[str] | None = None) -> list[str]:
  """Prints the table; the lines of what is above its bound."""
  # Every program is compiled: none is read from a disk.
  os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  from tests import growth_host  # imported here: they import this module
  from tests import growth_programs
  axes = [*growth_programs.AXES, *growth_host.AXES]
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('words', nargs='*', help='some of the axes: ' + ', '.join(
      sorted({axis.name for axis in axes})))
  words = parser.parse_args(words).words
  for word in words:
    if not any(word in axis.name for axis in axes):
      parser.error(f'{word!r}: expected one of the axes, or a part of its name')
  found = []
  for axis in axes:
    if not words or any(word in axis.name for word in words):
      started = time.process_time()
      # What a run says is not of the table.
      with contextlib.redirect_stdout(sys.stderr):
        found += rows(axis)
      print(f'{axis.name}: {time.process_time() - started:.0f} s of CPU',
            file=sys.stderr, flush=True)
  print(table(found))
  return [line for row in found for line in row.problems()]


if __name__ == '__main__':
  problems = main()
  print('\n'.join(problems), file=sys.stderr)
  sys.exit(bool(problems))
