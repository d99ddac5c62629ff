"""An incident as a pack of files that anybody can replay and verify."""
