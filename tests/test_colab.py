"""The notebook runs from top to bottom on a CPU."""

import pathlib

import pytest

_NOTEBOOK = pathlib.Path(__file__).parents[1] / 'colabs' / 'r1_zero.ipynb'


@pytest.mark.slow
def test_the_notebook_runs_top_to_bottom(tmp_path, monkeypatch):
  nbformat = pytest.importorskip('nbformat')
  nbclient = pytest.importorskip('nbclient')
  monkeypatch.setenv('R1JAX_WORKDIR', str(tmp_path))
  monkeypatch.setenv('R1JAX_STEPS', '2')
  notebook = nbformat.read(_NOTEBOOK, as_version=4)
  nbclient.NotebookClient(
      notebook, timeout=900,
      resources={'metadata': {'path': str(_NOTEBOOK.parent)}}).execute()
  assert (tmp_path / 'report.html').stat().st_size > 10_000
  last = notebook.cells[-1].outputs[0]['data']['text/html']
  assert 'r1jax' in last


def test_the_notebook_defines_nothing():
  text = _NOTEBOOK.read_text('utf-8')
  assert '"def ' not in text and '"class ' not in text
