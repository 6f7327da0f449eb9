"""What a compiled program does, against counts by hand and closed forms."""

import pathlib

import jax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.parallel import sharding
from r1jax.plan import counts
from r1jax.plan import groups
from r1jax.plan import hlo
from r1jax.plan import work
import tiny

# Compiled for v5e:2x2 by libtpu 0.0.42: f(w[6,512,512], x[256,512], q, k) with
# a scan of x = silu(x @ w), a batched product q k^T of 2 x 4 matrices 128 x 64,
# a Pallas kernel that declares 12,345 FLOPs, and up to 7 times
# x = tanh(x @ w[0]); w over fsdp and tensor, the others' rows over fsdp and
# columns or heads over tensor. Without metadata, but the scope of the last loop,
# and the kernel's body.
TPU = pathlib.Path(__file__).with_name('v5e_2x2.hlo')
SQUARE = groups.Mesh(dict(fsdp=2, tensor=2),
                     np.array([[0, 0], [1, 0], [0, 1], [1, 1]]))
ONE = groups.Mesh(dict(fsdp=1), np.zeros((1, 1), np.int32))


def _text(function, *args, **options):
  return jax.jit(function, **options).lower(*args).compile().as_text()


def _count(function, *args, mesh=ONE, trips=None):
  program = hlo.parse(_text(function, *args))
  return counts.count(program, mesh, trips)


def test_a_scan_counts_its_body_as_often_as_it_runs():
  w, x = jnp.ones((5, 16, 16)), jnp.ones((8, 16))
  step = lambda x, w: (jnp.tanh(x @ w), None)
  done, inside = _count(lambda w, x: lax.scan(step, x, w)[0], w, x)
  assert done.flops == 5 * 2 * 8 * 16 * 16
  assert not inside.flops


def test_loops_within_loops_multiply():
  w, x = jnp.ones((5, 16, 16)), jnp.ones((8, 16))
  step = lambda x, w: (jnp.tanh(x @ w), None)
  twice = lambda x, _: (lax.scan(step, x, w)[0] @ jnp.ones((16, 16)), None)
  done, _ = _count(lambda x: lax.scan(twice, x, None, length=3)[0], x)
  assert done.flops == 3 * (5 + 1) * 2 * 8 * 16 * 16


def _until(x, w, most):
  with jax.named_scope('until'):
    return lax.while_loop(
        lambda c: (c[0] < most) & (c[1].sum() < 9),
        lambda c: (c[0] + 1, jnp.tanh(c[1] @ w)), (0, x))


def test_the_caller_says_how_often_a_loop_runs_that_ends_by_its_data():
  x, w = jnp.ones((8, 16)), jnp.ones((16, 16))
  done, inside = _count(lambda x, w: _until(x @ w, w, 11), x, w,
                        trips=lambda loop: {'until': 4}[loop.name])
  assert done.flops == 2 * 8 * 16 * 16
  assert inside.flops == 4 * 2 * 8 * 16 * 16
  with pytest.raises(ValueError, match='ends by its data'):
    _count(lambda x, w: _until(x, w, 11), x, w)


def test_a_loop_reads_a_slice_of_its_stacked_weights():
  layers, size = 50, 64
  w, x = jnp.ones((layers, size, size)), jnp.ones((8, size))
  step = lambda x, w: (jnp.tanh(x @ w), None)
  done, _ = _count(lambda w, x: lax.scan(step, x, w)[0], w, x)
  assert w.nbytes <= done.bytes < 6 * w.nbytes  # not layers times


def test_an_update_in_place_writes_the_slice():
  rows, size = 64, 4096
  def write(_, n):
    return None, jnp.full((size,), n, jnp.float32)
  done, _ = _count(lambda: lax.scan(write, None, jnp.arange(rows))[1])
  assert rows * size * 4 <= done.bytes < 8 * rows * size * 4


@pytest.fixture(name='mesh')
def _mesh():
  return sharding.make_mesh(dict(data=2, fsdp=4))


def _placed(mesh, shape, *axes):
  return jax.ShapeDtypeStruct(
      shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))


def test_a_product_over_a_split_axis_is_summed_over_it(mesh):
  left = _placed(mesh, (16, 64), None, 'fsdp')
  right = _placed(mesh, (64, 32), 'fsdp')
  done, _ = _count(lambda x, y: x @ y, left, right, mesh=groups.of_mesh(mesh))
  (kind, group), (size, number) = next(iter(done.sent.items()))
  assert (kind, group.axes, group.size, number) == (
      'all-reduce', ('fsdp',), 4, 1)
  assert size == 2 * 3 / 4 * 16 * 32 * 4
  assert done.flops == 2 * 16 * 64 * 32 / 4


