"""The shell around the planner: when to look, and carrying out plans."""
