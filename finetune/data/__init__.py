"""Data: reads, scans, splits and batches images, with their targets."""
