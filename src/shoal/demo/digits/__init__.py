"""Draw a digit in a browser: a task with a plan, a page, and two owners to share rounds with."""
