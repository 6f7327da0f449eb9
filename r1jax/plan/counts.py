"""What a compiled program does: FLOPs, bytes moved, collectives, by loops.

XLA's own `cost_analysis` counts the body of a loop once. Here every instruction
is counted as often as the loops around it run. The number of runs is the one
that XLA notes, or follows from the loop's counter (`loops`); that of a loop
which ends by its data, such as the sampler's, is the caller's: it knows the
loop by the jax.named_scope directly around it.

FLOPs are those of matrix products (`dot`, `convolution`, of which the taps that
fall on padding do not count) and those that a Pallas kernel declares. The rest
of a program is bound by memory, and counts by its bytes: what an instruction
reads from main memory and writes to it. A fusion that takes a slice of an array
reads the slice; one that updates a slice in place writes the slice; and a
kernel that declares its bytes moves these.
"""

from collections.abc import Callable, Iterator
import collections
import dataclasses
import functools
import math
import re
from typing import NamedTuple

import numpy as np

from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.plan import loops as loops_lib
from r1jax.plan import splash

KERNEL = 'tpu_custom_call'  # the target of Pallas kernels
_COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
                'ragged-all-to-all', 'collective-permute',
                'collective-broadcast')
_NO_TRAFFIC = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while',
    'conditional', 'call', 'after-all', 'partition-id', 'replica-id',
    'optimization-barrier', 'async-start', 'async-update', 'async-done'}
_SAME = {'bitcast', 'reshape', 'convert', 'copy', 'transpose'}
_SEEN = _SAME | {'pad'}  # what is read of it is read of its operand
_SLICES = {'dynamic-slice', 'slice', 'gather'}
_HOST = 5  # the memory space of arrays that lie in the host's memory


@dataclasses.dataclass
class Counts:
  """What one device does; sums, of several runs of several programs."""
  flops: float = 0.  # of matrix products and kernels
  bytes: float = 0.  # from and to main memory
  host_bytes: float = 0.  # from and to the host's memory
  # (kind, group) -> bytes that a device sends, and how often
  sent: dict[tuple[str, groups.Group], tuple[float, float]] = (
      dataclasses.field(default_factory=dict))
  # kernels that declare no FLOPs, by name: they are not counted
  unknown: collections.Counter = dataclasses.field(
      default_factory=collections.Counter)

  def add(self, other: 'Counts', times: float = 1) -> None:
    """Adds `other`, done so many times."""
    self.flops += times * other.flops
    self.bytes += times * other.bytes
    self.host_bytes += times * other.host_bytes
    for key, (size, number) in other.sent.items():
      had = self.sent.get(key, (0., 0.))
      self.sent[key] = (had[0] + times * size, had[1] + times * number)
    for name, number in other.unknown.items():
      self.unknown[name] += number


class Loop(NamedTuple):
  """A loop that ends by its data."""
  # Its jax.named_scope, after those of such loops around it: tokens_64/rounds.
  name: str
  arrays: tuple[hlo.Array, ...]  # that it carries
  exchanges: int  # devices of the all-to-all in its body; 0: it has none


def count(program: hlo.Program, mesh: groups.Mesh,
          trips: Callable[['Loop'], float] | None = None
          ) -> tuple[Counts, Counts]:
  """(outside, inside): what runs outside and inside loops of dynamic length.

  Args:
    program: of one device.
    mesh: names the axes of collectives.
    trips: how often a `Loop` runs, on average.

  Raises:
    ValueError: there is such a loop, but no `trips`; or the text has a form
      that is not known.
  """
  return _Counter(program, mesh, trips).of(program.entry, ())


