"""An owner's process: checks in, trains, makes its update durable, reports."""
