"""The founding paper's protocol, and its published numbers beside ours."""
