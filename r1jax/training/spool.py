"""What is in the folder that a run in a bucket works in (mirror.py).

Checkpoints stand apart from other files: one is there whole or not at all.
"""

from collections.abc import Mapping
import contextlib
import hashlib
import os
import pathlib
import re
from typing import NamedTuple

from r1jax import objects
from r1jax.training import files
from r1jax.training import lock

_PASSING = re.compile(r'\..*\.part$|\.r1jax-')  # files that are being written

Stat = list[int]  # of a file: another where it has changed


class Sent(NamedTuple):
  """What the bucket has of a file.

  It is there in blocks: rows in those of `objects.BLOCK` bytes, any other file
  in one.
  """
  stat: Stat | None = None  # None: not known
  blocks: list[str | None] = [None]  # SHA-256 of each; None: not known

  def names(self, name: str) -> list[str]:
    """The objects of a file of this name."""
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


def of_files(root: pathlib.Path) -> dict[str, Stat]:
  """{name: stat} of a folder's files, but those of checkpoints below it."""
  found = {}
  for folder, names, here in os.walk(root):
    if 'checkpoints' in names:
      names.remove('checkpoints')
    for name in here:
      path = pathlib.Path(folder, name)
      if name != lock.NAME and not _PASSING.match(name):
        with contextlib.suppress(FileNotFoundError):  # by now
          found[path.relative_to(root).as_posix()] = stat(path)
  return found


def of_checkpoints(root: pathlib.Path) -> dict[str, dict[str, Stat]]:
  """{name: its files, as `of_files`} of the checkpoints below, by steps.

  The file that Orbax commits one by (`objects.commit_of`) is left out.
  """
  found = {}
  for folder, names, _ in os.walk(root):
    if os.path.basename(folder) == 'checkpoints':
      names.clear()
      for step in files.saved_steps(pathlib.Path(folder)):
        path = pathlib.Path(folder, str(step))
        unit = path.relative_to(root).as_posix()
        found[unit] = {f'{unit}/{name}': each
                       for name, each in of_files(path).items()
                       if name != objects.COMMITTED}
  return found


def stat(path: pathlib.Path) -> Stat:
  found = path.stat()
  return [found.st_size, found.st_mtime_ns, found.st_ino]


def as_sent(path: pathlib.Path) -> Sent:
  """What the bucket has if it has the file as it is."""
  found = stat(path)
  return Sent(found) if path.suffix != '.jsonl' else Sent(found, [
      hashlib.sha256(content(path, *block)).hexdigest()
      for block in blocks(found[0])])


def has_grown(path: pathlib.Path, sent: Sent) -> bool:
  """Whether rows are what was sent of them, and more or none."""
  if sent.stat is None or sent.stat[0] > path.stat().st_size:
    return False
  last = content(path, *blocks(sent.stat[0])[-1])
  return hashlib.sha256(last).hexdigest() == sent.blocks[-1]


def blocks(size: int) -> list[tuple[int, int]]:
  """(where it begins, bytes) of each block of `size` bytes of rows."""
  return [(start, min(objects.BLOCK, size - start))
          for start in range(0, max(size, 1), objects.BLOCK)]


def content(path: pathlib.Path, start: int, size: int) -> bytes:
  """A part of a file."""
  with open(path, 'rb') as file:
    file.seek(start)
    return file.read(size)
