"""The FLOPs of JAX's splash attention kernels, which declare none.

They follow from the shapes of a kernel's operands and from its blocks: a causal
kernel goes through the blocks of keys up to that of its last query. Where
queries are split over devices, those of the last device see the most keys, and
all wait for it: its blocks are counted. Rows with segments
(kernels/splash_segments.py) are one sequence to a kernel. Which blocks it
leaves out depends on the data: counted are those of rows of one segment, in
local layers as in global ones.
"""

import math
import re

from r1jax.plan import hlo

# Products of a kernel, [queries, keys] times a head, by (h of keys, of values).
_PRODUCTS = {
    'splash_mha_fwd': lambda k, v: k + v,  # scores; output
    'splash_mha_dq': lambda k, v: 2 * k + v,  # and the gradient of weights
    'splash_mha_dkv': lambda k, v: 2 * k + 2 * v,
}


def flops(computation: hlo.Computation, one: hlo.Instruction) -> int | None:
  """The FLOPs of a kernel's call on one device; None for another kernel."""
  kernel = re.match(r'splash_mha_(fwd|dq|dkv)', one.name)
  if not kernel:
    return None
  arrays = [computation.instructions[name].array for name in one.operands]
  blocks = next(x for x in arrays if x.dtype == 's8')
  q, k, v = [x for x in arrays if x.dtype in ('bf16', 'f32')][:3]
  suffix = '' if kernel[1] == 'fwd' else f'_{kernel[1]}'
  of_queries, of_keys = (
      int(re.search(rf'block_{name}{suffix}\W+(\d+)', one.attributes)[1])
      for name in ('q', 'kv'))
  queries, keys, rows = q.dims[-2], k.dims[-2], 1
  if len(q.dims) == 3:  # packed: a list of blocks is as long as one row
    rows = (queries // (blocks.dims[-2] * of_queries) if kernel[1] == 'dkv'
            else keys // (blocks.dims[-1] * of_keys))
    queries, keys = queries // rows, keys // rows
  before = keys - queries
  # With a window fewer blocks are visited, the same number in each row.
  seen = sum(
      min(blocks.dims[-1] if kernel[1] != 'dkv' else keys // of_keys,
          -(-(before + (i + 1) * of_queries) // of_keys))
      for i in range(queries // of_queries))
  products = _PRODUCTS[kernel[0]](q.dims[-1], v.dims[-1])
  return (2 * rows * math.prod(q.dims[:-2]) * seen * of_queries * of_keys *
          products)
