"""For tests of your own parts: a clock, transports, a task in one process, and the laws of each kind of part."""
