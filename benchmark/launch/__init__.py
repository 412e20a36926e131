"""Launchers: where and how planned runs are carried out."""
