"""Where events and blobs are kept: memory, SQLite, folders."""
