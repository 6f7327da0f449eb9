"""The repetition penalty: the share of word n-grams that were said before.

Source: Yeo et al., "Demystifying Long Chain-of-Thought Reasoning in LLMs",
arXiv 2502.03373 (there a penalty per token; here one number a response).
"""

import re

# Chinese is written without spaces: each of its characters counts as a word.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


def penalty(text: str, n: int = 4) -> float:
  """-(1 - distinct n-grams / n-grams) of `text`, in (-1, 0].

  Case and punctuation are ignored. With n = 2, "a b a b a b" has five pairs,
  two of them distinct: -0.6. A text of fewer than n words has none: 0.
  """
  words = _WORD.findall(text.casefold())
  ngrams = list(zip(*(words[i:] for i in range(n))))
  if not ngrams:
    return 0.0
  return len(set(ngrams)) / len(ngrams) - 1.0
