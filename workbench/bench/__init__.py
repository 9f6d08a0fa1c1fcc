"""How fast the dashboard is: a real browser, many real websocket sessions, runs as large as those of a 7B model."""
