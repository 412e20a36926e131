"""What others read: the board's data as tables, runs as Hugging Face model cards."""
