"""What is in the folder that a run in a bucket works in (mirror.py)."""

from collections.abc import Mapping
import contextlib
import hashlib
import os
import pathlib
import re
from typing import NamedTuple

from r1jax import objects
from r1jax.training import lock

_TAIL = 1 << 16  # bytes at the end of rows that tell whether they have grown
_WHOLE = re.compile(r'(damaged-)?\d+')  # the name of a checkpoint
_PASSING = re.compile(r'\..*\.part$|\.r1jax-')  # files that are being written


class Sent(NamedTuple):
  """What the bucket has of a file."""
  stat: list[int] | None = None  # of the file; None: unknown, or no file's
  # Of rows: the SHA-256 of every block, None if unknown, and of the last bytes.
  blocks: list[str | None] = [None]
  tail: str = ''

  def names(self, name: str) -> list[str]:
    """The objects that a file of this name consists of."""
    return [objects.block_name(name, n) for n in range(len(self.blocks))]


def known(sent: Mapping[str, Sent], listed: Mapping[str, objects.Object]
         ) -> dict[str, Sent]:
  """`sent` as a listing of the objects has it.

  A kill leaves objects that nothing was noted of: they are written anew, or
  removed where there is no file of theirs.
  """
  found = {name: each for name, each in sent.items()
           if listed.keys() >= set(each.names(name))}
  for name in sorted(listed):  # blocks follow their file
    base, _, number = name.rpartition('.part-')
    if base in found and number.isdecimal():
      blocks = found[base].blocks
      more = int(number) + 1 - len(blocks)
      found[base] = found[base]._replace(blocks=[*blocks, *[None] * more])
    elif name not in found:
      found[name] = Sent()
  return found


def units(root: pathlib.Path) -> list[str]:
  """The whole checkpoints in a folder and those below, older ones first."""
  found = []
  for folder, names, _ in os.walk(root):
    if os.path.basename(folder) == 'checkpoints':
      found += [os.path.relpath(os.path.join(folder, name), root)
                for name in names if _WHOLE.fullmatch(name)]
      names.clear()
  return sorted(found, key=lambda unit: (unit.rpartition('/')[0], step(unit)))


def step(unit: str) -> int:
  """The step of a checkpoint; -1 of a damaged one."""
  name = unit.rpartition('/')[2]
  return int(name) if name.isdecimal() else -1


def files(root: pathlib.Path) -> dict[str, list[int]]:
  """{name: what tells whether it has changed} of all but checkpoints.

  The root may itself be one.
  """
  found = {}
  for folder, names, each in os.walk(root):
    if os.path.basename(folder) == 'checkpoints' and folder != str(root):
      names.clear()
      continue
    for name in each:
      path = pathlib.Path(folder, name)
      if name != lock.NAME and not _PASSING.match(name):
        with contextlib.suppress(FileNotFoundError):  # by now
          found[path.relative_to(root).as_posix()] = stat(path)
  return found


def stat(path: pathlib.Path) -> list[int]:
  found = path.stat()
  return [found.st_size, found.st_mtime_ns, found.st_ino]


def tail(path: pathlib.Path, size: int) -> str:
  """The SHA-256 of the last bytes of the first `size` of a file."""
  with open(path, 'rb') as file:
    file.seek(max(size - _TAIL, 0))
    return hashlib.sha256(file.read(min(size, _TAIL))).hexdigest()
