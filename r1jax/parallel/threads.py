"""Parts of a batch at once, on the cores of one CPU.

XLA runs the programs that one thread dispatches one after the other, each on
all cores, and those of several threads side by side. A step of decoding is made
of many small products, and cores wait for each other at the end of every one:
two programs with half of the rows each are done sooner than one with all.
"""

from collections.abc import Callable
from concurrent import futures
import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


def usable(mesh: jax.sharding.Mesh, count: int, rows: int) -> int:
  """The largest number of equal parts of a batch of `rows` up to `count`.

  It is 1 where the mesh is not one CPU, whose cores they share.
  """
  platform = mesh.devices.flat[0].platform
  most = min(count, rows) if (mesh.size, platform) == (1, 'cpu') else 1
  return next(parts for parts in range(most, 0, -1) if rows % parts == 0)


def at_once(function: Callable[[int], Any], count: int) -> list[Any]:
  """function(0), ..., function(count - 1), each called in its own thread.

  What the calls dispatch may still be running, as after any call of a program.
  """
  calls = [_thread(number).submit(function, number) for number in range(count)]
  futures.wait(calls)
  return [call.result() for call in calls]


@functools.cache
def _thread(number: int) -> futures.ThreadPoolExecutor:
  return futures.ThreadPoolExecutor(1, f'part_{number}')


def in_parts(function: Callable[..., Any], count: int, batched: int,
             static_argnums: tuple[int, ...] = (), **options: Any
             ) -> Callable[..., Any]:
  """`function`, jitted, of `count` equal parts of a batch at once.

  Args:
    function: pure; each row of its results is of one row of the batch.
    count: how many; 1: the batch as it is.
    batched: the number of the argument that is the batch, a tree of arrays
      whose rows `count` divides.
    static_argnums, options: of jax.jit.
  """
  if count == 1:
    return jax.jit(function, static_argnums=static_argnums, **options)

  def of_part(number, *args):
    args = list(args)
    args[batched] = jax.tree.map(
        lambda x: lax.dynamic_slice_in_dim(
            x, number * (len(x) // count), len(x) // count), args[batched])
    return function(*args)

  program = jax.jit(
      of_part, static_argnums=tuple(n + 1 for n in static_argnums), **options)
  return lambda *args: _joined(
      at_once(lambda number: program(np.int32(number), *args), count))


@jax.jit
def _joined(parts: list[Any]) -> Any:
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)
