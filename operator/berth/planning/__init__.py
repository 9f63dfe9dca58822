"""Pure decisions: no I/O, no clock of its own, no globals. Time is an argument."""
