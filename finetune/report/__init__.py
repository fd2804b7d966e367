"""Reports: pages in one file, without network access, that show a run, an audit or a comparison."""
