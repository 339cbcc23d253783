"""Tools for testing: the slow reference, Hypothesis strategies, and conformance checks for users' own extensions."""
