"""One file a view of the dashboard; the file's stem is its key."""
