"""The least time of programs on a chip: the longest of what each part takes.

FLOPs at the peak for bfloat16, bytes at the bandwidth of main memory, bytes
sent at the speed of the links; a program is bound by the slowest, as if the
others ran beside it (Williams et al., "Roofline", CACM 2009). A collective
along k of the D dimensions of a torus has the links of these, k / D of all;
rings are taken as closed. An all-to-all sends each byte a quarter of a ring.
"""

from typing import NamedTuple

from r1jax.plan import chips
from r1jax.plan import counts
from r1jax.plan import groups

BOUNDS = ('compute', 'memory', 'links')


class Times(NamedTuple):
  """Seconds of a program, or a part of one, on each device."""
  compute: float
  memory: float
  links: float

  @property
  def seconds(self) -> float:
    return max(self)

  @property
  def bound(self) -> str:
    """What it is bound by, one of BOUNDS."""
    return BOUNDS[self.index(max(self))]


def times(device: chips.Chip, done: counts.Counts) -> Times:
  """The least times of what a device does."""
  return Times(done.flops / device.flops, done.bytes / device.bandwidth,
               sum(sent_seconds(device, kind, group, size)
                   for (kind, group), (size, _) in done.sent.items()))


def sent_seconds(device: chips.Chip, kind: str, group: groups.Group,
                 size: float) -> float:
  """Seconds in which each device of a group sends `size` bytes."""
  if not device.torus:
    beyond = group.size > device.node
    return size / (device.network if beyond else device.link)
  dimensions = group.dimensions or device.torus  # 0: cores of one chip
  if kind.endswith('all-to-all'):
    side = group.size ** (1 / dimensions)
    size *= max(1., side / 4) * dimensions
  return size / (device.link * dimensions / device.torus)


def mfu(device: chips.Chip, devices: int, flops: float, seconds: float
       ) -> float:
  """Model FLOPs over those that the machine could do in the time."""
  return flops / (seconds * device.flops * devices) if seconds else 0.