def test_a_gathered_array_is_sent_to_the_others(mesh):
  split = _placed(mesh, (64, 32), ('data', 'fsdp'))
  whole = NamedSharding(mesh, P())
  gather = lambda x: lax.with_sharding_constraint(x, whole)
  done, _ = _count(gather, split, mesh=groups.of_mesh(mesh))
  (kind, group), (size, _) = next(iter(done.sent.items()))
  assert (kind, group.axes) == ('all-gather', ('data', 'fsdp'))
  assert size == 7 * 64 * 32 * 4 / 8


def test_a_model_takes_two_flops_for_a_weight_and_token():
  """The closed form of work.py, but attention computes all of the square."""
  placed = tiny.setup()
  config = placed.model.config
  tokens = jnp.zeros((4, 16), jnp.int32)
  position = jnp.broadcast_to(jnp.arange(16), (4, 16))
  def forward(params):
    hidden, _ = placed.model.forward(params, tokens, None, position)
    return placed.model.unembed(params, hidden)
  done, _ = _count(forward, tiny.params())
  square = config.layers * 4 * config.heads * config.head_size * 16 * 16
  weights = work.parameters(placed)[1]
  norms = (2 * config.layers + 1) * config.width
  assert done.flops == 4 * (2 * (weights - norms) * 16 + square)


def test_a_program_of_a_tpu():
  program = hlo.parse(TPU.read_text('utf-8'))
  done, inside = counts.count(program, SQUARE, lambda loop: {'last': 7}[loop.name])
  product = 2 * 128 * 512 * 256  # of a device
  assert done.flops == 6 * product + 2 * 2 * 128 * 128 * 64 + 12_345
  assert inside.flops == 7 * product
  sent = {(kind, group.axes): value
          for (kind, group), value in done.sent.items()}
  assert sent == {('all-gather', ('fsdp',)): (6 * 256 * 256 * 2, 6),
                  ('all-gather', ('tensor',)): (6 * 128 * 256 * 2, 6)}
  assert not done.unknown
  # The weights are read once at least; on the chip they are read again.
  assert 6 * 256 * 256 * 2 < done.bytes < 2 * 6 * 256 * 256 * 2


PIECES = """%view (p: bf16[64,8]) -> bf16[64,8,1] {
  %p = bf16[64,8]{1,0} parameter(0)
  ROOT %b = bf16[64,8,1]{1,0,2} bitcast(%p)
}
%piece (x: bf16[64,1,32], y: bf16[64,8], i: s32[]) -> bf16[2,4,8] {
  %x = bf16[64,1,32]{2,1,0} parameter(0)
  %y = bf16[64,8]{1,0} parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %low = bf16[] constant(-inf)
  %two = bf16[64,2,32]{2,1,0} pad(%x, %low), padding=0_0x0_1x0_0
  %zero = s32[] constant(0)
  %part = bf16[64,2,4]{2,1,0} dynamic-slice(%two, %zero, %zero, %i), \
dynamic_slice_sizes={64,2,4}
  %rows = bf16[64,8,1]{1,0,2} fusion(%y), kind=kLoop, calls=%view
  ROOT %out = bf16[2,4,8]{2,1,0} convolution(%part, %rows), window={size=1}, \
dim_labels=f0b_io0->0bf
}
%body (c: (bf16[64,1,32], bf16[64,8], s32[])) -> (bf16[64,1,32], bf16[64,8], s32[]) {
  %c = (bf16[64,1,32]{2,1,0}, bf16[64,8]{1,0}, s32[]{:S(6)}) parameter(0)
  %x = bf16[64,1,32]{2,1,0} get-tuple-element(%c), index=0
  %y = bf16[64,8]{1,0} get-tuple-element(%c), index=1
  %i = s32[]{:S(6)} get-tuple-element(%c), index=2
  %piece.1 = bf16[2,4,8]{2,1,0} fusion(%x, %y, %i), kind=kOutput, calls=%piece
  %step = s32[]{:S(6)} constant(2)
  %next = s32[]{:S(6)} add(%i, %step)
  ROOT %r = (bf16[64,1,32]{2,1,0}, bf16[64,8]{1,0}, s32[]{:S(6)}) tuple(\
%x, %y, %next)
}
%cond (c: (bf16[64,1,32], bf16[64,8], s32[])) -> pred[] {
  %c = (bf16[64,1,32]{2,1,0}, bf16[64,8]{1,0}, s32[]{:S(6)}) parameter(0)
  %i = s32[]{:S(6)} get-tuple-element(%c), index=2
  %end = s32[]{:S(6)} constant(9)
  ROOT %less = pred[]{:S(6)} compare(%i, %end), direction=LT
}
ENTRY %main (x: bf16[64,1,32], y: bf16[64,8]) -> (bf16[64,1,32], bf16[64,8], s32[]) {
  %x = bf16[64,1,32]{2,1,0} parameter(0)
  %y = bf16[64,8]{1,0} parameter(1)
  %start = s32[]{:S(6)} constant(1)
  %t = (bf16[64,1,32]{2,1,0}, bf16[64,8]{1,0}, s32[]{:S(6)}) tuple(\
%x, %y, %start)
  ROOT %w = (bf16[64,1,32]{2,1,0}, bf16[64,8]{1,0}, s32[]{:S(6)}) while(%t), \
condition=%cond, body=%body
}
"""


