"""The devices of a collective, as axes of the mesh and links of the machine."""

import re
from typing import NamedTuple

import jax
import numpy as np

# The numbers of all devices in an array of a shape, its axes exchanged.
_NUMBERS = r'\[([\d,]+)\](?:T\(([\d,]+)\))?'


class Group(NamedTuple):
  """Devices that a collective is between; hashable."""
  axes: tuple[str, ...]  # of the mesh, along which they lie
  size: int
  dimensions: int  # of the machine's torus, along which they lie


class Mesh(NamedTuple):
  """A mesh, by the numbers that programs know its devices by."""
  sizes: dict[str, int]
  coordinates: np.ndarray  # i32[devices, dimensions], in the machine


def of_mesh(mesh: jax.sharding.Mesh) -> Mesh:
  """The mesh with the places of its devices; a CPU's all are at 0."""
  coordinates = [getattr(device, 'coords', [0]) for device in mesh.devices.flat]
  return Mesh(dict(mesh.shape), np.asarray(coordinates, np.int32))


def of(attributes: str, mesh: Mesh) -> Group:
  """The group of an instruction: its first, since all are alike.

  Args:
    attributes: of the instruction; `replica_groups` are listed, {{0,1},{2,3}},
      or numbers in rows, [2,2]<=[4] or [2,2]<=[2,2]T(1,0), or axes of a mesh,
      mesh['a'=2,'b'=2] {'b'}, of devices in the order device_ids=([2,2]T(1,0));
      or there are pairs of source and target.
    mesh: of the program.

  Raises:
    ValueError: they have another form.
  """
  pairs = re.search(r'source_target_pairs=\{(\{[\d,{}]*\})\}', attributes)
  if pairs:
    moves = np.array([[int(n) for n in pair.split(',')]
                      for pair in re.findall(r'\{([\d,]+)\}', pairs[1])])
    return _spanned(moves[:, 0], moves[:, 1], mesh, 2)
  members = _members(attributes, len(mesh.coordinates))
  return _spanned(members[:1], members[1:], mesh, len(members))


def _spanned(one: np.ndarray, other: np.ndarray, mesh: Mesh, size: int
            ) -> Group:
  """The axes and dimensions in which any two devices differ."""
  place = lambda index: np.stack(
      np.unravel_index(index, tuple(mesh.sizes.values())), -1)
  differ = np.any(place(one) != place(other), 0)
  dimensions = np.any(mesh.coordinates[one] != mesh.coordinates[other], 0)
  return Group(tuple(name for name, varies in zip(mesh.sizes, differ)
                     if varies), size, int(dimensions.sum()))


def _members(attributes: str, devices: int) -> np.ndarray:
  """The numbers of the devices in the first group."""
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', attributes)
  if listed:
    return np.array([int(n) for n in listed[1].split(',')])
  if 'replica_groups={}' in attributes or 'replica_groups' not in attributes:
    return np.arange(devices)
  rows = re.search(rf'replica_groups=\[([\d,]+)\]<={_NUMBERS}', attributes)
  if rows:
    return _numbers(rows[2], rows[3]).reshape(_whole(rows[1]))[0]
  named = re.search(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids="
                    rf"\({_NUMBERS}\))? \{{([^}}]*)\}}", attributes)
  if named:
    numbers = _numbers(named[2] or str(devices), named[3])
    return numbers.reshape(-1)[_of_axes(named[1], named[4])]
  raise ValueError(
      f'a group of devices of an unknown form in {attributes[:300]}')


def _numbers(shape: str, axes: str | None) -> np.ndarray:
  """What `_NUMBERS` matches."""
  found = np.arange(np.prod(_whole(shape))).reshape(_whole(shape))
  return found.transpose(_whole(axes)) if axes else found


def _whole(text: str) -> list[int]:
  return [int(n) for n in text.split(',')]


def _of_axes(mesh: str, axes: str) -> np.ndarray:
  """The places of the first group along `axes` of a mesh, as both are written.

  'a':(2)4 is a part of an axis: 4 devices, at the steps of what is left of the
  axis after its first 2 parts.
  """
  shape = {name: int(size) for name, size in re.findall(
      r"'([^']+)'=(\d+)", mesh)}
  parts = {name: (int(before), int(size)) if size else (1, shape[name])
           for name, before, size in re.findall(
               r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)}
  split, chosen = [], []
  for name, size in shape.items():
    before, inside = parts.get(name, (1, 1))
    split += [before, inside, size // (before * inside)]
    chosen += [0, slice(None) if name in parts else 0, 0]
  return np.arange(np.prod(split)).reshape(split)[tuple(chosen)].reshape(-1)
