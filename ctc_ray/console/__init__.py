"""What people see: log lines, progress, summaries."""
