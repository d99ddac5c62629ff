"""The table of sinks: adding one is a file here and a line in `SINKS`; the contract suite picks it up."""
