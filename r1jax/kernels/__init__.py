"""Pure functions of arrays: sampling, log-probabilities, objectives."""
