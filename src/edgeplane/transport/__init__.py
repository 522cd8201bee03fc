"""How a task reaches an agent: one method behind a seam, so the engine knows no network."""
