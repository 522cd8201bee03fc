"""The REST API as Python: records, errors and calls. Nothing here prints, or reads a setting."""
