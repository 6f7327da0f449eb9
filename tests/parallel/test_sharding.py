"""Meshes over 8 fake devices, and which part of an array lies on each."""

import jax
from jax.sharding import PartitionSpec as P
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax import errors
from r1jax.parallel import sharding
from r1jax.types import Prompts

def test_make_uses_every_device_once():
  mesh = sharding.make_mesh(dict(data=2, fsdp=-1, tensor=2))
  assert dict(mesh.shape) == dict(data=2, fsdp=2, expert=1, tensor=2, context=1)
  assert set(mesh.devices.flat) == set(jax.devices())
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
  assert sharding.batch_shards(mesh) == 4


def test_make_takes_the_devices_it_is_given():
  mesh = sharding.make_mesh({}, devices=jax.devices()[3:4])
  assert list(mesh.devices.flat) == jax.devices()[3:4]
  mesh = sharding.make_mesh(dict(fsdp=-1), devices=jax.devices()[:4])
  assert mesh.shape['fsdp'] == 4


def test_sizes_that_do_not_fit_name_the_field():
  with pytest.raises(errors.ConfigError, match='config.mesh.tensor'):
    sharding.make_mesh(dict(tensor=3, fsdp=-1))
  with pytest.raises(errors.ConfigError, match='the 8 devices'):
    sharding.make_mesh(dict(data=4))


RULES = (('batch', ('data', 'fsdp')), ('embed', 'fsdp'), ('mlp', 'tensor'),
         ('heads', 'tensor'), ('norm', None), ('lost', 'tensr'))


@pytest.fixture(name='mesh', scope='module')
def _mesh():
  return sharding.make_mesh(dict(data=2, fsdp=2, tensor=2))


def test_spec(mesh):
  assert sharding.partition_spec(('embed', 'mlp'), RULES, mesh) == P(
      'fsdp', 'tensor')
  assert sharding.partition_spec(('batch', None, 'norm'), RULES, mesh) == P(
      ('data', 'fsdp'), None, None)
  assert sharding.partition_spec((), RULES, mesh) == P()


def test_axes_of_size_one_drop_out():
  mesh = sharding.make_mesh(dict(fsdp=-1))
  assert sharding.partition_spec(('batch', 'mlp'), RULES, mesh) == P(
      'fsdp', None)


@pytest.mark.parametrize('axes, message', [
    (('embd',), "no rule for the axis 'embd'; did you mean embed?"),
    (('lost',), "'lost' → 'tensr' is not a mesh axis; did you mean tensor?"),
    (('mlp', 'heads'), r"split over \['tensor'\] twice"),
])
def test_spec_refuses(mesh, axes, message):
  with pytest.raises(errors.ConfigError, match=message):
    sharding.partition_spec(axes, RULES, mesh)


def test_shardings_follow_a_tree_and_split_its_arrays(mesh):
  params = {'w': jnp.arange(32.).reshape(4, 8), 'scale': jnp.ones(4),
            'count': jnp.zeros(())}
  axes = {'w': ('embed', 'mlp'), 'scale': ('norm',), 'count': ()}
  where = sharding.shardings(axes, params, mesh, RULES)
  placed = jax.device_put(params, where)
  assert placed['w'].addressable_shards[0].data.shape == (2, 4)
  assert placed['scale'].sharding.is_fully_replicated
  struct = sharding.abstract_arrays(params, where)['w']
  assert struct.shape == (4, 8) and struct.sharding == where['w']


def test_a_dimension_that_does_not_divide_names_the_field(mesh):
  params = {'layer': {'w': jnp.ones((4, 7))}}
  with pytest.raises(errors.ConfigError) as caught:
    sharding.shardings(
        {'layer': {'w': ('embed', 'mlp')}}, params, mesh, RULES)
  message = str(caught.value)
  assert message.startswith('config.mesh.tensor') and 'layer/w' in message
  whole = sharding.make_mesh({}, jax.devices()[:1])  # size 1 divides everything
  sharding.shardings({'layer': {'w': ('embed', 'mlp')}}, params, whole, RULES)


def test_constrain_inside_jit(mesh):
  x_BD = jnp.ones((8, 4))
  place = sharding.Placement(mesh, (('batch', 'data'), ('embed', 'fsdp')))
  y_BD = jax.jit(lambda x: place.constrain(x * 2, ('batch', 'embed')))(x_BD)
  assert y_BD.sharding.spec == P('data', 'fsdp')
  np.testing.assert_array_equal(y_BD, np.full((8, 4), 2.))


