"""A bucket in this process' memory, and a machine whose copies are its own."""

import threading

import fsspec

from r1jax import buckets
from r1jax import objects
from r1jax.training import lease

URL = 'memory://bucket/run'
_PREFIX = '/bucket/run/'


def install(monkeypatch, folder):
  """An empty bucket; returns what makes this machine another one."""
  monkeypatch.setitem(objects.PACKAGES, 'memory', 'fsspec')
  monkeypatch.setattr(objects, '_WAITS', (.01, .01))
  monkeypatch.setattr(lease, '_SETTLE_SECONDS', .02)
  monkeypatch.setattr(lease, '_WATCH_SECONDS', .6)
  kind, one = kind_of(), threading.Lock()
  def pipe_file(*args, _do=kind.pipe_file, **kw):
    with one:  # as a store creates an object, which that in memory does not
      _do(*args, **kw)
  monkeypatch.setattr(kind, 'pipe_file', pipe_file)
  put({})
  numbers = iter(range(1000))
  def another():
    buckets._model.cache_clear()
    buckets._matching.cache_clear()
    monkeypatch.setenv('R1JAX_CACHE', str(folder / f'machine{next(numbers)}'))
  another()
  return another


def kind_of():
  """The class of fsspec that has the bucket."""
  return type(fsspec.filesystem('memory'))


def content():
  """{name: content} of the run in the bucket."""
  return {name.removeprefix(_PREFIX): content.getvalue()
          for name, content in dict(fsspec.filesystem('memory').store).items()}


def put(objects_of_a_run):
  """Makes the bucket of these objects alone."""
  fsspec.filesystem('memory').store.clear()
  for name, value in objects_of_a_run.items():
    fsspec.filesystem('memory').pipe_file(_PREFIX + name, value)


class Changes:
  """What the bucket held after each change of an object."""

  def __init__(self, monkeypatch):
    self.seen, one = [], threading.Lock()
    for name in ('pipe_file', 'rm_file'):
      def change(*args, _do=getattr(kind_of(), name), **kw):
        with one:
          _do(*args, **kw)
          self.seen.append(content())
      monkeypatch.setattr(kind_of(), name, change)
