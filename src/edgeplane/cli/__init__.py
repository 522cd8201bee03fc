"""The command line: options in, one call out, words and an exit code. No domain rule lives here."""
