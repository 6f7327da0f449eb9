"""Meshes over 8 fake devices."""

import jax
import pytest

from r1jax import config as config_lib
from r1jax.parallel import mesh as mesh_lib


def test_make_uses_every_device_once():
  mesh = mesh_lib.make(dict(data=2, fsdp=-1, tensor=2))
  assert dict(mesh.shape) == dict(data=2, fsdp=2, expert=1, tensor=2, context=1)
  assert set(mesh.devices.flat) == set(jax.devices())
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
  assert mesh_lib.shards(mesh) == 4


def test_make_takes_the_devices_it_is_given():
  mesh = mesh_lib.make({}, devices=jax.devices()[3:4])
  assert list(mesh.devices.flat) == jax.devices()[3:4]
  mesh = mesh_lib.make(dict(fsdp=-1), devices=jax.devices()[:4])
  assert mesh.shape['fsdp'] == 4


def test_sizes_that_do_not_fit_name_the_field():
  with pytest.raises(config_lib.ConfigError, match='config.mesh.tensor'):
    mesh_lib.make(dict(tensor=3, fsdp=-1))
  with pytest.raises(config_lib.ConfigError, match='the 8 devices'):
    mesh_lib.make(dict(data=4))
