"""What is read of gs://BUCKET/NAME and s3://BUCKET/NAME, as files here.

An object store knows whole objects alone: nothing is appended, renamed or
locked there. So all that r1jax reads of a bucket is first copied to a folder of
this machine (`model`, `files`), and a run works in such a folder of its own,
which training/mirror.py keeps the bucket equal to. The copies are in cache.py's
folder.
"""

from collections.abc import Callable, Collection, Iterator
import contextlib
import fnmatch
import functools
import json
import os
import pathlib
import shutil
import urllib.parse

from r1jax import cache
from r1jax import errors
from r1jax import objects

_here: dict[str, pathlib.Path] = {}  # URL -> the folder where a run works now


def place(kind: str, url: str) -> pathlib.Path:
  """The folder of this machine for a URL: gs+BUCKET+NAME, in `kind`."""
  name = urllib.parse.quote(url.replace('://', '/', 1), safe='/ ')
  return cache.folder(kind) / name.replace('/', '+')


def named(path: str | os.PathLike) -> str:
  """The URL of what a path is the copy of; else the path."""
  with contextlib.suppress(ValueError):
    relative = pathlib.Path(path).relative_to(cache.folder())
    _, name, *rest = relative.parts
    kind, _, root = urllib.parse.unquote(name.replace('+', '/')).partition('/')
    if kind in objects.PACKAGES:
      return '/'.join([f'{kind}://{root}', *rest])
  return os.fspath(path)


@contextlib.contextmanager
def worked_on(url: str, folder: pathlib.Path) -> Iterator[None]:
  """Inside, what is below `url` is read in `folder`, where a run works."""
  _here[url] = folder
  try:
    yield
  finally:
    del _here[url]


def _held(url: str) -> str | None:
  """The path of a URL that a run of this process works on."""
  for root, folder in _here.items():
    if url == root or url.startswith(f'{root}/'):
      return str(folder) + url[len(root):]
  return None


def model(path: str) -> str:
  """The path of a model, which in a bucket is copied here first.

  Of a stage's workdir that is its JSON files and its last checkpoint without
  the optimizer's moments, or the one that is named; of a folder, all of it.
  What has not changed since is not copied again.

  Raises:
    RunError: the bucket cannot be read.
  """
  if not objects.is_bucket(path):
    return path
  return _held(path.rstrip('/')) or _model(path.rstrip('/'))


@functools.cache  # one and the same for all of a process
def _model(url: str) -> str:
  above, _, step = url.rpartition('/')
  if above.endswith('/checkpoints') and step.isdecimal():
    root = above.removesuffix('/checkpoints')
    folder = _copied(root, lambda names: _of_stage(names, step))
    return str(folder / 'checkpoints' / step)
  folder = _copied(url, lambda names: (
      _of_stage(names, _last_step(names))
      if any(name.startswith('checkpoints/') for name in names) else names))
  alone = folder / folder.name  # an object, no folder of them
  return str(alone if alone.is_file() else folder)


def _last_step(names: Collection[str]) -> str:
  steps = {unit.partition('/')[2] for name in names
           if (unit := objects.unit_of(name))
           and unit.startswith('checkpoints/')}
  return max(filter(str.isdecimal, steps), key=int, default='')


def _of_stage(names: Collection[str], step: str) -> list[str]:
  """The files of a workdir that its model is made of."""
  saved = f'checkpoints/{step}/'
  return [name for name in names if (
      name.endswith('.json') if '/' not in name else
      name.startswith(saved) and not name.startswith(f'{saved}rest/'))]


def files(pattern: str) -> str:
  """The path of files of a folder, which in a bucket are copied here first.

  The last name of the pattern may have a *.
  """
  if not objects.is_bucket(pattern):
    return pattern
  return _held(pattern) or _matching(pattern)


@functools.cache
def _matching(pattern: str) -> str:
  url, _, name = pattern.rpartition('/')
  folder = _copied(url, lambda names: fnmatch.filter(names, name), deep=False)
  return f'{folder}/{name}'


def _copied(url: str, chosen: Callable[[Collection[str]], Collection[str]],
            deep: bool = True) -> pathlib.Path:
  """The folder with files of a URL as they now are there.

  Args:
    url: of a folder, or of one file, whose copy has the folder's name.
    chosen: names -> those that are wanted.
    deep: whether files in folders of it may be.
  """
  source, target = objects.Folder(url), place('read', url)
  listed = source.list(deep)
  found = objects.whole(listed)
  found = {name: found[name] for name in chosen(found)}
  path_of = lambda name: target / (name or target.name)
  now = {name: [[*listed[block]] for block in blocks]
         for name, blocks in found.items()}
  versions = target.with_name(f'{target.name}.json')
  with errors.faults(target):
    target.mkdir(parents=True, exist_ok=True)
    before = json.loads(versions.read_bytes()) if versions.exists() else {}
    for name in set(chosen(before)).difference(now):
      path_of(name).unlink(missing_ok=True)
      del before[name]
    _remove_older(target, now)
    objects.together(
        lambda name: objects.get_file(source, found[name], path_of(name)),
        [name for name in now
         if before.get(name) != now[name] or not path_of(name).exists()])
    with objects.aside(versions) as part:
      part.write_text(json.dumps(before | now), 'utf-8')
  return target


def _remove_older(target: pathlib.Path, now: Collection[str]) -> None:
  """Removes copies of checkpoints, once another is asked for."""
  units = {unit for name in now if (unit := objects.unit_of(name))}
  if units and (target / 'checkpoints').is_dir():
    for path in (target / 'checkpoints').iterdir():
      if f'checkpoints/{path.name}' not in units:
        shutil.rmtree(path)
