"""The words: frozen data and pure rules, in plain Python. Nothing here reads, writes or waits."""
