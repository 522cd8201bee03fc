"""One function per use case: the rules that need a row. A read without a rule has no service."""
