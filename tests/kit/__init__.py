"""What the tests share: real servers, real processes, ports and waiting."""
