"""Values of the domain: trees, roles, tasks, errors. numpy and the standard library only."""
