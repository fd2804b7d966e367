"""Doctor: checks the machine, its devices and its libraries."""
