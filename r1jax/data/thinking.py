"""The parts of a response: its thinking, and the answer that follows.

The tags are those of DeepSeek-R1 (arXiv 2501.12948, table 1). R1-Zero tags its
answer, too; R1 writes a summary after its thinking. The chat template that R1
was released with opens the thinking itself: what is sampled has no <think>, and
is read as if it began with it.
"""

THINK, END_OF_THINKING = '<think>', '</think>'
ANSWER, END_OF_ANSWER = '<answer>', '</answer>'
TAGS = (THINK, END_OF_THINKING, ANSWER, END_OF_ANSWER)

# What a response begins with whose prompt ends by opening the thinking.
OPEN = f'{THINK}\n'

THOUGHT = f'{THINK} {{}} {END_OF_THINKING}'  # to be filled with a thought,
TAGGED = f'{THOUGHT} {ANSWER} {{}} {END_OF_ANSWER}'  # and an answer


def opened(prompt: str) -> bool:
  """Whether a prompt, in its template, ends by opening the thinking."""
  return prompt.rstrip().endswith(THINK)


def summary(response: str) -> str:
  """The text after the thinking: all that helpfulness is judged by.

  Empty where thinking is not closed. DeepSeek-R1 (arXiv 2501.12948, 2.3.4):
  helpfulness on the final summary, harmlessness on the whole response.
  """
  text = response.rpartition(END_OF_THINKING)[2]
  return '' if THINK in text else text.strip()
