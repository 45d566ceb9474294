"""How good generated images are: judges, metrics, and the guard that watches a run."""
