"""What a room must have, as data."""
