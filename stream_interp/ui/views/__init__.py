"""What a reader is shown, as typed records: the JSON of the page and what its templates draw. Pure."""
