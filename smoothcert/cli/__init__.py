"""Certification from a shell: the command line, the models and data that it reads, and what it prints."""
