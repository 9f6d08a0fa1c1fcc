"""What a dashboard needs before a group may use it: accounts, a login that locks, a gate before requests, a log."""
