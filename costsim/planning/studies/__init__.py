"""Studies of a scenario: each answers one part of its question with a table and a figure."""
