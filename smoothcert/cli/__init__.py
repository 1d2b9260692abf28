"""Certification from a shell: commands, options, files of models and data, and reports."""
