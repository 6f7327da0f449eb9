"""Machines and their least times."""

import pytest

from r1jax import errors
from r1jax.plan import chips
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import roofline
from r1jax.plan import topology

V5P = chips.CHIPS['v5p'].device()


@pytest.mark.parametrize('name, same, count', [
    ('v5p:4x4x8', 'v5p:4x4x8', 128), ('v5p-256', 'v5p:4x4x8', 128),
    ('v5litepod-16', 'v5e:4x4', 16), ('v6e-256', 'v6e:16x16', 256),
    ('tpu7x:2x2x1', 'v7x:2x2x1', 4), ('H100:64', 'h100:64', 64)])
def test_machines_by_name(name, same, count):
  made = topology.parse(name)
  assert (made.name, made.chips) == (same, count)


def test_a_chip_may_be_two_devices():
  assert topology.parse('v7x:4x4x4').devices == 128
  assert chips.CHIPS['v7x'].device().flops == 2307e12 / 2


@pytest.mark.parametrize('name, words', [
    ('v5x:2x2', 'one of v4, v5e'), ('v5p:4x4', 'such as v5p:4x4x8'),
    ('v5p-255', 'one of v5p:2x2x1'), ('v6e:0x4', 'such as v6e:4x4'),
    ('h100:8x8', 'such as h100:64'), ('v5p-abc', 'one of v5p:2x2x1')])
def test_other_names_say_what_is_expected(name, words):
  with pytest.raises(errors.ConfigError, match=words) as caught:
    topology.parse(name)
  assert caught.value.field == 'plan.topology'


def test_every_figure_has_its_source():
  for chip in chips.CHIPS.values():
    assert chip.source and (chip.price is None or chip.price_source), chip.name
    assert 0 < chip.link <= chip.bandwidth < chip.flops
    assert chip.torus or chip.node and chip.network


def test_a_program_is_bound_by_its_slowest_part():
  group = groups.Group(('fsdp',), 16, 1)
  done = counts.Counts(flops=459e12, bytes=2 * 2.765e12,
                       sent={('all-gather', group): (600e9, 1)})
  times = roofline.times(V5P, done)
  # One dimension of three has a third of the links.
  assert times == pytest.approx((1, 2, 3))
  assert (times.seconds, times.bound) == (pytest.approx(3), 'links')


def test_the_links_of_a_collective():
  whole = groups.Group(('fsdp',), 64, 3)
  seconds = lambda kind, group, chip=V5P: roofline.sent_seconds(
      chip, kind, group, 600e9)
  assert seconds('all-reduce', whole) == pytest.approx(1)
  # A ring of 16: a byte goes 4 far.
  assert seconds('all-to-all', groups.Group(('expert',), 16, 1)
                ) == pytest.approx(3 * 4)
  h100 = chips.CHIPS['h100'].device()
  assert seconds('all-gather', groups.Group(('fsdp',), 8, 0), h100
                ) == pytest.approx(600 / 450)
  assert seconds('all-gather', groups.Group(('fsdp',), 16, 0), h100
                ) == pytest.approx(600 / 50)


def test_utilisation_is_of_the_whole_machine():
  assert roofline.mfu(V5P, 4, 459e12, 1.) == pytest.approx(1 / 4)


def test_a_tpu_needs_its_compiler(monkeypatch):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.ConfigError, match='as jax\\[tpu\\] pins it'):
    topology.devices(topology.parse('v5e:2x2'))


@pytest.mark.parametrize('kind, cores, name, part', [
    ('NVIDIA H100 80GB HBM3', 1, 'h100', 1), ('TPU v5p', 2, 'v5p', 1),
    ('TPU v4', 2, 'v4', 1), ('TPU7x', 1, 'v7x', 2), ('TPU7x', 2, 'v7x', 1)])
def test_a_device_that_is_there(kind, cores, name, part):
  found, chip = chips.of_device(kind, cores), chips.CHIPS[name]
  assert (found.flops, found.bandwidth) == (
      chip.flops / part, chip.bandwidth / part)


def test_other_boards_of_a_name_are_others():
  assert chips.of_device('NVIDIA H100 PCIe') is None
  assert chips.CHIPS.keys() == set(chips.KINDS.values())
