"""Video tasks: which frames of a video are seen, and how they are read from files."""
