"""The pages of the HTTP port that people read."""