class _Counter:
  """Counts each computation once, and remembers."""

  def __init__(self, program: hlo.Program, mesh: groups.Mesh, trips):
    self._program, self._mesh, self._trips = program, mesh, trips
    self._known = {}

  def of(self, computation: hlo.Computation, loops: tuple[str, ...]
        ) -> tuple[Counts, Counts]:
    """One run of a computation that is no part of a fusion.

    `loops` are the scopes of loops of dynamic length around it.
    """
    key = computation.name, loops
    if key in self._known:
      return self._known[key]
    outside, inside, channels = Counts(), Counts(), set()
    for one in computation.instructions.values():
      if one.opcode == 'while':
        self._loop(computation, one, outside, inside, loops)
      elif one.opcode in ('call', 'async-start'):
        name = one.called('to_apply') or one.called('calls')
        self._add(
            self._program.computations[name], 1, outside, inside, loops)
      elif one.opcode == 'conditional':
        both = [self.of(x, loops) for x in self._branches(one)]
        for total, other in zip((outside, inside), max(
            both, key=lambda pair: (pair[0].flops, pair[0].bytes))):
          total.add(other)
      else:
        self._work(computation, one, outside,
                   channels if one.opcode == 'fusion' else None)
        self._traffic(computation, one, outside)
    self._known[key] = outside, inside
    return outside, inside

  def _add(self, computation: hlo.Computation, times: float, outside: Counts,
           inside: Counts, loops: tuple[str, ...]) -> None:
    for total, other in zip((outside, inside), self.of(computation, loops)):
      total.add(other, times)

  def _branches(self, one: hlo.Instruction) -> list[hlo.Computation]:
    listed = re.search(r'branch_computations=\{([^}]*)\}', one.attributes)
    names = re.findall(r'[\w.$-]+', listed[1]) if listed else map(
        one.called, ('true_computation', 'false_computation'))
    return [self._program.computations[name] for name in names]

  def _loop(self, computation: hlo.Computation, one: hlo.Instruction,
            outside: Counts, inside: Counts, loops: tuple[str, ...]) -> None:
    body, condition = (self._program.computations[one.called(name)]
                       for name in ('body', 'condition'))
    times = loops_lib.trip_count(self._program, computation, one)
    static = times is not None
    if not static:
      if self._trips is None:
        raise ValueError(
            f'the loop {one.name} ends by its data, and how often it runs is '
            'not given')
      loops = *loops, one.scope
      sent = [key for part in self.of(body, loops) for key in part.sent]
      widest = max((group.size for kind, group in sent
                    if kind == 'all-to-all'), default=0)
      times = self._trips(Loop('/'.join(loops), one.arrays, widest))
    for part in (body, condition):
      self._add(part, times, outside if static else inside, inside, loops)

  def _work(self, computation: hlo.Computation, one: hlo.Instruction,
            total: Counts, channels: set[str] | None) -> None:
    """FLOPs and collectives of an instruction, or of all in a fusion.

    `channels` are of collectives in fusions so far: one that runs beside
    others' work is written in each of their fusions. Outside of fusions several
    may have one channel.
    """
    if one.opcode == 'fusion':
      inner = self._program.computations[one.called('calls')]
      for other in inner.instructions.values():
        self._work(inner, other, total, channels)
    elif one.opcode == 'dot':
      total.flops += _dot_flops(computation, one)
    elif one.opcode == 'convolution':
      total.flops += _convolution_flops(computation, one)
    elif one.opcode == 'custom-call' and KERNEL in one.attributes:
      flops = _declared(one, 'flops')
      if flops is None:
        flops = splash.flops(computation, one)
      if flops is not None:
        total.flops += flops
      else:
        total.unknown[re.sub(r'\.\d+$', '', one.name)] += 1
    elif one.opcode.removesuffix('-start') in _COLLECTIVES:
      self._collective(computation, one, total, channels)

  def _collective(self, computation: hlo.Computation, one: hlo.Instruction,
                  total: Counts, channels: set[str] | None) -> None:
    channel = re.search(r'channel_id=(\d+)', one.attributes)
    if channel and channels is not None:
      if channel[1] in channels:
        return
      channels.add(channel[1])
    kind = one.opcode.removesuffix('-start')
    if computation.name.startswith('all-reduce-scatter'):
      kind = 'reduce-scatter'  # as libtpu writes one: the part of a sum
    size = sum(x.bytes for name in one.operands
               for x in computation.instructions[name].arrays)
    group = groups.of(one.attributes, self._mesh)
    n = group.size
    sent = {'all-gather': (n - 1) * size,
            'all-reduce': 2 * (n - 1) / n * size,
            'collective-permute': size,
            'collective-broadcast': size}.get(kind, (n - 1) / n * size)
    if n > 1:
      total.add(Counts(sent={(kind, group): (sent, 1.)}))

  def _traffic(self, computation: hlo.Computation, one: hlo.Instruction,
               total: Counts) -> None:
    """Bytes that an instruction moves from and to main memory."""
    if one.opcode in _NO_TRAFFIC:
      return
    declared = _declared(one, 'bytes_accessed')
    if declared is not None:
      total.bytes += declared
      return
    for array, size in (*self._reads(computation, one), *self._writes(
        computation, one)):
      if array.space == 0:
        total.bytes += size
      elif array.space == _HOST:
        total.host_bytes += size

  def _reads(self, computation: hlo.Computation, one: hlo.Instruction
            ) -> Iterator[tuple[hlo.Array, float]]:
    """(array, bytes) of every array that an instruction reads."""
    if one.opcode.endswith('-done'):
      return
    inner = one.called('calls') if one.opcode == 'fusion' else None
    parameters = inner and self._program.computations[inner].parameters()
    for index, name in enumerate(one.operands):
      source = computation.instructions[name]
      if len(source.arrays) != 1:
        continue  # a tuple is taken apart, not read
      size = source.array.bytes
      if parameters:
        size = min(size, self._read(
            self._program.computations[inner], parameters[index].name))
      elif one.opcode in _SLICES and not index:
        size = one.array.bytes
      elif one.opcode == 'slice-start':
        size = one.arrays[1].bytes
      elif one.opcode in ('dynamic-update-slice', 'scatter') and not index:
        size = 0
      yield source.array, size

  def _read(self, computation: hlo.Computation, name: str,
            of_result: Callable[[], float] | None = None) -> float:
    """The bytes that a fusion reads of its parameter `name`.

    `of_result` says how many are read of the result, of a fusion in another.
    """
    one, total = computation.instructions[name], 0.
    if one.root:
      return of_result() if of_result else one.array.bytes
    for user in computation.users().get(name, ()):
      if user.opcode in _SLICES and user.operands[0] == name:
        total += user.array.bytes
      elif user.opcode in _SEEN:
        total += self._read(computation, user.name, of_result)
      elif user.opcode == 'fusion':
        inner = self._program.computations[user.called('calls')]
        rest = functools.partial(
            self._read, computation, user.name, of_result)
        total += sum(self._read(inner, inner.parameters()[i].name, rest)
                     for i, x in enumerate(user.operands) if x == name)
      elif user.opcode != 'dynamic-update-slice' or user.operands[0] != name:
        return one.array.bytes
    return total

  def _writes(self, computation: hlo.Computation, one: hlo.Instruction
             ) -> Iterator[tuple[hlo.Array, float]]:
    """(array, bytes) of every array that an instruction writes."""
    if one.opcode.endswith('-start'):
      return
    written = [None] * len(one.arrays)
    if one.opcode == 'fusion':
      inner = self._program.computations[one.called('calls')]
      written = self._updates(inner, inner.root)
    elif one.opcode == 'dynamic-update-slice':
      written = [computation.instructions[one.operands[1]].array.bytes]
    elif one.opcode == 'scatter':
      written = [computation.instructions[one.operands[-1]].array.bytes
                 ] * len(one.arrays)
    for array, size in zip(one.arrays, written):
      yield array, array.bytes if size is None else min(size, array.bytes)

  def _updates(self, computation: hlo.Computation, one: hlo.Instruction
              ) -> list[float | None]:
    """The bytes of each result that are written, None for all of them."""
    inside = computation.instructions
    if one.opcode == 'tuple':
      return [self._updates(computation, inside[name])[0]
              for name in one.operands]
    if one.opcode in _SAME:
      return self._updates(computation, inside[one.operands[0]])
    if one.opcode == 'dynamic-update-slice':
      return [float(inside[one.operands[1]].array.bytes)]
    if one.opcode == 'fusion':
      inner = self._program.computations[one.called('calls')]
      return self._updates(inner, inner.root)
    return [None] * len(one.arrays)


