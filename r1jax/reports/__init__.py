"""Reports: what a run or a pipeline has measured, as one HTML page."""
