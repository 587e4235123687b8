"""The coordinator: TaskStates driven by the wall clock, a store and HTTP."""
