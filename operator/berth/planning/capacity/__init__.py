"""The capacity planner: which replicas may ask for GPUs, when, and who makes way. Pure; it starts in planner.py."""
