"""Meshes over 8 fake devices."""

import jax
import pytest

from r1jax import errors
from r1jax.parallel import sharding


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
