"""Review of an audit: a page on this machine to decide about each finding."""
