"""What a person or a test can see of a running process: log lines and named crash points."""