def test_a_product_in_pieces_reads_its_slices():
  """As XLA splits a product over a ring: two pieces, 1, 3, 5 and 7 the first.

  Each reads its columns of x, padded, and all of y through a view of it.
  """
  done, _ = counts.count(hlo.parse(PIECES), ONE)
  piece, rows, out = 64 * 2 * 4, 64 * 8, 2 * 4 * 8
  assert done.bytes == 4 * 2 * (piece + rows + out)
  assert done.flops == 4 * 2 * 64 * out


SUMMED = """%all-reduce-scatter.1 (p: f32[6,4]) -> f32[3,4] {
  %p = f32[6,4]{1,0} parameter(0)
  %sum = f32[6,4]{1,0} all-reduce(%p), replica_groups={{0,2},{1,3}}
  %zero = s32[] constant(0)
  ROOT %part = f32[3,4]{1,0} dynamic-slice(%sum, %zero, %zero), \
dynamic_slice_sizes={3,4}
}
ENTRY %main (p: f32[6,4]) -> f32[3,4] {
  %p = f32[6,4]{1,0} parameter(0)
  ROOT %f = f32[3,4]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_the_part_of_a_sum_is_a_reduce_scatter():
  done, _ = counts.count(hlo.parse(SUMMED), SQUARE)
  (kind, group), = done.sent
  assert (kind, group.axes) == ('reduce-scatter', ('fsdp',))
  assert done.sent[kind, group] == (6 * 4 * 4 / 2, 1)


FUSED = '''%view (p: f32[8,512]) -> f32[4096] {
  %p = f32[8,512]{1,0} parameter(0)
  ROOT %flat = f32[4096]{0} bitcast(%p)
}

%outer (q: f32[8,512], r: f32[8,512]) -> f32[4096] {
  %q = f32[8,512]{1,0} parameter(0)
  %r = f32[8,512]{1,0} parameter(1)
  %left = f32[4096]{0} fusion(%q), kind=kLoop, calls=%view
  %right = f32[8,512]{1,0} negate(%r)
  %other = f32[4096]{0} bitcast(%right)
  ROOT %sum = f32[4096]{0} add(%left, %other)
}

ENTRY %main (a: f32[8,512], b: f32[8,512]) -> f32[4096] {
  %a = f32[8,512]{1,0} parameter(0)
  %b = f32[8,512]{1,0} parameter(1)
  %there = f32[8,512]{1,0} all-to-all(%a), channel_id=1, replica_groups={{0,1},{2,3}}
  %back = f32[8,512]{1,0} all-to-all(%b), channel_id=1, replica_groups={{0,1},{2,3}}
  ROOT %done = f32[4096]{0} fusion(%there, %back), kind=kLoop, calls=%outer
}
'''


def test_what_an_inner_fusion_passes_on_is_read_by_the_outer_one():
  done, _ = counts.count(hlo.parse(FUSED), SQUARE)
  size = 8 * 512 * 4
  # Two all-to-alls read and write; the fusion reads both and writes one.
  assert done.bytes == 2 * 2 * size + 3 * size


def test_collectives_with_the_same_channel_are_several():
  done, _ = counts.count(hlo.parse(FUSED), SQUARE)
  assert list(done.sent.values()) == [(2 * 8 * 512 * 4 / 2, 2)]


def test_a_kernel_moves_the_bytes_that_it_declares():
  text = TPU.read_text('utf-8')
  count = lambda text: counts.count(
      hlo.parse(text), SQUARE, lambda loop: {'last': 7}[loop.name])[0].bytes
  more = text.replace('"bytes_accessed":"10"', '"bytes_accessed":"1010"')
  assert count(more) == count(text) + 1000


def test_a_loop_that_ends_by_its_data_is_known_by_its_scope_alone():
  """Not by one further out, of another such loop."""
  def twice(x):
    until = lambda x: lax.while_loop(
        lambda x: x.sum() < 9, lambda x: x + 1, x)
    with jax.named_scope('until'):
      return lax.while_loop(lambda x: x.sum() < 9, until, x)
  names = []
  _count(twice, jnp.ones(8), trips=lambda loop: names.append(loop.name) or 1)
  assert names == ['until/body', 'until']


def test_a_kernel_without_figures_is_named():
  text = TPU.read_text('utf-8').replace('"flops":"12345",', '')
  done, _ = counts.count(hlo.parse(text), SQUARE, lambda loop: {'last': 7}[loop.name])
  assert done.unknown == {'shard_map': 1}


SPLASH = """ENTRY %main (p: bf16[3,4,512,128]) -> bf16[3,4,512,128] {
  %mask = s8[1,2,6]{2,1,0} parameter(0)
  %q = bf16[3,4,512,128]{3,2,1,0} parameter(1)
  %k = bf16[3,2,768,128]{3,2,1,0} parameter(2)
  %v = bf16[3,2,768,64]{3,2,1,0} parameter(3)
  %splash_mha_NAME_segmented.1 = bf16[3,4,512,64]{3,2,1,0} custom-call(%mask, \
%q, %k, %v), custom_call_target="tpu_custom_call", \
frontend_attributes={kernel_metadata={
"xprof_metadata":"{block_qTO: 256, block_kvTO: 128}"
}}, metadata={op_name="jit(f)"}
  ROOT %copy = bf16[3,4,512,64]{3,2,1,0} copy(%splash_mha_NAME_segmented.1)
}
"""


@pytest.mark.parametrize('name, products', [
    ('fwd', 128 + 64), ('dq', 2 * 128 + 64), ('dkv', 2 * 128 + 2 * 64)])
def test_splash_attention_by_its_blocks(name, products):
  """Its text has attributes of several lines, one of which begins with }."""
  suffix = '' if name == 'fwd' else f'_{name}'
  program = hlo.parse(SPLASH.replace('NAME', name).replace('TO', suffix))
  assert program.entry.root.name == 'copy'
  done, _ = counts.count(program, ONE)
  # Of two blocks of 256 queries, the last of 768 columns, one sees 512 columns
  # and the other all.
  assert done.flops == 2 * 3 * 4 * 256 * (512 + 768) * products


@pytest.mark.parametrize('name, blocks, products', [
    ('fwd', '1,6,6', 128 + 64), ('dkv', '1,2,18', 2 * 128 + 2 * 64)])
def test_splash_attention_of_packed_rows(name, blocks, products):
  """Three rows of the test above, one after the other."""
  suffix = '' if name == 'fwd' else f'_{name}'
  text = SPLASH.replace('NAME', name).replace('TO', suffix)
  for before, after in (('1,2,6', blocks), ('3,4,512', '4,1536'),
                        ('3,2,768', '2,2304'), ('{3,2,1,0}', '{2,1,0}')):
    text = text.replace(before, after)
  done, _ = counts.count(hlo.parse(text), ONE)
  assert done.flops == 2 * 3 * 4 * 256 * (512 + 768) * products


@pytest.mark.parametrize('settings, taps', [
    ((8, 3, 6, 1, 0, 1, 1), 18),  # no padding
    ((8, 3, 8, 1, 1, 1, 1), 22),  # one tap is missing at either end
    ((4, 4, 4, 3, 0, 4, 1), 4),  # a batch of 4 products: one tap each
    ((3, 3, 5, 1, 2, 1, 1), 9),  # a full convolution
    ((8, 2, 4, 2, 0, 1, 1), 8),  # every second place
    ((8, 2, 7, 1, 0, 1, 1), 14),
])
def test_taps_on_padding_do_not_count(settings, taps):
  assert counts.valid_taps(*settings) == taps


@pytest.mark.parametrize('text, axes, size', [
    ('replica_groups={{0,2},{1,3}}', ('fsdp',), 2),
    ('replica_groups=[2,2]<=[4]', ('tensor',), 2),
    ('replica_groups=[2,2]<=[2,2]T(1,0)', ('fsdp',), 2),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ('fsdp',), 2),
    ("replica_groups=mesh['a'=4] {'a'}", ('fsdp', 'tensor'), 4),
    ("replica_groups=mesh['a'=4] {'a':(2)2}", ('tensor',), 2),
    ("replica_groups=mesh['a'=4] {'a':(1)2}", ('fsdp',), 2),
    ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}",
     ('tensor',), 2),
    ('replica_groups={}', ('fsdp', 'tensor'), 4),
    ('source_target_pairs={{0,1},{1,0},{2,3},{3,2}}', ('tensor',), 2),
])
def test_a_group_is_named_by_the_axes_of_the_mesh(text, axes, size):
  group = groups.of(text + ', dimensions={0}', SQUARE)
  assert (group.axes, group.size) == (axes, size)


def test_a_group_of_another_form_is_an_error():
  with pytest.raises(ValueError, match='unknown form'):
    groups.of('replica_groups=others(3)', SQUARE)
