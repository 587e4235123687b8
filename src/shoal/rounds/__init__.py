"""The round protocol as a state machine: events in, effects out, no I/O."""
