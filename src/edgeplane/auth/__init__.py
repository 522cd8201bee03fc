"""Who is calling, and whether they may: passwords, tokens, roles, and a brake on guessing."""
