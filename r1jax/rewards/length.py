"""The soft overlong penalty: long responses pay before they are cut off.

With length |y|, limit L and cache C, all in tokens (DAPO, arXiv 2503.14476,
equation 13):

    0                  if |y| <= L - C
    (L - C - |y|) / C  if L - C < |y| <= L
    -1                 if L < |y|
"""


def overlong(tokens: int, finished: bool, limit: int, cache: int) -> float:
  """The penalty, 0 to -1, of a response of `tokens` tokens, its EOS included.

  A response that did not finish was cut at the limit, so it pays in full.
  With limit 100 and cache 20: 80 tokens pay 0, 90 pay -0.5, 100 pay -1.
  """
  length = tokens if finished else max(tokens, limit)
  return -min(max((length - (limit - cache)) / cache, 0.0), 1.0)
