"""Topics as code: definitions, schemas and examples. Installed as `stream_interp.topic_files`; data only."""