def test_from_host_splits_the_rows(mesh):
  rows = {'x': np.arange(16.).reshape(8, 2)}
  placed = sharding.from_host(rows, mesh)['x']
  assert placed.sharding == sharding.batch_sharding(mesh)
  assert placed.addressable_shards[0].data.shape == (2, 2)
  np.testing.assert_array_equal(placed, rows['x'])
  np.testing.assert_array_equal(sharding.to_host(placed), rows['x'])


def test_prompts_that_do_not_divide_are_whole_everywhere(mesh):
  for count in (3, 8):
    ids = sharding.from_host(np.arange(count), mesh, uneven=True)
    assert ids.sharding == (
        sharding.batch_sharding if count == 8 else sharding.replicated)(mesh)
    np.testing.assert_array_equal(ids, np.arange(count))
  with pytest.raises(ValueError, match='evenly divide'):
    sharding.from_host(np.arange(3), mesh)


@pytest.mark.parametrize('count, group, parts, times', [
    (4, 3, 1, 1),  # one on each device
    (8, 16, 2, 1), (1, 4, 1, 4), (2, 16, 1, 2), (2, 16, 8, 16), (6, 4, 1, 2),
    (12, 2, 2, 2)])
def test_a_prompt_is_repeated_as_rarely_as_its_group_allows(
    mesh, count, group, parts, times):
  """4 devices: the rows divide over them, in each of the parts."""
  place = sharding.Placement(mesh, RULES)
  prompts = Prompts(*[np.arange(count)] * 3)
  got = sharding.repeat(prompts, count * group, place, parts)
  np.testing.assert_array_equal(got.id, np.repeat(np.arange(count), times))
  for fewer in range(1, times):
    assert group % fewer or count * fewer % (4 * parts)


def test_responses_that_do_not_divide_are_refused(mesh):
  place = sharding.Placement(mesh, RULES)
  prompts = Prompts(*[np.arange(2)] * 3)
  sharding.repeat(prompts, 6, None)
  with pytest.raises(ValueError, match='2 prompts of 3 responses .* 4 parts of'):
    sharding.repeat(prompts, 6, place)
  with pytest.raises(ValueError, match='into 4 micro-batches'):
    sharding.repeat(prompts, 8, place, parts=4)


def test_rows_that_do_not_divide_are_refused_inside_jit(mesh):
  """XLA fills them up, and returned wrong gradients of an embedding."""
  place = sharding.Placement(mesh, RULES)
  with pytest.raises(errors.ConfigError, match="of the 2 of axis 'batch'"):
    jax.jit(lambda x: place.constrain(x, ('batch', 'norm')))(jnp.ones((2, 4)))


def test_enough_prompts_are_sampled_to_use_all_devices(mesh):
  place = sharding.Placement(mesh, RULES)
  assert sharding.filled(5, 1, place) == 8
  assert sharding.filled(5, 2, place) == sharding.filled(5, 6, place) == 6
  assert sharding.filled(5, 4, place) == 5
  wide = sharding.Placement(mesh, (('batch', ('data', 'fsdp', 'tensor')),))
  assert sharding.filled(5, 4, wide) == 6


def test_parameters_are_cut_before_they_are_gathered(mesh):
  """Parts of the gathered array are the same; on the way it is never whole."""
  assert sharding.finer(P('data', 'fsdp'), P(('data', 'tensor'), None)) == P(
      ('data', 'tensor'), 'fsdp')
  # Where an axis would cut twice, or not what is there, a part stays whole.
  assert sharding.finer(P('data', None), P(None, 'data')) == P('data', None)
  assert sharding.finer(P('data', 'fsdp'), P('fsdp', 'tensor')) == P(
      'data', 'fsdp')
  old = (('batch', 'data'), ('embed', 'fsdp'))
  new = (('batch', ('data', 'tensor')), ('embed', None))
  axes, x = {'w': ('batch', 'embed')}, {'w': jnp.arange(32.).reshape(8, 4)}
  x = jax.device_put(x, sharding.shardings(axes, x, mesh, old))
  take = jax.jit(
      lambda x: sharding.Placement(mesh, new, old).take(x, axes))
  np.testing.assert_array_equal(take(x)['w'], x['w'])
  assert take(x)['w'].addressable_shards[0].data.shape == (2, 4)


def test_own_rows_has_each_row_once(mesh):
  """On 4 shards of 2 rows, each held by 2 devices, or on whole copies."""
  rows = np.arange(16.).reshape(8, 2)
  for where in (sharding.batch_sharding(mesh), sharding.replicated(mesh)):
    own = sharding.own_rows(jax.device_put(rows, where))
    assert sorted(own) == list(range(8))
    for row, values in own.items():
      np.testing.assert_array_equal(values, rows[row])
