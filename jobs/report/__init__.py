"""The page that shows what came out of a run: one self-contained HTML file."""
