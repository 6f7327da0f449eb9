"""The format reward accepts the paper's form and nothing else."""

import pytest

from r1jax.rewards import text_rules


@pytest.mark.parametrize("text", [
    "<think>1 + 1</think><answer>2</answer>",
    "\n <think> 1 < 2\nand so on </think>\n\n<answer>\n2 </answer> \n",
    "<think>caf\ufffd</think> <answer>\ufffd</answer>",
    "<think>" + "so " * 100_000 + "</think><answer>2</answer>",
])
def test_the_form(text):
  assert text_rules.format_reward(text) == 1.0


@pytest.mark.parametrize("text", [
    "",
    "2",
    "<answer>2</answer>",
    "<think>1 + 1</think>",
    "<think>1 + 1</think><answer>2</answer> That is all.",
    "Well. <think>1 + 1</think><answer>2</answer>",
    "<think>1 + 1</think> so <answer>2</answer>",
    "<think>a</think><think>b</think><answer>2</answer>",
    "<think>a<think>b</think></think><answer>2</answer>",
    "<think>a</think><answer>1</answer><answer>2</answer>",
    "<think>a <answer>1</answer></think><answer>2</answer>",
    "<think>a <answer>2</answer></think>",
    "<answer>2</answer><think>a</think>",
    "<think>a<answer>2</answer></think>",
    "<think>a</think><answer>2",
    "<think>a<answer>2</answer>",
    "<think>a</think><answer>2</answer><think>",
    "<think> \n</think><answer>2</answer>",
    "<think>a</think><answer> </answer>",
    "<think>a</think><answer></think>2</answer>",
    "<Think>a</Think><answer>2</answer>",
])
def test_not_the_form(text):
  assert text_rules.format_reward(text) == 0.0


@pytest.mark.parametrize("text, expected", [
    ("<think>1 + 1</think> It is \\boxed{2}.", 1.),
    ("\n<think>\n1 + 1 </think>2", 1.),
    ("<think>1 + 1</think><answer>2</answer>", 0.),
    ("<think>1 + 1</think> ", 0.),
    ("<think> </think> 2", 0.),
    ("Well, <think>1 + 1</think> 2", 0.),
    ("<think>1 + 1", 0.),
    ("2", 0.),
    ("", 0.),
    ("<think>a</think>b</think>c", 0.),
    ("<think>a</think> <think>b</think> c", 0.),
])
def test_the_form_with_a_summary(text, expected):
  assert text_rules.format_reward(text, "summary") == expected
