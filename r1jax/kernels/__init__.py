"""Pure, jit-compiled functions of arrays: sampling, log-probs, objectives."""
