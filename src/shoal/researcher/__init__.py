"""The researcher's side: publish a task, watch it, fetch its versions."""
