"""Topics to one read-only web page, and to a table in a terminal."""