def _declared(one: hlo.Instruction, figure: str) -> int | None:
  """What a Pallas kernel says of itself; None of one that does not."""
  said = KERNEL in one.attributes and re.search(
      rf'"{figure}":\s*"?(\d+)', one.attributes)
  return int(said[1]) if said else None


def _dot_flops(computation: hlo.Computation, one: hlo.Instruction) -> float:
  left = computation.instructions[one.operands[0]].array
  listed = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', one.attributes)
  contracted = [int(n) for n in listed[1].split(',') if n] if listed else []
  return 2. * math.prod(one.array.dims) * math.prod(
      left.dims[axis] for axis in contracted)


def _convolution_flops(computation: hlo.Computation, one: hlo.Instruction
                      ) -> float:
  left, right = (computation.instructions[name].array
                 for name in one.operands[:2])
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', one.attributes)
  lhs, rhs, out = labels[1], labels[2], labels[3]
  window = re.search(r'window=\{([^}]*)\}', one.attributes)
  spatial = sum(label.isdigit() for label in out)
  taps = 1
  for axis, settings in enumerate(_window(window and window[1], spatial)):
    label = str(axis)
    taps *= valid_taps(left.dims[lhs.index(label)], right.dims[
        rhs.index(label)], one.array.dims[out.index(label)], *settings)
  return 2. * taps * right.dims[rhs.index('i')] * math.prod(
      one.array.dims[out.index(label)] for label in 'bf')


def _window(text: str | None, axes: int) -> list[tuple[int, int, int, int]]:
  """(stride, padding, dilation of input, of window) of each spatial axis."""
  given = dict(part.split('=') for part in (text or '').split())
  each = lambda name, default: (
      given[name].split('x') if name in given else [default] * axes)
  return [(int(stride), int(pad.split('_')[0]), int(lhs), int(rhs))
          for stride, pad, lhs, rhs in zip(
              each('stride', '1'), each('pad', '0_0'), each('lhs_dilate', '1'),
              each('rhs_dilate', '1'))]


@functools.cache
def valid_taps(size: int, window: int, out: int, stride: int, padding: int,
               dilation: int, window_dilation: int) -> int:
  """How many pairs of an output and a tap fall on an element of the input.

  The compiler writes a batched matrix product as a convolution over a dilated
  axis: of its window all taps but one fall on padding.

  Args:
    size, window, out: of input, window and output along the axis.
    stride, padding: of the window; the padding is that before the input.
    dilation, window_dilation: distances of elements of input and window.
  """
  place = (np.arange(out)[:, None] * stride - padding
           + np.arange(window) * window_dilation)
  inside = (place >= 0) & (place <= (size - 1) * dilation)
  return int(np.sum(inside & (place % dilation == 0)))
