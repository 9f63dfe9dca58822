"""The soak: one Model started, loaded, disturbed and stopped, over and over, and what is left of it afterwards."""
