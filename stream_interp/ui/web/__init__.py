"""The views over HTTP: one starlette app, templates, two static files."""
