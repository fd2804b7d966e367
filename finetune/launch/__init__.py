"""Launch: starts and supervises the processes of a distributed run."""
