"""How growth is measured, by hand; and what may not grow, without a clock."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tests import accelerator
from tests import growth
from tests import growth_host
from tests import growth_programs


def _axis(powers, bound):
  """A part whose seconds are size^p at each size, its MiB 5 throughout."""
  sizes = (1, 2, 4, 8, 16)[:len(powers)]
  return growth.Axis('things', sizes, lambda size: {'part': growth.Figures(
      3. * size ** powers[sizes.index(size)], 5.)}, {
          'part': growth.Bound(bound, .1, 'why')})


def test_an_exponent_is_that_of_the_largest_sizes():
  assert growth.exponent((1, 2, 4), (3., 12., 48.)) == pytest.approx(2)
  # A constant counts at the small ones alone.
  sizes = (1, 2, 1000, 2000, 4000)
  assert growth.exponent(sizes, [5 + n for n in sizes]) == pytest.approx(
      1, abs=.01)
  assert growth.exponent((10, 20, 40), (7., 7., 7.)) == pytest.approx(0)


@pytest.mark.parametrize('bound, problems', [(1.9, 1), (2.1, 0)])
def test_what_is_above_its_bound_has_a_line(bound, problems):
  row, = growth.rows(_axis((2,) * 4, bound))
  assert row.seconds == pytest.approx(2) and row.mib == pytest.approx(0)
  lines = list(row.problems())
  assert len(lines) == problems
  assert not lines or re.fullmatch(
      r'things: part: seconds .* 2.00, expected at most 1.9 \(why\)', lines[0])


def test_a_number_that_is_none_is_a_problem():
  row, = growth.rows(_axis((1, 1, 1), 2.))
  assert list(row._replace(seconds=float('nan')).problems())


def test_the_table():
  row, = growth.rows(_axis((3, 3, 3), 3.2))
  assert growth.table([row]).splitlines()[2] == (
      '| things, 1 to 4 | part | 3 → 190 | 3.00 ≤ 3.2 | 5 → 5 | 0.00 ≤ 0.1 '
      '| why |')


def test_seconds_and_the_peak_are_those_of_the_work():
  found = growth.timed(lambda: np.ones(2 ** 18), repeats=1)
  assert 2 <= found.mib < 2.5 and found.seconds < 1


def test_each_axis_has_sizes_to_fit_and_names_of_its_own():
  axes = [*growth_programs.AXES, *growth_host.AXES]
  assert len({axis.name for axis in axes}) == len(axes)
  assert all(len(axis.sizes) >= growth.LARGEST for axis in axes)


def test_an_axis_that_is_not_there_is_refused(capsys):
  with pytest.raises(SystemExit):
    growth.main(['responses tokens'])
  assert 'responses tokens' in capsys.readouterr().err


@pytest.mark.parametrize('name', [
    'steps taken', 'rows', 'problems', 'characters'])
def test_memory_on_the_host_grows_no_faster(name):
  """Allocations are the same from run to run; the seconds are not looked at.
  """
  axis = next(axis for axis in growth_host.AXES if axis.name == name)
  for row in growth.rows(axis._replace(
      sizes=[size // 10 for size in axis.sizes])):
    assert row.mib <= row.bound.mib + .1, row


def test_a_longer_response_holds_no_more_logits():
  """Of 16 tokens at a time 8 responses have logits of 4 MiB, of 64 16 MiB."""
  short, long = (growth_programs.update_held(
      vocab=8192, width=8, heads=1, kv_heads=1, head_size=8, mlp=8, layers=1,
      prompts=1, group=8, prompt_tokens=4, response_tokens=tokens,
      logp_chunk=16)['update'].mib for tokens in (16, 64))
  assert short > 4 and long < short + 4


@pytest.mark.slow
def test_nothing_grows_faster_than_it_must():
  done = subprocess.run([sys.executable, '-m', 'tests.growth'],
                        cwd=accelerator.ROOT, capture_output=True, text=True,
                        check=False)
  assert not done.returncode, done.stderr
